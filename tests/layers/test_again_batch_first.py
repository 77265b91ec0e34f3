"""Calls like the one before them where the batch comes first in the input."""

import copy

import pytest
import torch

import gatedcells
from gatedcells.functional.again import Again

T, B, I, H = 6, 3, 5, 9

pytestmark = pytest.mark.parametrize("cell", ["GRU", "LSTM"])


@pytest.fixture(autouse=True)
def backend():
    """Only kernels have something to remember."""
    with gatedcells.use_backend("auto"):
        yield


@pytest.fixture
def made_again(monkeypatch):
    """Of each call whether it was a remembered one."""
    made = []
    run = Again.run

    def noted(self, *arguments):
        found = run(self, *arguments)
        made.append(found is not None)
        return found

    monkeypatch.setattr(Again, "run", noted)
    return made


def layer_of(cell, **options):
    torch.manual_seed(0)
    return getattr(gatedcells, cell)(I, H, batch_first=True, **options)


def call_of(cell, steps=T, rows=B):
    states = [torch.randn(1, rows, H) for _ in range(2 if cell == "LSTM" else 1)]
    return torch.randn(rows, steps, I), tuple(states) if cell == "LSTM" else states[0]


def everything(layer, x, hx):
    """Outputs, and every gradient."""
    states = list(hx) if isinstance(hx, tuple) else [hx]
    x, *states = (part.detach().clone().requires_grad_() for part in (x, *states))
    output, last = layer(x, tuple(states) if len(states) == 2 else states[0])
    last = list(last) if isinstance(last, tuple) else [last]
    loss = sum((part * torch.arange(part.numel()).view(part.shape)).sum() for part in (output, *last))
    return [output, *last, *torch.autograd.grad(loss, [x, *states, *layer.parameters()])]


def same(found, expected):
    return all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(found, expected, strict=True))


def test_inference_is_not_checked_again_and_gives_the_same(cell, made_again):
    layer = layer_of(cell)
    with torch.no_grad():
        for number in range(4):
            x, hx = call_of(cell)
            found = torch.utils._pytree.tree_leaves(layer(x, hx))
            assert made_again[-1] is (number > 0)
            assert same(found, torch.utils._pytree.tree_leaves(copy.deepcopy(layer)(x, hx)))
            assert made_again[-1] is False


def test_training_is_not_checked_again_and_gives_the_same(cell, made_again):
    layer = layer_of(cell)
    for number in range(4):
        call = call_of(cell)
        found = everything(layer, *call)
        assert made_again[-1] is (number > 1)  # a shape that comes once is not remembered
        assert same(found, everything(copy.deepcopy(layer), *call))


@pytest.mark.parametrize(
    ("steps", "rows"), [(T + 1, B), (T, B + 1), (B, T), (1, B), (T, 1)], ids=lambda size: str(size)
)
def test_another_shape_is_checked_in_full(cell, steps, rows, made_again):
    layer = layer_of(cell)
    for _ in range(3):
        everything(layer, *call_of(cell))
    assert made_again[-1] is True
    call = call_of(cell, steps, rows)
    found = everything(layer, *call)
    assert made_again[-1] is False
    assert same(found, everything(copy.deepcopy(layer), *call))


def test_a_single_sequence_is_checked_in_full(cell, made_again):
    layer = layer_of(cell)
    with torch.no_grad():
        for _ in range(2):
            layer(*call_of(cell))
        x = torch.randn(T, I)
        output, _ = layer(x)
        assert made_again[-1] is False
        assert torch.equal(output, copy.deepcopy(layer)(x)[0])


def test_an_input_that_lies_time_first_is_not_checked_again(cell, made_again):
    layer = layer_of(cell)
    with torch.no_grad():
        for _ in range(3):
            x, hx = call_of(cell)
            lies = x.transpose(0, 1).contiguous().transpose(0, 1)
            output, _ = layer(lies, hx)
            assert torch.equal(output, copy.deepcopy(layer)(x, hx)[0])
        assert made_again[-2] is True  # the last is that of the copy


def test_second_derivatives_are_those_of_the_first_call(cell):
    layer, (x, hx) = layer_of(cell), call_of(cell)
    found = []
    for _ in range(3):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(leaf, hx)[0].square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [leaf, *layer.parameters()]))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_steps_of_a_stream_go_on_beside_it(cell, made_again):
    layer = layer_of(cell)
    with torch.no_grad():
        for _ in range(3):
            layer(*call_of(cell))
            x, hx = call_of(cell)
            output, _ = layer.step(x[:, 0], hx)
            assert torch.equal(output, layer(x[:, :1], hx)[0][:, 0])
