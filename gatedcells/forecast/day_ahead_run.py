"""A whole day-ahead run: training, forecasts from every place of the test parts, tables, files."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gatedcells._files import is_free
from gatedcells.forecast.begun import check_begun, differences
from gatedcells.forecast.continuing import last_values
from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.day_ahead import (
    DirectTrees,
    Places,
    interval_scores,
    panel_of,
    scores,
    seasonal,
    train_ends,
    up_to_last_load,
)
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import drop, in_digits, read_json, write_json, written_csv
from gatedcells.forecast.forecaster import Forecaster
from gatedcells.forecast.frames import Style
from gatedcells.forecast.load_table import named_as_before
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.panel_model import PanelModel
from gatedcells.forecast.panel_report import FrameReport
from gatedcells.forecast.progress import progress_bar
from gatedcells.forecast.report import narrow_table, number
from gatedcells.forecast.sources import Source
from gatedcells.forecast.windows import prepare

_STEPS = (1, 6, 12, 24)
_USUAL = (2000, 32)  # optimizer steps and chunks a step, of many regions
_AS_TRAINED = {"steps": None, "batch_size": None}  # are set by training
_SEASONS = {"same hour last week": 168, "same hour yesterday": 24}


def run(
    folder: Path,
    source: Source,
    forecaster: Forecaster,
    every: int,
    trees: DirectTrees | None,
    console: Console,
) -> dict[str, Any]:
    """Train on the regions' training parts, forecast from their test parts, print and write it, and the
    forecaster as it goes on from the end of the series.

    Args:
        folder: to write to; where it holds an unfinished run of the same settings, that goes on.
        source: of the regions; forecaster: not fitted yet; every: hours from one place to the next.
        trees: to show beside; console: to print on.

    Returns:
        what `day_ahead.json` holds.

    Raises:
        ForecastError: the folder is of something else, or the regions are too short.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    for one in source.series:
        if one.region == "mean":
            raise ForecastError(
                f"{one.source}: a region is called mean, as the mean of the regions is; expected another name"
                " in its header"
            )
    regions = prepare(source.series)
    panel, ends = panel_of(regions), train_ends(regions)
    horizon = int(forecaster.horizon)
    places = Places.of(panel, ends, horizon, every)
    _as_begun(folder, forecaster)
    settings = {"forecaster": forecaster.get_params(), "every": every, "data": source.to_json()}
    _begin(folder, json.loads(json.dumps(settings)))
    path, checkpoint = folder / "forecaster", folder / "checkpoint.safetensors"
    if (path / "forecaster.json").exists():
        forecaster = _trained(path, forecaster)
        names = [str(one) for one in forecaster.model_.ids]
        panel = replace(panel, ids=tuple(named_as_before(one, names) for one in panel.ids))
    else:
        known = panel.up_to(ends)
        report = FrameReport(len(panel.ids), int(np.isfinite(known.y).sum()), panel.grid.freq)
        forecaster.fit_laid_out(known, Style(), report, checkpoint, console, usual=_USUAL)
        recipe = forecaster.model_.recipe
        forecaster.set_params(steps=recipe.steps, batch_size=recipe.batch_size)  # what fitting it again takes
    model = forecaster.model_
    if model.grid != panel.grid:
        raise ForecastError(
            f"{folder}: its forecaster was trained on hours that begin at other minutes of UTC than those of"
            f" {source.place}; choose another folder"
        )
    name = model.recipe.cell.upper()
    # as in training, whatever the test part has taught since
    model.margins = replace(model.margins, widths=np.ones_like(model.margins.widths))
    with progress_bar(console) as progress:
        bar = progress.add_task("forecasting", total=len(places.series))
        came = np.full(len(places.series), every)
        quantiles = model.follow(
            panel, places.series, places.origins, came, lambda done: progress.advance(bar, done)
        )
    recorded, context = up_to_last_load(panel), up_to_last_load(forecaster._context)
    # one that was told of later values by hand stays as it is
    if (_ends(context) < _ends(recorded)).any():
        context = last_values(recorded, model.reach)
    if not (path / "forecaster.json").exists() or (_ends(context) != _ends(forecaster._context)).any():
        forecaster._context = context
        forecaster.save(path)
    drop(checkpoint)
    inputs, _ = model.inputs(panel)
    forecasts = {name: quantiles[..., model.recipe.quantiles.index(0.5)]}
    seconds: dict[str, float] = {name: forecaster.train_seconds_}
    if trees is not None:
        with progress_bar(console) as progress:
            bar, started = progress.add_task("LightGBM", total=trees.trees), time.perf_counter()
            forecasts[trees.name] = trees.forecast(
                inputs, ends, places, model.scales.log, lambda done: progress.update(bar, completed=done)
            )
            seconds[trees.name] = time.perf_counter() - started
    for baseline, period in _SEASONS.items():
        forecasts[baseline] = seasonal(inputs, places, period, model.scales.log)
    steps = [step for step in _STEPS if step <= horizon]
    found = {
        "settings": settings,
        "data": source.kind,
        "places": len(places.series),
        "steps": model.recipe.steps,
        "batch_size": model.recipe.batch_size,
        "season": model.fit.season,
        "models": {one: scores(panel, ends, places, values, steps) for one, values in forecasts.items()},
        "intervals": interval_scores(model, panel, places, quantiles),
        "train_seconds": seconds,
    }
    _write(folder, panel, places, forecasts, model, quantiles)
    write_json(folder / "day_ahead.json", found)
    _show(found, name, [str(one) for one in panel.ids], source, console)
    for one, blank in zip(panel.ids, panel.sizes - recorded.sizes, strict=True):
        if blank:
            console.print(
                f"{one}: hours without a load at the end: {blank}. Its forecaster goes on from before them.",
                style="yellow", soft_wrap=True,
            )  # fmt: skip
    return found


def _trained(path: Path, asked: Forecaster) -> Forecaster:
    """The forecaster that a run has trained.

    Raises:
        ForecastError: it cannot be read, or has other settings than the run.
    """
    found = Forecaster.load(path)
    plain = [json.loads(json.dumps(one.get_params() | _AS_TRAINED)) for one in (found, asked)]
    if plain[0] != plain[1]:
        raise ForecastError(
            f"{path}: has other settings than its run{differences(*plain)}; move it away, and the same"
            " command trains the run's own"
        )
    return found


def _ends(panel: Panel) -> IntArray:
    return panel.first + panel.sizes


def _as_begun(folder: Path, forecaster: Forecaster) -> None:
    """In a folder from before few data took fewer steps, when there was a default for either number: go on
    with those."""
    path = folder / "settings.json"
    settings = read_json(path) if path.exists() else None
    given = settings.get("forecaster") if isinstance(settings, dict) else None
    for name, before in zip(("steps", "batch_size"), _USUAL, strict=True):
        if isinstance(given, dict) and given.get(name) == before and getattr(forecaster, name) is None:
            forecaster.set_params(**{name: before})


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / "settings.json"
    if not path.exists():
        if not is_free(folder):
            raise ForecastError(f"{folder}: exists already and is no day-ahead run; choose another folder")
        write_json(path, settings)
    else:
        check_begun(folder, "a run", read_json(path), settings)


def _write(
    folder: Path, panel: Panel, places: Places, forecasts: dict[str, FloatArray], model: PanelModel,
    quantiles: FloatArray,
) -> None:  # fmt: skip
    """``forecasts.csv``: a row for each place and hour."""
    horizon = places.actual.shape[1]
    positions = (panel.first[places.series] + places.origins)[:, None] + np.arange(horizon)
    stamps = panel.grid.wall_stamps(positions.ravel()).strftime("%Y-%m-%d %H:%M:%S").to_numpy()
    columns: dict[str, Any] = {"actual_mw": places.actual} | forecasts
    for level, (low, high) in zip(model.fit.level, model.pairs, strict=True):
        columns[f"lo-{level:g}"], columns[f"hi-{level:g}"] = quantiles[..., low], quantiles[..., high]
    cells = [in_digits(c).ravel() for c in columns.values()]
    names = np.repeat(np.array(panel.ids, dtype=object)[places.series], horizon)
    ahead = np.tile(np.arange(1, horizon + 1), len(places.series))
    with written_csv(folder / "forecasts.csv") as table:
        table.writerow(["region", "Datetime", "hours_ahead", *columns])
        table.writerows(zip(names, stamps, ahead, *cells, strict=True))


def _show(found: dict[str, Any], name: str, regions: Sequence[str], source: Source, console: Console) -> None:
    models = found["models"]
    simulated = ", SIMULATED DATA" if source.kind == "simulated" else ""
    for score, title in (("smape", "sMAPE %"), ("mase", "MASE")):
        steps = list(next(iter(models.values()))["mean"])
        table = narrow_table(f"{title} by hours ahead, mean of the regions{simulated}")
        table.add_column("")
        for step in steps:
            table.add_column(f"{step} h" if step != "mean" else "all", justify="right")
        means = [one["mean"]["mean"][score] for one in models.values()]
        best = min((mean for mean in means if mean is not None), default=None)
        for model, mean in zip(models, means, strict=True):
            row = (number(models[model]["mean"][step][score], 3) for step in steps)
            table.add_row(model, *row, style="bold green" if mean is not None and mean == best else "")
        console.print(table)
    table = narrow_table(f"By region, all hours ahead{simulated}")
    table.add_column("sMAPE %")
    for model in models:
        table.add_column(model.split(",")[0].replace("same hour ", ""), justify="right")
    intervals = found["intervals"]
    kinds = list(next(iter(intervals.values())))
    for kind in kinds:
        said = "pinball\nMW" if kind == "pinball" else f"inside\n{kind.removeprefix('coverage_')}%"
        table.add_column(said, justify="right")
    for region in [*regions, "mean"]:
        own = [number(one[region]["mean"]["smape"], 2) for one in models.values()]
        beside = [
            number(value if value is None or kind == "pinball" else 100 * value, 1)
            for kind, value in intervals[region].items()
        ]
        table.add_row(region, *own, *beside)
    console.print(table)
    trained = (
        f"{found['steps']} steps of {found['batch_size']} chunks in {found['train_seconds'][name]:.0f} s"
    )
    trained += "" if found["season"] else "\nThe season is not an input (less than a year of training data)."
    console.print(
        f"{name}: {trained}\n{found['places']:,} places, each forecasting all hours ahead at once",
        soft_wrap=True,
    )
