"""Calls whose inputs depend on the same weights: loops over a cell, state passed on, tied weights."""

import pytest
import torch
from torch import nn

import gatedcells

I, H, B = 3, 4, 2
pytestmark = pytest.mark.usefixtures("backend")


def pair(kind, **options):
    """Ours and torch's with the same float64 weights."""
    torch.manual_seed(1)
    ours = getattr(gatedcells, kind)(I, H, dtype=torch.float64, **options)
    theirs = getattr(nn, kind)(I, H, dtype=torch.float64, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def first(result):
    return result[0] if isinstance(result, tuple) else result


def looped(cell, xs):
    """A cell over time, the state passed on."""
    zeros = torch.zeros(B, H, dtype=torch.float64)
    state = (zeros, zeros) if "LSTM" in type(cell).__name__ else zeros
    for x in xs:
        state = cell(x, state)
    return first(state)


def passed_on(layer, xs):
    """Two sequences, the second from where the first ended, its input made of what the first put out."""
    output, state = layer(xs)
    return layer(xs.flip(0) + output[..., :I].cumsum(0), state)[0]


def stepped(layer, xs):
    state = None
    for x in xs:
        output, state = layer.step(x, state)
    return output


def gradients(module, run, xs, **options):
    return torch.autograd.grad((run(module, xs) ** 2).sum(), list(module.parameters()), **options)


CASES = [
    ("GRUCell", looped), ("LSTMCell", looped), ("GRU", passed_on), ("LSTM", passed_on), ("GRU", stepped),
    ("LSTM", stepped),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "run"), CASES)
def test_gradients_of_chained_calls_are_the_same_with_create_graph_and_torchs(kind, run):
    ours, theirs = pair(kind)
    xs = torch.randn(5, B, I, dtype=torch.float64)
    plain = gradients(ours, run, xs)
    followed = gradients(ours, run, xs, create_graph=True)
    sequence = {looped: looped, passed_on: passed_on, stepped: lambda layer, xs: layer(xs)[0][-1]}[run]
    expected = gradients(theirs, sequence, xs)
    for a, b, c in zip(plain, followed, expected, strict=True):
        torch.testing.assert_close(a, c)
        torch.testing.assert_close(b, c)


@pytest.mark.parametrize(("kind", "run"), CASES[:4])
def test_second_derivatives_of_chained_calls_are_torchs(kind, run):
    modules = pair(kind)
    xs = torch.randn(4, B, I, dtype=torch.float64)
    found = []
    for module in modules:
        once = gradients(module, run, xs, create_graph=True)
        found.append(torch.autograd.grad(sum((g**2).sum() for g in once), list(module.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tied_layers_get_the_sum_of_both_shares_with_create_graph():
    ours, theirs = pair("GRU", num_layers=2)
    for module in (ours, theirs):
        module.weight_hh_l1, module.bias_hh_l1 = module.weight_hh_l0, module.bias_hh_l0
    xs = torch.randn(5, B, I, dtype=torch.float64)
    for module in (ours, theirs):
        module.zero_grad()
    followed = gradients(ours, lambda m, x: m(x)[0], xs, create_graph=True)
    expected = gradients(theirs, lambda m, x: m(x)[0], xs)
    for a, b in zip(followed, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_many_gradients_at_once_of_chained_calls_are_those_one_by_one(kind):
    ours, _ = pair(kind)
    xs = torch.randn(3, B, I, dtype=torch.float64)
    output = passed_on(ours, xs)
    ways = torch.randn(4, *output.shape, dtype=torch.float64)
    together = torch.autograd.grad(
        output, list(ours.parameters()), ways, is_grads_batched=True, retain_graph=True
    )
    for number, way in enumerate(ways):
        alone = torch.autograd.grad(output, list(ours.parameters()), way, retain_graph=True)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[number], b)
