"""Layers and cells with torch's interface: torch's own and ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import gatedcells
from benchmarks.registry import Case, Run


def run_torch(case: Case) -> Run:
    """``torch.nn``, with the case's own weights."""
    return _run(case, case.module(), case.input(), "aten")


def run_gatedcells(case: Case) -> Run:
    """Our module of the same name, on the backend that it chooses itself."""
    theirs = case.module()
    ours: Any = getattr(gatedcells, type(theirs).__name__)(case.I, case.H, dtype=case.torch_dtype)
    ours.load_state_dict(theirs.state_dict())
    x = case.input()
    chosen = next(line for line in gatedcells.explain_backend(ours, x).splitlines() if "CHOSEN" in line)
    return _run(case, ours, x, chosen.split()[0])


def exact(case: Case) -> list[Tensor]:
    """The case's numbers in float64, by torch."""
    return _run(case, case.module().double(), case.input().double(), "").numbers()


def _run(case: Case, module: nn.Module, x: Tensor, backend: str) -> Run:
    if case.mode == "training":
        return Run(lambda: _train(module, x), lambda: _gradients(module, x), backend)
    state = tuple(part.to(x.dtype) for part in case.state())
    hx = state if case.op == "lstm" else state[0]

    def call() -> Any:
        return module(x, hx) if case.mode == "step" else module(x)

    def numbers() -> list[Tensor]:
        with torch.no_grad():
            result = call()
        first = result if isinstance(result, Tensor) else result[0]
        return [first]

    return Run(call, numbers, backend)


def _train(module: nn.Module, x: Tensor) -> Tensor:
    module.zero_grad()
    output = module(x)[0]
    output.square().sum().backward()
    return output.detach()


def _gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    output = _train(module, x)
    return [output, torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])]
