"""Training from a folder of Parquet files that is larger than memory needs to be: ``python -m
benchmarks.fleet``.

Makes a fleet of made-up hourly series (20,000 of a year by default, about 1.4 GB of values in memory as
float64) unless the folder has it already, trains the direct network for one pass over it, and records the
highest memory of the process and the seconds. ``--epochs 0.01`` is a taste.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.records import append
from gatedcells.forecast import Forecaster
from gatedcells.forecast.direct import DirectRecipe


def main() -> None:
    """Make, train, print and append a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the files; made if it is not there")
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--hours", type=int, default=24 * 365)
    parser.add_argument("--series-a-file", type=int, default=200)
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--hidden-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print the row, append nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    _make(options.folder, options.series, options.hours, options.series_a_file)
    recipe = DirectRecipe(horizon=options.horizon, batch_size=options.batch_size)
    trained_on = options.series * int(0.9 * options.hours)  # the rest calibrates
    steps = max(int(options.epochs * trained_on / recipe.windows_a_step), 1)
    forecaster = Forecaster(
        horizon=options.horizon, lookback=recipe.lookback, hidden_size=options.hidden_size,
        batch_size=options.batch_size, steps=steps, threads=options.threads, verbose=sys.stderr.isatty(),
    )  # fmt: skip
    started = time.perf_counter()
    forecaster.fit(options.folder)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    row = {
        "series": options.series, "hours": options.hours,
        "files": len(list(options.folder.glob("*.parquet"))),
        "horizon": options.horizon, "hidden_size": options.hidden_size, "batch_size": options.batch_size,
        "steps": steps, "epochs": options.epochs, "fit_s": round(seconds, 1),
        "train_s": round(forecaster.train_seconds_, 1), "peak_rss_mib": round(peak / 2**20),
        "loss": round(forecaster.loss_, 5),
    }  # fmt: skip
    print(row)
    if not options.dry:
        print(append("fleet", [row]))


def _make(folder: Path, series: int, hours: int, in_a_file: int) -> None:
    """Write the files that are not there yet, each beside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps = pd.date_range("2023-01-01", periods=hours, freq="h")
    daily = 2 * np.pi * np.arange(hours) / 24
    for start in range(0, series, in_a_file):
        path = folder / f"part-{start:06d}.parquet"
        if path.exists():
            continue
        size = min(in_a_file, series - start)
        generator = np.random.default_rng(start)
        habit = np.sin(daily + generator.uniform(0, 6, (size, 1))) + 0.4 * np.sin(daily / 7)
        y = generator.uniform(1, 100, (size, 1)) * (3 + habit + generator.normal(0, 0.2, (size, hours)))
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.arange(start, start + size), hours),
                "ds": np.tile(stamps, size),
                "y": y.ravel(),
            }
        )
        beside = path.with_suffix(".part")
        frame.to_parquet(beside, index=False)
        beside.rename(path)


if __name__ == "__main__":
    main()
