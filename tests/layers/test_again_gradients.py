"""A repeated training call computes the gradients that are wanted, and those of its first time."""

import copy
import itertools

import pytest
import torch

import gatedcells
from gatedcells_kernels.cpu import products

WEIGHTS = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
SUBSETS = [some for some in itertools.product([False, True], repeat=6) if any(some)]


@pytest.fixture
def backend():
    """Instead of the folder's: only kernels have something to remember."""
    with gatedcells.use_backend("auto"):
        yield


def gradients(layer, x, hidden, wanted):
    """Those of input, initial hidden state and weights, None where they are not wanted."""
    for_input, for_hidden, *for_weights = wanted
    for name, want in zip(WEIGHTS, for_weights, strict=True):
        getattr(layer, name).requires_grad_(want).grad = None
    x, hidden = x.clone().requires_grad_(for_input), hidden.clone().requires_grad_(for_hidden)
    state = (hidden, torch.ones_like(hidden)) if isinstance(layer, gatedcells.LSTM) else hidden
    output, last = layer(x, state)
    seen = last[1] if isinstance(last, tuple) else last
    ((output * torch.arange(output.numel()).view_as(output)).sum() + seen.square().sum()).backward()
    return [t.grad for t in (x, hidden, *(getattr(layer, name) for name in WEIGHTS))]


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (5, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_of_whatever_is_wanted_are_those_of_the_first_call(cell, shape, dtype):
    layer = getattr(gatedcells, cell)(3, 6, dtype=dtype)
    x, hidden = torch.randn(*shape, 3, dtype=dtype), torch.randn(1, shape[1], 6, dtype=dtype)
    for wanted in SUBSETS:
        first = gradients(copy.deepcopy(layer), x, hidden, wanted)
        assert [found is not None for found in first] == list(wanted)
        for _ in range(3):
            for found, expected in zip(gradients(layer, x, hidden, wanted), first, strict=True):
                assert (found is None) == (expected is None)
                assert found is None or torch.equal(found, expected)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_those_of_a_single_row_are_the_same_whoever_multiplies(cell, limit, monkeypatch):
    monkeypatch.setattr(products, "_ONE_ROW", limit)
    layer, x, hidden = getattr(gatedcells, cell)(3, 6), torch.randn(1, 1, 3), torch.randn(1, 1, 6)
    first = gradients(copy.deepcopy(layer), x, hidden, [True] * 6)
    for _ in range(3):
        assert all(map(torch.equal, gradients(layer, x, hidden, [True] * 6), first))


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_gradients_of_outputs_that_lie_otherwise_are_read_right(cell):
    layer, x = getattr(gatedcells, cell)(3, 6), torch.randn(4, 2, 3)
    weights = list(layer.parameters())
    for _ in range(2):  # an expanded gradient, a transposed one, a contiguous one, none at all, and again
        for grad in (
            torch.ones(1, 1, 1).expand(4, 2, 6),
            torch.randn(6, 2, 4).permute(2, 1, 0),
            torch.randn(4, 2, 6),
        ):
            fresh = copy.deepcopy(layer)
            expected = torch.autograd.grad(fresh(x)[0], list(fresh.parameters()), grad)
            found = torch.autograd.grad(layer(x)[0], weights, grad)
            assert all(map(torch.equal, found, expected))
        fresh = copy.deepcopy(layer)
        expected = torch.autograd.grad(torch.stack([*_last(fresh(x))]).sum(), list(fresh.parameters()))
        found = torch.autograd.grad(torch.stack([*_last(layer(x))]).sum(), weights)
        assert all(map(torch.equal, found, expected))


def _last(outputs):
    _, last = outputs
    return last if isinstance(last, tuple) else (last,)
