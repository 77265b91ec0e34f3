"""The operators behind a sequence: right against autograd through the reference, and well registered."""

from functools import partial
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import gatedcells
from gatedcells._autograd import recompute as recompute_module
from gatedcells.reference import gru, lstm
from gatedcells.reference.time import boundaries
from gatedcells.testing import assert_close_in_float64

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def gru_tensors(T, B, I, H, bias=True):
    biases = (draw(3 * H), draw(3 * H)) if bias else (None, None)
    return draw(T, B, I), draw(B, H), draw(3 * H, I), draw(3 * H, H), *biases


def lstm_tensors(T, B, I, H, P=0, bias=True):
    biases = (draw(4 * H), draw(4 * H)) if bias else (None, None)
    state = (draw(B, P or H), draw(B, H))
    return draw(T, B, I), *state, draw(4 * H, I), draw(4 * H, P or H), *biases, draw(P, H) if P else None


def run_gru(*tensors, **options):
    return gatedcells.gru_sequence(*tensors, **options)


def run_lstm(input, hidden, cell, *weights, **options):
    states, (last, last_cell) = gatedcells.lstm_sequence(input, (hidden, cell), *weights, **options)
    return states, last, last_cell


def gradients(run, tensors, used):
    """Gradients of a loss over the chosen outputs, by a fresh random weight for each element."""
    outputs = run(*tensors)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64) for out in outputs]
    loss = sum((outputs[i] * weights[i]).sum() for i in used)
    wanted = [t for t in tensors if t is not None]
    return outputs, torch.autograd.grad(loss, wanted, allow_unused=True)


def drawn_resets(data, T, B):
    often = data.draw(st.sampled_from([None, 0.2, 1.0]))
    return None if often is None else torch.rand(T, B) < often


def spans_of(steps, B, H):
    """Have a backward pass that recomputes take so many steps at a time, for 9 numbers of 8 bytes a unit."""
    return patch.object(recompute_module, "SPAN_BYTES", steps * 9 * 8 * B * H)


def assert_same(ours, reference):
    for i, (actual, exact) in enumerate(zip(ours, reference, strict=True)):
        assert (actual is None) == (exact is None)
        if exact is not None:
            assert_close_in_float64(actual, exact, f"number {i}")


@settings(max_examples=80)
@given(
    sizes=SIZES, bias=st.booleans(), reverse=st.booleans(), reset_after=st.booleans(),
    used=st.sampled_from([(0, 1), (0,), (1,)]), data=st.data(),
)  # fmt: skip
def test_gru_operator_and_its_backward_are_autograd_through_the_reference(
    sizes, bias, reverse, reset_after, used, data
):
    T, B, _, _ = sizes
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    lengths = None if lengths is None else torch.tensor(lengths)
    tensors = gru_tensors(*sizes, bias=bias)
    resets, recompute = drawn_resets(data, T, B), data.draw(st.booleans())
    options = {"lengths": lengths, "reverse": reverse, "reset_after": reset_after}
    ours = partial(run_gru, **options, resets=resets, recompute=recompute)
    exact = partial(gru.unroll, **options, resets=boundaries(resets, lengths, reverse))
    with spans_of(data.draw(st.integers(1, 3)), B, sizes[3]):
        outputs, grads = gradients(ours, tensors, used)
    exact_outputs, exact_grads = gradients(exact, tensors, used)
    assert outputs[0].grad_fn is not None
    assert_same(outputs, exact_outputs)
    assert_same(grads, exact_grads)


@settings(max_examples=80)
@given(
    sizes=SIZES, bias=st.booleans(), reverse=st.booleans(), projected=st.booleans(),
    used=st.sampled_from([(0, 1, 2), (0,), (1,), (2,)]), data=st.data(),
)  # fmt: skip
def test_lstm_operator_and_its_backward_are_autograd_through_the_reference(
    sizes, bias, reverse, projected, used, data
):
    T, B, I, H = sizes
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    lengths = None if lengths is None else torch.tensor(lengths)
    tensors = lstm_tensors(T, B, I, H + 1, P=H if projected else 0, bias=bias)
    resets, recompute = drawn_resets(data, T, B), data.draw(st.booleans())
    options = {"lengths": lengths, "reverse": reverse}
    ours = partial(run_lstm, **options, resets=resets, recompute=recompute)
    exact = partial(lstm.unroll, **options, resets=boundaries(resets, lengths, reverse))
    with spans_of(data.draw(st.integers(1, 3)), B, H + 1):
        outputs, grads = gradients(ours, tensors, used)
    exact_outputs, exact_grads = gradients(exact, tensors, used)
    assert_same(outputs, exact_outputs)
    # where only the last cell state is used, autograd knows that some inputs do not matter
    zeros = [torch.zeros_like(g) if e is None else e for g, e in zip(grads, exact_grads, strict=True)]
    assert_same(grads, zeros)


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_gru_operator_has_first_and_second_derivatives(reset_after, reverse):
    run = partial(run_gru, lengths=torch.tensor([3, 0, 2]), reverse=reverse, reset_after=reset_after)
    tensors = gru_tensors(3, 3, 2, 2)
    assert torch.autograd.gradcheck(run, tensors, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, tensors)


@pytest.mark.parametrize("P", [0, 1])
def test_lstm_operator_has_first_and_second_derivatives(P):
    tensors = lstm_tensors(3, 2, 2, 2, P=P)
    assert torch.autograd.gradcheck(run_lstm, tensors, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run_lstm, tensors)


@pytest.mark.parametrize("wanted", range(6))
def test_a_gradient_is_computed_for_each_input_on_its_own(wanted):
    tensors = gru_tensors(4, 2, 3, 2)
    exact = torch.autograd.grad(gru.unroll(*tensors)[0].sum(), tensors[wanted])
    alone = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
    actual = torch.autograd.grad(run_gru(*alone)[0].sum(), alone[wanted])
    assert_same(actual, exact)


def registered(lengths, backend):
    """Lengths, resets and the backend's name, as an operator takes them."""
    resets = None if lengths is None else torch.rand(3, 2) < 0.5
    return None if lengths is None else torch.tensor(lengths), resets, "cpu" if backend == "auto" else backend


@pytest.mark.parametrize("keep", [0, 1, 2])
@pytest.mark.parametrize("lengths", [None, [3, 1]])
def test_operators_are_registered_as_torch_wants_them(keep, lengths, backend):
    *given, backend = registered(lengths, backend)
    ops = torch.ops.gatedcells
    tensors = gru_tensors(3, 2, 2, 4)
    torch.library.opcheck(ops.gru_sequence.default, (*tensors, *given, False, True, keep, backend))
    tensors = lstm_tensors(3, 2, 2, 4, P=2)
    torch.library.opcheck(ops.lstm_sequence.default, (*tensors, *given, True, keep, backend))


@pytest.mark.parametrize("lengths", [None, [3, 1]])
def test_operators_of_the_backward_pass_are_registered_as_torch_wants_them(lengths, backend):
    lengths, resets, backend = registered(lengths, backend)
    ops = torch.ops.gatedcells
    tensors = gru_tensors(3, 2, 2, 4)
    with torch.no_grad():
        _, hidden, _, weight_hh, _, _ = tensors
        states, last, tape = ops.gru_sequence(*tensors, lengths, resets, False, True, 1, backend)
        read = (states, last, hidden, weight_hh, lengths, resets, states, tape, False, True, backend)
        torch.library.opcheck(ops.gru_sequence_backward.default, read)
        torch.library.opcheck(ops.gru_sequence_backward.default, (*read, False))
        torch.library.opcheck(
            ops.gru_sequence_recompute.default,
            (states, last, *tensors, lengths, resets, states, False, True, [True, False] * 3, backend),
        )
        tensors = lstm_tensors(3, 2, 2, 4, P=2)
        _, hidden, cell, _, weight_hh, _, _, weight_hr = tensors
        states, last, last_cell, tape = ops.lstm_sequence(*tensors, lengths, resets, True, 1, backend)
        d_outputs = (states, last, last_cell)
        read = (hidden, cell, weight_hh, weight_hr, lengths, resets, states, tape, True, backend)
        torch.library.opcheck(ops.lstm_sequence_backward.default, (*d_outputs, *read))
        torch.library.opcheck(ops.lstm_sequence_backward.default, (*d_outputs, *read, False))
        cells = tape[:, :, 4:].contiguous()
        torch.library.opcheck(
            ops.lstm_sequence_recompute.default,
            (*d_outputs, *tensors, lengths, resets, states, cells, True, [True, False] * 4, backend),
        )


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_state_that_wants_no_gradient_changes_no_other(backend, T, reset_after):
    tensors = [t.detach().requires_grad_() for t in gru_tensors(T, 3, 2, 5)]
    run = partial(run_gru, backend=backend, reset_after=reset_after)
    _, all_of_them = gradients(run, tensors, (0, 1))
    tensors[1].requires_grad_(False)
    outputs = run(*tensors)
    generator = torch.Generator().manual_seed(0)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs)
    others = [t for t in tensors if t.requires_grad]
    for found, exact in zip(
        torch.autograd.grad(loss, others), (*all_of_them[:1], *all_of_them[2:]), strict=True
    ):
        assert torch.equal(found, exact)


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("P", [0, 3])
@pytest.mark.parametrize("without", [(1,), (2,), (1, 2)])
def test_an_lstm_state_that_wants_no_gradient_changes_no_other(backend, T, P, without):
    tensors = [t if t is None else t.detach().requires_grad_() for t in lstm_tensors(T, 3, 2, 5, P)]
    run = partial(run_lstm, backend=backend)
    _, all_of_them = gradients(run, tensors, (0, 1, 2))
    for state in without:
        tensors[state].requires_grad_(False)
    outputs = run(*tensors)
    generator = torch.Generator().manual_seed(0)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs)
    others = [t for t in tensors if t is not None and t.requires_grad]
    left = [grad for i, grad in enumerate(all_of_them) if i not in without]
    for found, exact in zip(torch.autograd.grad(loss, others), left, strict=True):
        assert torch.equal(found, exact)


def test_inference_keeps_no_tape_and_training_keeps_four_numbers_a_unit_and_step():
    tensors = gru_tensors(5, 2, 3, 4)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        run_gru(*tensors)
        assert torch.Size([5, 2, 4, 4]) in kept
        kept.clear()
        with torch.no_grad():
            run_gru(*tensors)
        run_gru(*(t.detach() for t in tensors))
    assert kept == []


@pytest.mark.parametrize("run", ["gru", "lstm"])
def test_recomputing_keeps_the_states_alone(run):
    call, tensors = (
        (run_gru, gru_tensors(5, 2, 3, 4)) if run == "gru" else (run_lstm, lstm_tensors(5, 2, 3, 4))
    )
    sizes: list[int] = []
    given = {t.data_ptr() for t in tensors if t is not None}

    def note(tensor):
        if tensor.data_ptr() not in given:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        call(*tensors, recompute=True)
    assert sum(sizes) == 5 * 2 * 4 * (1 if run == "gru" else 2)


@pytest.mark.parametrize("recompute", [False, True])
def test_derivatives_of_recomputed_sequences_can_be_differentiated_again(recompute):
    run = partial(run_gru, resets=torch.rand(3, 2) < 0.5, recompute=recompute)
    tensors = gru_tensors(3, 2, 2, 2)
    assert torch.autograd.gradcheck(run, tensors, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, tensors)


class TapeSizes(TorchDispatchMode):
    """Note how many numbers each sequence operator returns as its tape."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.namespace == "gatedcells":
            self.seen.append(result[-1].numel())
        return result


@pytest.mark.parametrize("run", ["gru", "lstm"])
def test_a_tape_is_made_only_where_a_gradient_may_be_asked_for(run):
    call, tensors = (
        (run_gru, gru_tensors(5, 2, 3, 4)) if run == "gru" else (run_lstm, lstm_tensors(5, 2, 3, 4))
    )
    with TapeSizes() as tapes:
        call(*tensors)
        with torch.no_grad():
            call(*tensors)
        call(*(t if t is None else t.detach() for t in tensors))
    assert tapes.seen == [5 * 2 * 4 * (4 if run == "gru" else 5), 0, 0]


@pytest.mark.parametrize("run", ["gru", "lstm"])
def test_nan_beyond_a_rows_length_reaches_neither_results_nor_gradients(run):
    tensors = gru_tensors(4, 2, 3, 2) if run == "gru" else lstm_tensors(4, 2, 3, 2)
    call = run_gru if run == "gru" else run_lstm
    dirty = tensors[0].detach().clone()
    dirty[2:, 1] = torch.nan
    dirty.requires_grad_()
    lengths = torch.tensor([4, 2])
    clean = gradients(partial(call, lengths=lengths), tensors, (0, 1))
    found = gradients(partial(call, lengths=lengths), (dirty, *tensors[1:]), (0, 1))
    expected = [clean[1][0].clone(), *clean[1][1:]]
    assert torch.equal(expected[0][2:, 1], torch.zeros(2, 3, dtype=torch.float64))
    # the same numbers, wherever the input was the same
    assert_same(found[1][1:], expected[1:])
    assert torch.isfinite(found[1][0]).all()


def test_a_row_of_length_zero_returns_its_initial_state():
    tensors = gru_tensors(3, 2, 2, 4)
    _, last = run_gru(*tensors, lengths=torch.tensor([0, 3]))
    assert torch.equal(last[0], tensors[1][0])


def test_operators_share_no_memory_with_their_inputs_or_each_other():
    x, h, *weights = (t.detach() for t in gru_tensors(1, 2, 2, 4))
    states, last = run_gru(x, h, *weights)
    pointers = {t.untyped_storage().data_ptr() for t in (states, last, x, h)}
    assert len(pointers) == 4
