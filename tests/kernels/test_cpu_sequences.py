"""The C++ kernels beside the reference, and what they promise beyond it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatedcells
from gatedcells import _reference_kernel as reference
from gatedcells.testing import assert_close_in_float64, assert_within_budget
from gatedcells_kernels.cpu import sequence
from gatedcells_kernels.tape import Keep
from tests.support.cell_tensors import draw, gru_tensors, lstm_tensors
from tests.support.inputs import Case, as_double
from tests.support.run import everything as everything_of
from tests.support.run import pooled

WITHOUT_TAPE = (Keep.NOTHING, Keep.STATES)
SIZES = st.tuples(st.integers(1, 70), st.integers(0, 70), st.integers(0, 70), st.integers(1, 70))


def drawn_resets(data, T, B):
    often = data.draw(st.sampled_from([None, 0.0, 0.2, 1.0]))
    return None if often is None else torch.rand(T, B) < often


def assert_same(ours, exact):
    for number, (a, e) in enumerate(zip(ours, exact, strict=True)):
        assert_close_in_float64(a, e, f"number {number}")


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@settings(max_examples=60)
@given(sizes=SIZES, bias=st.booleans(), reverse=st.booleans(), reset_after=st.booleans(), data=st.data())
def test_gru_kernels_are_the_reference(level, sizes, bias, reverse, reset_after, data):
    T, B, _, H = sizes
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.int64)
    tensors = gru_tensors(*sizes, bias=bias)
    resets = drawn_resets(data, T, B)
    options = (lengths, resets, reverse, reset_after)
    states, tape = sequence.gru_forward(*tensors, *options, Keep.TAPE)
    exact = reference.gru_forward(*tensors, *options, Keep.TAPE)
    assert_same((states, tape), exact)
    without_tape, empty = sequence.gru_forward(*tensors, *options, data.draw(st.sampled_from(WITHOUT_TAPE)))
    assert torch.equal(without_tape, states)
    assert empty.numel() == 0
    some = data.draw(st.sampled_from(["both", "states", "last"]))
    d_states = draw(T, B, H) if some != "last" else None
    d_last = draw(B, H) if some != "states" else None
    backward = (d_states, d_last, tensors[1], tensors[3], lengths, resets, *exact, reverse, reset_after)
    assert_same(sequence.gru_backward(*backward), reference.gru_backward(*backward))


@settings(max_examples=60)
@given(sizes=SIZES, P=st.integers(0, 20), bias=st.booleans(), reverse=st.booleans(), data=st.data())
def test_lstm_kernels_are_the_reference(level, sizes, P, bias, reverse, data):
    T, B, *_ = sizes
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.int64)
    tensors = lstm_tensors(*sizes, P=P, bias=bias)
    _, hidden, cell, _, weight_hh, _, _, weight_hr = tensors
    resets = drawn_resets(data, T, B)
    ours = sequence.lstm_forward(*tensors, lengths, resets, reverse, Keep.TAPE)
    exact = reference.lstm_forward(*tensors, lengths, resets, reverse, Keep.TAPE)
    assert_same(ours, exact)
    states, last_cell, cells = sequence.lstm_forward(*tensors, lengths, resets, reverse, Keep.STATES)
    assert torch.equal(states, ours[0])
    assert torch.equal(last_cell, ours[1])
    assert torch.equal(cells, ours[2][:, :, 4:])
    some = data.draw(st.sampled_from(["all", "states", "last", "cell"]))
    d_states = torch.randn_like(exact[0]) if some in ("all", "states") else None
    d_last = torch.randn_like(hidden) if some in ("all", "last") else None
    d_cell = torch.randn_like(cell) if some in ("all", "cell") else None
    backward = (
        d_states,
        d_last,
        d_cell,
        hidden,
        cell,
        weight_hh,
        weight_hr,
        lengths,
        resets,
        exact[0],
        exact[2],
        reverse,
    )
    assert_same(sequence.lstm_backward(*backward), reference.lstm_backward(*backward))


def everything(cell, tensors, reset_after=True, P=0):
    """Outputs of a cell's sequence and what its backward kernel gives, in one list."""
    if cell == "gru":
        _, hidden, _, weight_hh, _, _ = tensors
        states, tape = sequence.gru_forward(*tensors, None, None, False, reset_after, Keep.TAPE)
        backward = sequence.gru_backward(
            states, states[-1], hidden, weight_hh, None, None, states, tape, False, reset_after
        )
        return [states, tape, *backward]
    _, hidden, cell_state, _, weight_hh, _, _, weight_hr = tensors
    states, last_cell, tape = sequence.lstm_forward(*tensors, None, None, False, Keep.TAPE)
    backward = sequence.lstm_backward(
        states,
        states[-1],
        last_cell,
        hidden,
        cell_state,
        weight_hh,
        weight_hr,
        None,
        None,
        states,
        tape,
        False,
    )
    return [t for t in (states, last_cell, tape, *backward) if t.numel()]


SHAPES = [(5, 1, 3, 600), (7, 13, 20, 33), (3, 130, 40, 40), (2, 9, 300, 520)]
CELLS = [("gru", {}), ("gru", {"reset_after": False}), ("lstm", {}), ("lstm", {"P": 24})]


def tensors_of(cell, shape, options, dtype):
    return gru_tensors(*shape, dtype=dtype) if cell == "gru" else lstm_tensors(*shape, **options, dtype=dtype)


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_results_do_not_depend_on_the_number_of_threads(native, cell, options, shape, dtype):
    tensors = tensors_of(cell, shape, options, dtype)
    runs = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        runs.append(everything(cell, tensors, **options))
    torch.set_num_threads(1)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@DTYPES
@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_a_rows_result_does_not_depend_on_the_rest_of_its_batch(
    native, level, threads, cell, options, T, dtype
):
    B = 23
    tensors = tensors_of(cell, (T, B, 17, 45), options, dtype)
    together = everything(cell, tensors, **options)
    states = 2 if cell == "gru" else 3
    for first, last in ((0, 1), (5, 6), (3, 8), (7, 23)):
        some = [tensors[0][:, first:last], *(t[first:last] for t in tensors[1:states]), *tensors[states:]]
        for apart, whole in zip(everything(cell, some, **options), together, strict=True):
            axis = whole.dim() > 2
            assert torch.equal(apart, whole.narrow(int(axis), first, last - first))


# Weights beyond the second-level cache, rows 2 KB apart: what comes next is fetched, and the rows are moved.
LARGE = [(torch.float64, 256), (torch.float32, 512), (torch.bfloat16, 1024)]


@pytest.mark.parametrize(("dtype", "H"), LARGE)
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_with_large_weights_results_depend_neither_on_threads_nor_on_the_batch(
    native, level, cell, options, dtype, H
):
    tensors = tensors_of(cell, (3, 17, H, H), options, dtype)
    together = everything(cell, tensors, **options)
    torch.set_num_threads(2)
    on_two = everything(cell, tensors, **options)
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(on_two, together, strict=True))
    states = 2 if cell == "gru" else 3
    for first, last in ((4, 5), (3, 16)):
        some = [tensors[0][:, first:last], *(t[first:last] for t in tensors[1:states]), *tensors[states:]]
        for apart, whole in zip(everything(cell, some, **options), together, strict=True):
            assert torch.equal(apart, whole.narrow(int(whole.dim() > 2), first, last - first))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("I", [256, 3])
@pytest.mark.parametrize("B", [9, 70])
def test_with_large_weights_gru_kernels_are_the_reference(level, B, I, reset_after):
    tensors, resets = gru_tensors(4, B, I, 256), torch.rand(4, B) < 0.3
    options = (torch.arange(B) % 5, resets, True, reset_after)
    exact = reference.gru_forward(*tensors, *options, Keep.TAPE)
    assert_same(sequence.gru_forward(*tensors, *options, Keep.TAPE), exact)
    backward = (draw(4, B, 256), None, tensors[1], tensors[3], *options[:2], *exact, *options[2:])
    assert_same(sequence.gru_backward(*backward), reference.gru_backward(*backward))


@pytest.mark.parametrize("P", [0, 256])
@pytest.mark.parametrize("I", [256, 3])
@pytest.mark.parametrize("B", [9, 70])
def test_with_large_weights_lstm_kernels_are_the_reference(level, B, I, P):
    tensors, resets = lstm_tensors(4, B, I, 256, P=P), torch.rand(4, B) < 0.3
    options = (torch.arange(B) % 5, resets, True)
    exact = reference.lstm_forward(*tensors, *options, Keep.TAPE)
    assert_same(sequence.lstm_forward(*tensors, *options, Keep.TAPE), exact)
    _, hidden, cell, _, weight_hh, _, _, weight_hr = tensors
    read = (hidden, cell, weight_hh, weight_hr, *options[:2], exact[0], exact[2], True)
    backward = (torch.randn_like(exact[0]), None, torch.randn_like(cell), *read)
    assert_same(sequence.lstm_backward(*backward), reference.lstm_backward(*backward))


@DTYPES
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_a_nan_stays_in_its_row(native, level, cell, options, dtype):
    tensors = tensors_of(cell, (4, 9, 5, 20), options, dtype)
    clean = everything(cell, tensors, **options)
    tensors[0][1, 3] = torch.nan
    dirty = everything(cell, tensors, **options)
    others = [i for i in range(9) if i != 3]
    for a, b in zip(dirty, clean, strict=True):
        axis = int(a.dim() > 2)
        assert torch.equal(
            a.index_select(axis, torch.tensor(others)), b.index_select(axis, torch.tensor(others))
        )
    assert dirty[0][1:, 3].isnan().all()
    assert not dirty[0][0, 3].isnan().any()


BFLOAT16_SHAPES = [(1, 1, 5, 33), (6, 1, 1, 64), (9, 5, 7, 31), (4, 70, 16, 48), (3, 9, 33, 160)]


@pytest.mark.parametrize("shape", BFLOAT16_SHAPES)
@pytest.mark.parametrize("name", ["GRU", "LSTM", "projected LSTM"])
def test_bfloat16_is_as_exact_as_torchs(native, level, name, shape):
    T, B, I, H = shape
    options = {"bidirectional": True, "num_layers": 2} | ({"proj_size": 11} if "projected" in name else {})
    case = Case(name.split()[-1], T, B, I, H, options)
    ours, theirs = case.modules(torch.bfloat16)
    ours.backend = "cpu"
    found, rival = (everything_of(module, case, torch.bfloat16) for module in (ours, theirs))
    exact = everything_of(as_double(theirs), case, torch.float64)
    for kind in ("values", "gradients"):
        assert_within_budget(pooled(found, kind), exact=pooled(exact, kind), rival=pooled(rival, kind))


def test_bfloat16_carries_its_state_on_in_float32(native, level):
    """With z next to 1 a step changes h by less than half a unit of bfloat16: lost, were h rounded."""
    H, T = 16, 2000
    weights = torch.zeros(3 * H, 1), torch.zeros(3 * H, H)
    update = torch.full((H,), 7.0)  # 1 - z = 1/1097
    biases = torch.cat([torch.zeros(H), update, torch.ones(H)]), torch.zeros(3 * H)
    tensors = (torch.zeros(T, 1, 1), torch.zeros(1, H), *weights, *biases)
    exact, _ = reference.gru_forward(*tensors, None, None, False, True, Keep.NOTHING)
    low = [t.bfloat16() for t in tensors]
    found, _ = sequence.gru_forward(*low, None, None, False, True, Keep.NOTHING)
    assert torch.allclose(found.float(), exact, rtol=2**-8, atol=0)


@pytest.mark.parametrize("T", [1, 5])
def test_tensors_may_lie_anyhow_in_memory(native, level, T):
    straight = gru_tensors(T, 6, 7, 19)
    x, h, w_x, w_h, b_x, b_h = straight
    odd = (
        x.transpose(0, 1).contiguous().transpose(0, 1),
        torch.cat([torch.zeros(1, dtype=h.dtype), h.flatten()])[1:].view(h.shape),
        w_x.T.contiguous().T,
        torch.stack([w_h, w_h], dim=2)[:, :, 0],
        torch.cat([b_x, b_x])[: len(b_x)],
        torch.stack([b_h, b_h], dim=1)[:, 1],
    )
    options = (None, None, False, True, Keep.TAPE)
    found, exact = sequence.gru_forward(*odd, *options), sequence.gru_forward(*straight, *options)
    for a, b in zip(found, exact, strict=True):
        assert torch.equal(a, b)
    expanded = x[:, :1].expand(T, 6, 7)
    states, _ = sequence.gru_forward(expanded, *straight[1:], None, None, False, True, Keep.NOTHING)
    exact, _ = sequence.gru_forward(
        expanded.contiguous(), *straight[1:], None, None, False, True, Keep.NOTHING
    )
    assert torch.equal(states, exact)


def test_a_single_step_is_the_first_of_a_sequence(native, level):
    tensors = gru_tensors(3, 5, 7, 21)
    one, _ = sequence.gru_forward(tensors[0][:1], *tensors[1:], None, None, False, True, Keep.NOTHING)
    three, _ = sequence.gru_forward(*tensors, None, None, False, True, Keep.NOTHING)
    assert_close_in_float64(one, three[:1])


def test_wrong_shapes_are_caught_before_the_kernel_runs(native):
    tensors = gru_tensors(3, 5, 7, 21)
    options = (None, None, False, True, Keep.NOTHING, "cpu")
    for which in range(1, 6):
        wrong = list(tensors)
        wrong[which] = wrong[which][:-1]
        with pytest.raises(RuntimeError, match="must be"):
            torch.ops.gatedcells.gru_sequence(*wrong, *options)
    with pytest.raises(RuntimeError, match="must have the same dtype"):
        torch.ops.gatedcells.gru_sequence(tensors[0].float(), *tensors[1:], *options)
    with pytest.raises(ValueError, match="lengths must lie in"):
        torch.ops.gatedcells.gru_sequence(*tensors, torch.full((5,), 4), *options[1:])
    with pytest.raises(RuntimeError, match=r"resets must be \[T=3, B=5\], got \[3, 4\]"):
        torch.ops.gatedcells.gru_sequence(*tensors, None, torch.zeros(3, 4, dtype=torch.bool), *options[2:])
    message = "has kernels for float32, float64, bfloat16, got float16"
    with pytest.raises(gatedcells.BackendUnavailable, match=message):
        gatedcells.GRU(7, 21, dtype=torch.float16, backend="cpu")(tensors[0].half())


def test_wrong_shapes_of_a_backward_pass_are_caught_before_the_kernel_runs(native):
    T, B, H = 3, 5, 21
    tensors = gru_tensors(T, B, 7, H)
    ops = torch.ops.gatedcells
    states, last, tape = ops.gru_sequence(*tensors, None, None, False, True, Keep.TAPE, "cpu")
    short = torch.zeros(T - 1, B, dtype=torch.bool)
    options = (False, True, [True] * 6, "cpu")
    with pytest.raises(RuntimeError, match=r"resets must be \[T=3, B=5\], got \[2, 5\]"):
        ops.gru_sequence_backward(
            states, last, tensors[1], tensors[3], None, short, states, tape, False, True, "cpu"
        )
    with pytest.raises(RuntimeError, match=r"lengths must be \[B=5\], got \[4\]"):
        ops.gru_sequence_backward(
            states, last, tensors[1], tensors[3], torch.ones(4, dtype=torch.int64), None, states, tape,
            False, True, "cpu",
        )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"resets must be \[T=3, B=5\], got \[2, 5\]"):
        ops.gru_sequence_recompute(states, last, *tensors, None, short, states, *options)
    with pytest.raises(RuntimeError, match=r"states must be \[T=3, B=5, H=21\], got \[2, 5, 21\]"):
        ops.gru_sequence_recompute(states, last, *tensors, None, None, states[1:], *options)
    with pytest.raises(RuntimeError, match=r"d_last must be \[B=5, H=21\], got \[4, 21\]"):
        ops.gru_sequence_recompute(states, last[1:], *tensors, None, None, states, *options)


LSTM_BACKWARD = (
    "d_states d_last_hidden d_last_cell hidden cell weight_hh weight_hr lengths resets states tape"
)
LSTM_RECOMPUTE = (
    "d_states d_last_hidden d_last_cell input hidden cell weight_ih weight_hh bias_ih bias_hh weight_hr"
    " lengths resets states cells"
)


@pytest.mark.parametrize("operator", ["lstm_sequence_backward", "lstm_sequence_recompute"])
def test_each_wrong_shape_of_an_lstm_backward_pass_is_caught_before_the_kernel_runs(native, operator):
    T, B, H, P = 3, 5, 21, 4
    names = ["input", "hidden", "cell", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    given = dict(zip(names, lstm_tensors(T, B, 7, H, P=P), strict=True))
    ops = torch.ops.gatedcells
    given["lengths"], given["resets"] = torch.full((B,), T), torch.zeros(T, B, dtype=torch.bool)
    *last, tape = ops.lstm_sequence(*given.values(), False, Keep.TAPE, "cpu")
    given |= dict(zip(("d_states", "d_last_hidden", "d_last_cell"), last, strict=True))
    given |= {"states": last[0], "tape": tape, "cells": tape[:, :, 4:].contiguous()}
    recomputes = operator == "lstm_sequence_recompute"
    order = (LSTM_RECOMPUTE if recomputes else LSTM_BACKWARD).split()
    options = (False, [True] * 8, "cpu") if recomputes else (False, "cpu")
    getattr(ops, operator)(*map(given.get, order), *options)
    for name in order:
        axis = given[name].dim() - 1
        short = given[name].narrow(axis, 0, given[name].shape[axis] - 1)
        with pytest.raises((ValueError, RuntimeError), match=r"must be \["):
            getattr(ops, operator)(*map((given | {name: short}).get, order), *options)
