"""Scores and training seconds of the forecaster on the 12 PJM files: ``python -m benchmarks.forecast``.

Each row is one training (a cell, a seed, a number of steps) or one baseline, scored on all test hours.
Needs the real files: set GATEDCELLS_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.records import append
from gatedcells.forecast.baselines import baselines
from gatedcells.forecast.data import Clock
from gatedcells.forecast.evaluate import Result, score_baselines, scored
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.metrics import Scores
from gatedcells.forecast.runs import RunFolder
from gatedcells.forecast.sources import locate
from gatedcells.forecast.training import train
from gatedcells.forecast.windows import prepare


def main() -> None:
    """Train, score, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="append the scores of a finished run folder instead")
    parser.add_argument("--day-ahead", type=Path, help="append the scores of a finished day-ahead folder")
    parser.add_argument("--backtest", type=Path, nargs="+", help="append the scores of finished backtests")
    options = parser.parse_args()
    if options.run is not None:
        print(append("forecast-runs", _rows_of(options.run)))
        return
    if options.day_ahead is not None:
        print(append("day-ahead", _rows_of_day(options.day_ahead)))
        return
    if options.backtest:
        print(append("backtest", [row for folder in options.backtest for row in _rows_of_backtest(folder)]))
        return
    torch.set_num_threads(options.threads)
    source = locate(None, Clock())
    if source.kind != "pjm":
        raise SystemExit(f"the published files are needed, this is {source.note}")
    regions = prepare(source.series)
    rows = []
    for model in baselines():
        start = time.perf_counter()
        (result,) = score_baselines(regions, [model], lambda _: None)
        rows.append(_row(result, "", "", time.perf_counter() - start))
    for steps in (60, 380, FastRecipe().steps, 2400):
        for cell in ("gru", "lstm"):
            for seed in range(options.seeds if steps == FastRecipe().steps else 1):
                forecaster, done = train(FastTask(FastRecipe(cell=cell, steps=steps), regions), seed=seed)
                forecasts = forecaster.forecast_test(regions, lambda _: None)
                rows.append(_row(scored(cell.upper(), regions, forecasts), steps, seed, done.seconds))
    print(append("forecast", rows))


def _rows_of(run: Path) -> list[dict[str, object]]:
    """The networks' scores in a run folder, with the settings that made them."""
    folder = RunFolder(run)
    config = folder.config()
    models = json.loads(folder.metrics.read_text())["models"]
    rows = []
    threads = f", {config.threads} threads" if config.threads > 1 else ""
    for cell in config.cells:
        model = models[cell.upper()]
        scores = Scores(**model["mean"])
        recipe = f"{config.recipe_name} {json.dumps(asdict(config.recipe_for(cell)), sort_keys=True)}"
        result = Result(f"{cell.upper()}, recipe {config.recipe_name}{threads}", [], {}, scores)
        rows.append(_row(result, "", config.seed, model["train_seconds"]) | {"recipe": recipe})
        print(f"{cell}: threads {config.threads}, {config.versions}")
    for name, model in models.items():
        if name.startswith("LightGBM"):
            result = Result(f"{name}{threads}", [], {}, Scores(**model["mean"]))
            rows.append(_row(result, "", config.seed, model["train_seconds"]))
    return rows


def _rows_of_day(run: Path) -> list[dict[str, object]]:
    """Scores by hours ahead of a day-ahead folder, mean of the regions, a row for each model."""
    found = json.loads((run / "day_ahead.json").read_text())
    if found["data"] != "pjm":
        raise SystemExit(f"{run}: the published files are needed, this is of {found['data']} data")
    parameters = found["settings"]["forecaster"]
    rows = []
    for name, model in found["models"].items():
        mean = model["mean"]
        network = name == parameters["cell"].upper()
        steps, seed = (found.get("steps", parameters["steps"]), parameters["seed"]) if network else ("", "")
        row: dict[str, object] = {
            "model": name, "steps": steps, "seed": seed, "threads_of_run": parameters["threads"] or "",
            "fit_s": round(found["train_seconds"].get(name, 0.0), 2), "places": found["places"],
        }  # fmt: skip
        for step, scores in mean.items():
            row |= {f"smape_{step}": round(scores["smape"], 4), f"mase_{step}": round(scores["mase"], 4)}
        for kind in ("pinball", "coverage_80", "coverage_95"):
            row[kind] = round(found["intervals"]["mean"][kind], 4) if network else ""
        rows.append(row)
        print(row)
    return rows


def _rows_of_backtest(folder: Path) -> list[dict[str, object]]:
    """Scores of a backtest's folds, mean of the regions, a row for each model."""
    found = json.loads((folder / "backtest.json").read_text())
    settings = found["settings"]
    kind, window = settings["data"]["kind"], settings["plan"]["window_hours"] or ""
    if kind != "pjm":
        raise SystemExit(f"{folder}: the published files are needed, this is of {kind} data")
    rows: list[dict[str, object]] = []
    for fold in found["folds"]:
        recipe = settings["recipe"] | fold.get("recipe", {})
        for name, smape in fold["smape"].items():
            network = name == settings["recipe"]["cell"].upper()
            rows.append({
                "model": name, "steps": recipe["steps"] if network else "",
                "batch_size": recipe["batch_size"] if network else "",
                "seed": settings["seed"] if network else "", "origin": fold["origin"],
                "window_hours": window, "regions": len(fold["by_region"][name]),
                "train_hours": fold["train_hours"], "test_hours": fold["test_hours"],
                "smape": round(smape, 4), "mase": round(fold["mase"][name], 4),
            })  # fmt: skip
            print(rows[-1])
    return rows


def _row(result: Result, steps: object, seed: object, seconds: float) -> dict[str, object]:
    mean = result.mean
    row = {
        "model": result.name, "recipe": "fast" if steps else "", "steps": steps, "seed": seed,
        "fit_s": round(seconds, 2), "smape": round(mean.smape, 4), "mae_mw": round(mean.mae_mw, 2),
        "rmse_mw": round(mean.rmse_mw, 2), "mase": round(mean.mase, 4),
    }  # fmt: skip
    print(row)
    return row


if __name__ == "__main__":
    main()
