"""What the host does for a call on the GPU's kernels: ``TRITON_INTERPRET=1 python -m benchmarks.overhead``.

A short sequence is over on the GPU before the host has asked for the next thing. Here the launches are left
out and all else is timed, on CPU tensors of a small layer: checks, the choice of backend and kernel, outputs,
autograd, the input's projection. What a launch itself costs the host, only a machine with a GPU can tell.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TRITON_INTERPRET", "1")

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch

import gatedcells
from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles
from gatedcells_kernels.triton import calls

T, B, I, H = 16, 1, 8, 16


def main() -> None:
    """Time and append rows."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # or --help would measure, and write rows
    torch.set_num_threads(1)
    x, gradient = torch.randn(T, B, I), torch.ones(T, B, H)
    timed: dict[str, Callable[[], object]] = {}
    for name in ("GRU", "LSTM"):
        layer = getattr(gatedcells, name)(I, H, backend="triton")
        timed[f"{name} inference"] = _inference(layer, x)
        timed[f"{name} training"] = _training(layer, x, gradient)
    rows: list[dict[str, Any]] = []
    with patch.object(calls, "run_whole"):
        for what, seconds in interleaved(timed, budget_s=5).items():
            rows.append({"what": what, "T": T, "B": B, "I": I, "H": H} | quantiles(seconds))
            print(rows[-1])
    print(append("triton-overhead", rows))


def _inference(layer: Any, x: torch.Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return layer(x)

    return run


def _training(layer: Any, x: torch.Tensor, gradient: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(layer(x)[0], list(layer.parameters()), gradient)


if __name__ == "__main__":
    main()
