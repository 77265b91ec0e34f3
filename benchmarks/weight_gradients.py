"""Ways to multiply out the gradients of weights and input: ``python -m benchmarks.weight_gradients``.

Each row is a training step of a whole layer whose input wants a gradient too, as in a stack, the gradients
accumulated as an optimizer finds them: with the CPU kernels' own products, or with torch's, and of those with
the one that `gatedcells._autograd.rules.weight_gradient` chooses, always ``d^T x``, always ``(x^T d)^T``.
``--dtype bfloat16``: of layers of that type.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor

import gatedcells
from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles
from gatedcells import _ops
from gatedcells._autograd import gru, lstm
from gatedcells._autograd.rules import weight_gradient
from gatedcells_kernels.cpu.products import PreparedWeightGradients

SHAPES = (
    (16, 16, 1024, 1024),
    (90, 64, 512, 512),
    (90, 256, 64, 256),
    (90, 32, 128, 128),
    (60, 64, 50, 100),
    (90, 32, 5, 64),
    (90, 1, 5, 256),
    (33, 7, 13, 37),
)
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "own": None,
    "chosen": weight_gradient,
    "d^T x": lambda d_gates, read: d_gates.T @ read,
    "(x^T d)^T": lambda d_gates, read: (read.T @ d_gates).T,
}


def main() -> None:
    """Check, time and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    dtype: torch.dtype = getattr(torch, options.dtype)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for op in ("GRU", "LSTM"):
        for T, B, I, H in SHAPES:
            layer = getattr(gatedcells, op)(I, H, backend="cpu", dtype=dtype)
            x = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
            steps = {way: _step(layer, x, product) for way, product in WAYS.items()}
            _same_gradients(layer, steps)
            _ways_are_taken(layer, x)
            for way, seconds in interleaved(steps, budget_s=6, pause=options.threads > 1).items():
                shape = {"op": op.lower(), "T": T, "B": B, "I": I, "H": H}
                rows.append(shape | {"way": way} | quantiles(seconds))
                print(rows[-1])
    print(append("weight-gradients" + "-bfloat16" * (dtype == torch.bfloat16), rows))


def _step(layer: Any, x: Tensor, product: Callable[[Tensor, Tensor], Tensor] | None) -> Callable[[], object]:
    def run() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x)[0].sum().backward()

    def run_with_torchs() -> None:
        with (
            patch.object(gru, "weight_gradient", product),
            patch.object(lstm, "weight_gradient", product),
            patch.object(_ops, "own_products", lambda *_: None),
            patch.object(PreparedWeightGradients, "__call__", lambda *_: None),  # of repeated calls
        ):
            run()

    return run if product is None else run_with_torchs


def _same_gradients(layer: Any, steps: dict[str, Callable[[], object]]) -> None:
    """Before anything is timed."""
    found: list[list[Tensor]] = []
    for step in steps.values():
        step()
        found.append([parameter.grad.clone() for parameter in layer.parameters()])
    for gradients in found[1:]:
        for one, like in zip(gradients, found[0], strict=True):
            apart = (one.double() - like.double()).norm() / like.double().norm()
            assert apart <= 8 * torch.finfo(one.dtype).eps


def _ways_are_taken(layer: Any, x: Tensor) -> None:
    """Also by a call that is remembered, as those are that are timed."""
    taken = Mock(wraps=weight_gradient)
    for _ in range(4):
        taken.reset_mock()
        _step(layer, x, taken)()
        assert taken.called


if __name__ == "__main__":
    main()
