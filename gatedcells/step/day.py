"""A trained forecaster over a day of load, as a `Scene`."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gatedcells.forecast.data import Clock, LoadSeries, read_file
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.load_table import columns_of, named_as_before, read_table, region_of
from gatedcells.forecast.runs import RunFolder
from gatedcells.forecast.windows import fill_from_the_past
from gatedcells.step.errors import StepError
from gatedcells.step.scenes import Scene


def day_of_load(
    run: Path,
    *,
    hour: str | None = None,
    region: str | None = None,
    cell: str | None = None,
    data: Path | None = None,
) -> Scene:
    """What the network of a run reads and computes over a day.

    Args:
        run: a folder of ``gatedcells forecast``.
        hour: the day's last hour as the file stamps it; None for the file's last.
        region: whose load; None for the first the run knows, or the file's own.
        cell: ``"gru"`` or ``"lstm"``; None for the run's first.
        data: the CSV file; None for the region's file in the folder that the run was trained on.

    Raises:
        StepError, ForecastError: a folder, file, region or hour is not there, or not usable.
    """
    folder = RunFolder(run)
    config = folder.config()
    if config.recipe_name == "bitcoin":
        raise StepError(f"{run}: is a run of the bitcoin recipe; expected one that forecasts load")
    cell = cell or config.cells[0]
    forecaster, _ = folder.forecaster(config, cell)
    clock = Clock(config.data["tz"], config.data["stamp"])
    series = _series(config.data, list(forecaster.scales), region, data, clock)
    if series.region not in forecaster.scales:
        known = ", ".join(forecaster.scales)
        raise StepError(
            f"{series.source}: region {series.region} is not one the run was trained on ({known})"
        )
    load_mw = fill_from_the_past(series.load_mw, np.isfinite(series.load_mw), series.source)
    stamps = series.local_stamps()
    end = _position(stamps, hour, series.source) + 1
    x, state = forecaster.day(series, load_mw, end)
    hours = (
        range(end - len(x), end)
        if config.recipe_name in ("fast", "best")
        else range(end - 1 - len(x), end - 1)
    )
    layer = copy.deepcopy(forecaster.rnn).double().eval()
    hx = None if state is None else _double(state)
    last = f"{stamps[end - 1]:%a %Y-%m-%d %H:%M}"
    what = (
        f"the {len(x)} hours to {last}, each forecast from those before"
        if config.recipe_name in ("fast", "best")
        else f"the window of {len(x)} hours before {last}"
    )
    return Scene(
        f"{series.region}, {cell}",
        f"The {cell.upper()} of {run} on the load of {series.region}: {what}.",
        layer,
        x.double(),
        hx,
        tuple(f"{stamps[p]:%a %H:%M} {load_mw[p]:,.0f} MW" for p in hours),
        forecaster.input_names,
    )


def _double(state: Any) -> Any:
    return tuple(part.double() for part in state) if isinstance(state, tuple) else state.double()


def _series(
    source: dict[str, Any], known: list[str], region: str | None, data: Path | None, clock: Clock
) -> LoadSeries:
    if data is not None:
        series = read_file(data, clock)
        return replace(series, region=region or named_as_before(series.region, known))
    wanted = region or known[0]
    if wanted not in known:
        raise StepError(f"region {wanted} is not one the run was trained on ({', '.join(known)})")
    if source["kind"] == "simulated":
        raise StepError("the run was trained on simulated data: give a CSV file with --data")
    for name in source["sha256"]:
        path = Path(source["place"]) / name
        try:
            _, column = columns_of(path, read_table(path, rows=1))
        except ForecastError as error:
            raise StepError(f"{error}; give a file with --data") from error
        if named_as_before(region_of(column), known) == wanted:
            return replace(read_file(path, clock), region=wanted)
    raise StepError(f"{source['place']}: has no file of region {wanted}; give one with --data")


def _position(stamps: pd.DatetimeIndex, hour: str | None, source: str) -> int:
    if hour is None:
        return len(stamps) - 1
    try:
        wanted = pd.Timestamp(hour)
    except ValueError as error:
        raise StepError(f"--hour must be like '2018-07-01 12:00', got {hour!r}") from error
    found = np.flatnonzero(stamps == wanted)
    if not len(found):
        span = f"{stamps[0]:%Y-%m-%d %H:%M} to {stamps[-1]:%Y-%m-%d %H:%M}"
        raise StepError(f"{source}: has no hour {hour}; it has {span}")
    return int(found[-1])
