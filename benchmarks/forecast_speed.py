"""The forecaster trained with our layers, and with torch's: ``python -m benchmarks.forecast_speed``.

The same recipe, data, seed and number of steps; the runs take turns. Needs the real files (GATEDCELLS_DATA).
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from unittest.mock import patch

import torch

import gatedcells
from benchmarks.records import append
from benchmarks.timing import quantiles
from gatedcells.forecast.data import Clock
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.sources import locate
from gatedcells.forecast.training import train
from gatedcells.forecast.windows import Region, prepare

WHO = ("gatedcells, cpu", "gatedcells, reference", "torch")


def main() -> None:
    """Train, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    regions = prepare(locate(None, Clock()).series)
    rows = []
    for cell in ("gru", "lstm"):
        seconds: dict[str, list[float]] = {who: [] for who in WHO}
        for _ in range(options.rounds):
            for who in WHO:
                seconds[who].append(_train(cell, who, regions, options.steps))
        times = {who: quantiles(taken) for who, taken in seconds.items()}
        ours = times[WHO[0]]["p50_ms"]
        for who, t in times.items():
            print(f"{cell}, {who}: {t['p50_ms'] / 1e3:.2f} s, {t['p50_ms'] / ours:.2f} x ours")
            rows.append({"cell": cell, "steps": options.steps, "who": who} | t)
    print(append("forecast-speed", rows))


def _train(cell: str, who: str, regions: list[Region], steps: int) -> float:
    with ExitStack() as stack:
        if who == "torch":
            stack.enter_context(patch.object(gatedcells, cell.upper(), getattr(torch.nn, cell.upper())))
        else:
            stack.enter_context(gatedcells.use_backend(who.split()[-1]))
        _, done = train(FastTask(FastRecipe(cell=cell, steps=steps), regions), seed=0)
    return done.seconds


if __name__ == "__main__":
    main()
