"""The products over all steps that a backward pass ends with."""

from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gatedcells
from gatedcells._autograd import rules

LOW = torch.bfloat16
# rows: none, one, a few, more than are widened at once
ROWS = (0, 1, 7, 1024, 2500)


@pytest.fixture(params=[True, False], ids=["with an instruction for bfloat16", "without one"])
def fast(request):
    with patch.object(rules, "_BFLOAT16_IS_FAST", request.param):
        yield request.param


def operands(rows, G, K, dtype):
    d_rows, read = torch.randn(rows, G + 3, dtype=torch.float64), torch.randn(rows, K, dtype=torch.float64)
    return d_rows.to(dtype)[:, 3:], read.to(dtype), torch.randn(G, K, dtype=torch.float64).to(dtype)


@contextmanager
def seen_products(seen):
    """Note the dtype of every matrix product."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "mm" in func.__name__:
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with Watch():
        yield


def rounded_once(a, b):
    """``a @ b``, and how far from it sums in float32 that are rounded to bfloat16 may be: a rounding in
    float32 for each term, and one of the result."""
    exact, of_terms = a @ b, a.shape[1] * 2.0**-24 * (a.abs() @ b.abs())
    return exact, of_terms + (exact.abs() + of_terms) * 2.0**-8


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("K", [1, 5, 40, 200])
def test_products_of_bfloat16_are_rounded_once(fast, rows, K):
    d_rows, read, weight = operands(rows, 33, K, LOW)
    d, x, w = d_rows.double(), read.double(), weight.double()
    found = rules.weight_gradient(d_rows, read)
    assert found.dtype == LOW
    assert found.shape == (33, K)
    exact, apart = rounded_once(d.T, x)
    assert ((found.double() - exact).abs() <= apart).all()
    through = rules.product(d_rows, weight)
    assert through.dtype == LOW
    assert through.shape == (rows, K)
    exact, apart = rounded_once(d, w)
    assert ((through.double() - exact).abs() <= apart).all()


def test_a_backward_pass_under_autocast_is_not_narrowed_again():
    """What is widened for want of an instruction is multiplied in float32 there too."""
    d_rows, read, weight = operands(300, 33, 40, LOW)
    with patch.object(rules, "_BFLOAT16_IS_FAST", False):
        apart = rules.product(d_rows, weight), rules.weight_gradient(d_rows, read)
        seen: list[torch.dtype] = []
        with torch.autocast("cpu", torch.bfloat16), seen_products(seen):
            inside = rules.product(d_rows, weight), rules.weight_gradient(d_rows, read)
    assert all(torch.equal(a, b) for a, b in zip(inside, apart, strict=True))
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_types_are_multiplied_as_they_are(fast, dtype):
    d_rows, read, weight = operands(300, 12, 130, dtype)
    assert torch.equal(rules.weight_gradient(d_rows, read), d_rows.T @ read)
    assert torch.equal(rules.product(d_rows, weight), d_rows @ weight)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_bfloat16_has_the_same_gradients_compiled(fast, cell):
    layer = getattr(gatedcells, cell)(5, 12, dtype=LOW)
    x = torch.randn(20, 3, 5, dtype=LOW, requires_grad=True)
    leaves = [x, *layer.parameters()]
    torch._dynamo.reset()  # the graph of another test may be this one's but for the product
    eager = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(x)[0].square().sum(), leaves)
    for one, other in zip(found, eager, strict=True):
        assert (one - other).norm() <= 2.0**-7 * other.norm()
