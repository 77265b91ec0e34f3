"""A layer's step: a sequence, one step at a time."""

import pytest
import torch

import gatedcells
from gatedcells.testing import assert_close_in_float64

CASES = [
    ("GRU", {}),
    ("GRU", {"num_layers": 2}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"batch_first": True, "bias": False}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "proj_size": 2}),
    ("LSTM", {"batch_first": True}),
]


def layer_of(name, options):
    torch.manual_seed(0)
    return getattr(gatedcells, name)(3, 5, dtype=torch.float64, **options)


def leaves(state):
    return torch.utils._pytree.tree_leaves(state)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_steps_are_the_sequence(name, options, grad, batched):
    layer = layer_of(name, options)
    x = torch.randn(6, *([2] if batched else []), 3, dtype=torch.float64)
    by_layout = x.transpose(0, 1) if batched and layer.batch_first else x
    with torch.set_grad_enabled(grad):
        expected, last = layer(by_layout)
        outputs, state = [], None
        for x_t in x:
            output, state = layer.step(x_t, state)
            outputs.append(output)
    found = torch.stack(outputs, dim=1 if batched and layer.batch_first else 0)
    assert_close_in_float64(found, expected)
    for a, b in zip(leaves(state), leaves(last), strict=True):
        assert_close_in_float64(a, b)
    if grad:
        weights = list(layer.parameters())
        for a, b in zip(
            torch.autograd.grad(found.square().sum(), weights),
            torch.autograd.grad(expected.square().sum(), weights),
            strict=True,
        ):
            assert_close_in_float64(a, b)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_step_that_begins_a_new_sequence_is_one_after_a_state_of_zeros(name, options, batched):
    layer = layer_of(name, options)
    x = torch.randn(2, *([3] if batched else []), 3, dtype=torch.float64)
    _, state = layer.step(x[0])
    begins = torch.tensor([True, False, True]) if batched else torch.tensor(True)
    for again in range(3):  # after a call without resets, and after one with
        output, last = layer.step(x[1], state, resets=begins)
        afresh, on = layer.step(x[1]), layer.step(x[1], state)
        for found, new, old in zip(leaves((output, last)), leaves(afresh), leaves(on), strict=True):
            by_row = begins[:, None] if batched else begins
            assert_close_in_float64(found, torch.where(by_row, new, old))
            assert batched or again == 0 or not torch.equal(new, old)
    untouched = layer.step(x[1], state, resets=torch.zeros_like(begins))
    for found, old in zip(leaves(untouched), leaves(on), strict=True):
        assert_close_in_float64(found, old)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_an_earlier_state_stays_what_it_was(name):
    layer = layer_of(name, {})
    with torch.no_grad():
        _, first = layer.step(torch.randn(2, 3, dtype=torch.float64))
        copies = [part.clone() for part in leaves(first)]
        state = first
        for _ in range(3):
            _, state = layer.step(torch.randn(2, 3, dtype=torch.float64), state)
        _, other = layer.step(torch.randn(2, 3, dtype=torch.float64))
        assert not torch.equal(leaves(other)[0], leaves(first)[0])
    for part, copy in zip(leaves(first), copies, strict=True):
        assert torch.equal(part, copy)


def test_output_and_last_state_of_one_step_can_be_changed_apart():
    layer = layer_of("GRU", {})
    x = torch.randn(1, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(3):
            output, last = layer(x)
            exact = last.clone()
            output.zero_()
            assert torch.equal(last, exact)


def test_a_step_compiles():
    layer = layer_of("LSTM", {"num_layers": 2})
    x = torch.randn(2, 3, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, state: layer.step(x, state), fullgraph=True, backend="aot_eager")
    state = layer.step(x)[1]
    for a, b in zip(leaves(compiled(x, state)), leaves(layer.step(x, state)), strict=True):
        assert_close_in_float64(a, b)


def test_what_has_no_step_says_so():
    x = torch.randn(2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="step needs a unidirectional layer"):
        layer_of("GRU", {"bidirectional": True}).step(x)
    layer = layer_of("GRU", {})
    with pytest.raises(ValueError, match="GRU: Expected a step's input to be 1D or 2D, got 3D instead"):
        layer.step(x[None])
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 2, 5\), got \[1, 4, 5\]"):
        layer.step(x, torch.zeros(1, 4, 5, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"resets of a step must be \[B\]=\[2\], got \[1, 2\]"):
        layer.step(x, resets=torch.zeros(1, 2).bool())
    with pytest.raises(RuntimeError, match=r"resets of a step must be a single bool, \[\], got \[1\]"):
        layer.step(x[0], resets=torch.zeros(1).bool())
    with pytest.raises(ValueError, match="resets must be bool, got torch.float32"):
        layer.step(x, resets=torch.zeros(2))
    with pytest.raises(RuntimeError, match=r"Expected 3, got 4"):
        layer.step(torch.zeros(2, 4, dtype=torch.float64))
