"""Forecasting the hours after the end of a file with a trained run."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import Clock, FloatArray, read_file
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import in_digits, written_csv
from gatedcells.forecast.intervals import around
from gatedcells.forecast.kept_scores import smape_of
from gatedcells.forecast.load_table import named_as_before
from gatedcells.forecast.metrics import mean_defined
from gatedcells.forecast.policy import check
from gatedcells.forecast.runs import Config, RunFolder
from gatedcells.forecast.windows import fill_from_the_past


@dataclass(frozen=True)
class Prediction:
    """A forecast of some hours.

    Attributes:
        region: whose load; cell: which network; source: the file it goes on from.
        stamps: ``[hours]`` as the file's clock would write them, in its time zone; utc: their UTC starts.
        load_mw: ``[hours]`` forecast.
        one_step_smape: the network's sMAPE on the run's test hours of this region, %; NaN if unknown.
        alone: whether the run corrects forecasts by the errors of all regions, which one file does not have:
            the forecast, its sMAPE and its interval are without that.
        simulated: whether the run learnt from simulated data.
        low_mw, high_mw: of the first hour, by level; empty if such forecasts have not been scored.
        blank: hours at the end of the file without a positive load, which the forecast begins with.
        filled: hours among those looked back at that the file lacks.
    """

    region: str
    cell: str
    source: str
    stamps: pd.DatetimeIndex
    utc: pd.DatetimeIndex
    load_mw: FloatArray
    one_step_smape: float
    alone: bool
    simulated: bool
    blank: int
    filled: int
    low_mw: dict[float, float]
    high_mw: dict[float, float]


def predict_file(
    run: RunFolder, path: Path, *, hours: int = 24, cell: str | None = None, region: str | None = None
) -> Prediction:
    """Forecast the ``hours`` after the last one of a CSV file that has a load.

    Args:
        run: a finished run.
        path: the file, ``Datetime,<REGION>_MW``.
        hours: how many.
        cell: ``"gru"`` or ``"lstm"``; the one with the lower test sMAPE by default.
        region: which of the run's regions the file is, if its header says another name.

    Raises:
        ForecastError: the run or the file is not usable, or the region unknown to the run.
    """
    config = run.config()
    alone = bool(getattr(config.recipe, "neighbours", False))
    scores = smape_of(run, alone=alone)
    # runs of before have no such scores: the choice is then by those that they have
    cell = cell or _better(config, scores or smape_of(run, alone=False))
    forecaster, _ = run.forecaster(config, cell)
    series = read_file(path, Clock(config.data["tz"], config.data["stamp"]))
    name = region or named_as_before(series.region, forecaster.scales)
    if name not in forecaster.scales:
        known = ", ".join(forecaster.scales)
        raise ForecastError(
            f"{path}: region {name} is not one the run was trained on ({known}); --region says which it is"
        )
    series = replace(series, region=name)
    check(series, config.policy)
    recorded = np.isfinite(series.load_mw)
    blank = int(np.argmax(recorded[::-1]))
    end = len(recorded) - blank
    recorded = recorded[:end]
    series = replace(series, load_mw=series.load_mw[:end], rows=series.rows[series.rows < end])
    missing = int((~recorded[-forecaster.hours_needed :]).sum())
    if missing and config.policy.on_gap == "drop":
        raise ForecastError(
            f"{path}: {missing} of the {forecaster.hours_needed} hours that the network looks back at are"
            " missing; expected all of them, as the run's --on-gap drop requires"
        )
    load_mw = fill_from_the_past(series.load_mw, recorded, series.source)
    forecast_mw = forecaster.forecast_next(series, load_mw, hours)
    calibrator = run.calibrator(cell, name, alone=alone)
    bounds: dict[float, tuple[float, float]] = {}
    if calibrator is not None:
        reach = calibrator.factors(int(local_starts(series, 1).hour[end]))
        low, high = around(forecast_mw[0], reach)
        ends = zip(low.tolist(), high.tolist(), strict=True)
        # without a day of errors there is no interval
        bounds = dict(zip(calibrator.levels, ends, strict=True)) if np.isfinite(reach).all() else {}
    utc = series.first_hour + pd.to_timedelta(np.arange(end, end + hours), unit="h")
    return Prediction(
        region=name,
        cell=cell,
        source=str(path),
        stamps=series.local_stamps(hours)[end:],
        utc=pd.DatetimeIndex(utc),
        load_mw=forecast_mw,
        one_step_smape=scores.get((cell, name), float("nan")),
        alone=alone,
        simulated=config.data["kind"] == "simulated",
        blank=blank,
        filled=missing,
        low_mw={level: low for level, (low, _) in bounds.items()},
        high_mw={level: high for level, (_, high) in bounds.items()},
    )


def print_prediction(console: Console, prediction: Prediction) -> None:
    """A table of the forecast, with what is known of its error."""
    p = prediction
    if p.simulated:
        console.print("The run learnt from SIMULATED DATA.", style="bold white on red")
    if p.blank:
        console.print(
            f"Hours without a load at the end of the file: {p.blank}. The forecast begins with them.",
            style="yellow",
        )
    if p.filled:
        console.print(
            f"{p.filled} of the hours that the network looks back at are missing in the file and were"
            " filled.",
            style="yellow",
        )
    after = "last load in" if p.blank else "end of"
    table = Table(
        title=f"{p.region}: {len(p.load_mw)} hours after the {after} {p.source}", title_justify="left"
    )
    table.add_column("Datetime (as in the file)")
    table.add_column("UTC start", style="dim")
    table.add_column(f"{p.cell.upper()}, MW", justify="right")
    for stamp, utc, load in zip(p.stamps, p.utc, p.load_mw, strict=True):
        table.add_row(f"{stamp:%a %Y-%m-%d %H:%M}", f"{utc:%Y-%m-%d %H:%M}", f"{load:,.1f}")
    known = np.isfinite(p.one_step_smape)
    error = f"sMAPE {p.one_step_smape:.3f}% on this region's test hours" if known else "error not known"
    error += " without the neighbours' correction, which needs all regions" if p.alone else ""
    ranges = "; ".join(
        f"{100 * level:.0f}% between {p.low_mw[level]:,.1f} and {p.high_mw[level]:,.1f} MW"
        for level in p.low_mw
    )
    table.caption = f"First hour: {error}{'; ' + ranges if ranges else ''}. Later hours build on the ones"
    table.caption += " before and err more."
    console.print(table)


def write_prediction(path: Path, prediction: Prediction) -> None:
    """Write the forecast as CSV with the columns of the load files, and the UTC start of each hour."""
    with written_csv(path) as table:
        table.writerow(["Datetime", f"{prediction.region}_MW", "utc_start"])
        loads = in_digits(prediction.load_mw)
        for stamp, utc, load in zip(prediction.stamps, prediction.utc, loads, strict=True):
            table.writerow([f"{stamp:%Y-%m-%d %H:%M:%S}", load, f"{utc:%Y-%m-%dT%H:%M:%SZ}"])


def _better(config: Config, scores: dict[tuple[str, str], float]) -> str:
    def mean(cell: str) -> float:
        found = mean_defined([value for (of, _), value in scores.items() if of == cell])
        return float("inf") if np.isnan(found) else found

    return min(config.cells, key=mean)
