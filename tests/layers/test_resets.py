"""Sequences one after the other in one row: the same as one by one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatedcells
from gatedcells.testing import assert_close_in_float64

CELLS = (gatedcells.GRU, gatedcells.LSTM)


def layer_of(cls, **options):
    torch.manual_seed(0)
    return cls(3, 5, 2, dtype=torch.float64, **options)


def one_by_one(layer, x, resets, state):
    """Output ``[T, D*H]`` of each row's sequences run alone; the initial state goes to a row's first sequence
    and, in the reverse direction, to its last."""
    directions = 2 if layer.bidirectional else 1
    rows = []
    for row in range(x.shape[1]):
        begins = [0, *(t for t in range(1, len(x)) if resets[t, row]), len(x)]
        parts = []
        for first, last in pairwise(begins):
            hx = tuple(part[:, row : row + 1].clone() for part in state)
            for part in hx:
                forward, reverse = part[::directions], part[1::2]
                if first > 0 or resets[0, row]:
                    forward.zero_()
                if directions == 2 and last < len(x):
                    reverse.zero_()
            parts.append(layer(x[first:last, row : row + 1], hx if len(hx) == 2 else hx[0])[0][:, 0])
        rows.append(torch.cat(parts))
    return torch.stack(rows, dim=1)


@settings(max_examples=40)
@given(
    cls=st.sampled_from(CELLS),
    bidirectional=st.booleans(),
    recompute=st.booleans(),
    T=st.integers(1, 9),
    B=st.integers(1, 4),
    often=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_resets_are_the_sequences_one_by_one(cls, bidirectional, recompute, T, B, often):
    layer = layer_of(cls, bidirectional=bidirectional, recompute=recompute)
    resets = torch.rand(T, B) < often
    x = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)
    state = tuple(
        torch.randn(4 if bidirectional else 2, B, 5, dtype=torch.float64)
        for _ in range(1 if cls is gatedcells.GRU else 2)
    )
    output, _ = layer(x, state if len(state) == 2 else state[0], resets=resets)
    expected = one_by_one(layer, x, resets, state)
    assert_close_in_float64(output, expected)
    weights = [x, *layer.parameters()]
    d_output = torch.randn_like(output)
    found = torch.autograd.grad(output, weights, d_output)
    exact = torch.autograd.grad(expected, weights, d_output)
    for f, e in zip(found, exact, strict=True):
        assert_close_in_float64(f, e)


@pytest.mark.parametrize("cls", CELLS)
def test_nan_before_a_reset_reaches_neither_what_follows_nor_its_gradients(cls):
    layer = layer_of(cls)
    resets = torch.zeros(6, 2, dtype=torch.bool)
    resets[3, 0] = True
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    x[1, 0] = torch.nan
    x.requires_grad_()
    output, _ = layer(x, resets=resets)
    assert output[1:3, 0].isnan().all()
    assert output[3:].isfinite().all()
    (d_x,) = torch.autograd.grad(output[3:, 0].sum(), x)
    assert d_x[3:, 0].isfinite().all()


@pytest.mark.parametrize("cls", CELLS)
def test_resets_lie_like_the_input(cls):
    by_time, by_batch = layer_of(cls), layer_of(cls, batch_first=True)
    x, resets = torch.randn(6, 2, 3, dtype=torch.float64), torch.rand(6, 2) < 0.4
    output, _ = by_time(x, resets=resets)
    assert_close_in_float64(by_batch(x.transpose(0, 1), resets=resets.T)[0].transpose(0, 1), output)
    assert_close_in_float64(by_time(x[:, 1], resets=resets[:, 1])[0], output[:, 1])


def test_a_compiled_layer_resets_with_either_memory_mode():
    for recompute in (False, True):
        layer = layer_of(gatedcells.LSTM, bidirectional=True, recompute=recompute)
        x, resets = torch.randn(6, 2, 3, dtype=torch.float64), torch.rand(6, 2) < 0.4
        torch._dynamo.reset()
        compiled = torch.compile(lambda x, resets: layer(x, resets=resets)[0], fullgraph=True)  # noqa: B023
        found, exact = compiled(x, resets), layer(x, resets=resets)[0]
        assert_close_in_float64(found, exact)
        for f, e in zip(
            torch.autograd.grad(found.square().sum(), layer.parameters()),
            torch.autograd.grad(exact.square().sum(), layer.parameters()),
            strict=True,
        ):
            assert_close_in_float64(f, e)


def test_an_exported_layer_resets():
    layer = layer_of(gatedcells.GRU, bidirectional=True).eval()
    x, resets = torch.randn(6, 2, 3, dtype=torch.float64), torch.rand(6, 2) < 0.4
    T = torch.export.Dim("T")
    program = torch.export.export(
        layer, (x,), {"resets": resets}, dynamic_shapes={"input": {0: T}, "resets": {0: T}}
    ).module()
    x, resets = torch.randn(9, 2, 3, dtype=torch.float64), torch.rand(9, 2) < 0.4
    assert_close_in_float64(program(x, resets=resets)[0], layer(x, resets=resets)[0])


def test_wrong_resets_are_named():
    layer = layer_of(gatedcells.GRU)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"resets must be \[T, B\]=\[6, 2\], got \[2, 6\]"):
        layer(x, resets=torch.zeros(2, 6, dtype=torch.bool))
    with pytest.raises(RuntimeError, match=r"resets must be \[T\]=\[6\], got \[5\]"):
        layer(x[:, 0], resets=torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="resets must be bool, got torch.int64"):
        layer(x, resets=torch.zeros(6, 2, dtype=torch.int64))
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 2]))
    with pytest.raises(ValueError, match="resets= needs a padded input, got a PackedSequence"):
        layer(packed, resets=torch.zeros(6, 2, dtype=torch.bool))
