"""Other libraries' models before and after conversion: ``python -m benchmarks.converted [--threads 2]``.

Whole models are timed, whatever part of them is recurrent: inference without gradients in evaluation mode,
and a training step (loss, gradients, SGD). The gate comes first: outputs and gradients as exact as torch's.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.models import MODELS, Model
from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles
from gatedcells import convert
from gatedcells.conversion import Conversion
from gatedcells.testing import assert_within_budget


def main() -> None:
    """Gate, time, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=8.0, help="seconds for each model and mode")
    parser.add_argument("--models", default="all", help="names, separated by semicolons")
    parser.add_argument("--dry", action="store_true", help="print, but write no rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, make in MODELS.items():
        if options.models != "all" and name not in options.models.split(";"):
            continue
        model = make()
        reports: list[Conversion] = []
        ours = convert(model.module, inplace=False, report=reports.append)
        print(f"{name}: {', '.join(str(row) for row in reports[0].swapped)}")
        _gate(name, model, ours)
        for mode, run in (("inference", _infer), ("training", _train)):
            rivals: dict[str, Callable[[], object]] = {
                who: run(model, module) for who, module in (("torch", model.module), ("gatedcells", ours))
            }
            taken = interleaved(rivals, budget_s=options.budget, pause=options.threads > 1)
            times = {who: quantiles(seconds) for who, seconds in taken.items()}
            theirs, mine = (times[who]["p50_ms"] for who in ("torch", "gatedcells"))
            print(f"  {mode}: torch {theirs:.4g} ms, converted {mine:.4g} ms, {theirs / mine:.2f} x")
            rows += [{"model": name, "mode": mode, "who": who} | times[who] for who in times]
    if not options.dry:
        print(append("converted", rows))


def _infer(model: Model, module: nn.Module) -> Callable[[], object]:
    module = copy.deepcopy(module).eval()
    return torch.no_grad()(partial(model.infer, module))


def _train(model: Model, module: nn.Module) -> Callable[[], object]:
    module = copy.deepcopy(module).train()
    # no change of the weights, so that every step is the same work
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(module).backward()
        optimizer.step()

    return step


def _gate(name: str, model: Model, ours: nn.Module) -> None:
    exact = copy.deepcopy(model.module).double()
    for kind, numbers in (("outputs", _outputs), ("gradients", _gradients)):
        mine, right, other = (
            torch.cat([t.flatten() for t in numbers(model, m)]) for m in (ours, exact, model.module)
        )
        assert_within_budget(mine, exact=right, rival=other, name=f"{name}, {kind}")


def _outputs(model: Model, module: nn.Module) -> list[Tensor]:
    return torch.no_grad()(model.infer)(copy.deepcopy(module).eval())


def _gradients(model: Model, module: nn.Module) -> list[Tensor]:
    module = copy.deepcopy(module).train()
    torch.manual_seed(1)  # dropout
    model.loss(module).backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


if __name__ == "__main__":
    main()
