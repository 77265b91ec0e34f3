"""A whole run of the bitcoin recipe: prices, training, scores beside "tomorrow = today", a plot, files."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gatedcells.forecast import distributed
from gatedcells.forecast.bitcoin import PriceScores, PriceTask, split, verdict
from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import read_json, write_json, written_beside, written_csv
from gatedcells.forecast.plots import plot_prices
from gatedcells.forecast.prices import Prices, read_prices
from gatedcells.forecast.progress import train_shown
from gatedcells.forecast.runs import FORMAT, Config, RunFolder
from gatedcells.forecast.sources import DATA_VARIABLE

FILE = Path("bitcoin") / "bitcoin_price.csv"
PERSISTENCE = "tomorrow = today"


def find_prices(given: Path | None) -> tuple[Prices, Path]:
    """Read the prices from the file given, or from ``$GATEDCELLS_DATA/bitcoin/bitcoin_price.csv``.

    Raises:
        ForecastError: there is no file, or it is bad.
    """
    root = os.environ.get(DATA_VARIABLE)
    if given is None and not root:
        raise ForecastError(
            "the bitcoin recipe needs a CSV file with the columns Date and Close: --data FILE, or"
            f" {DATA_VARIABLE} with {FILE} in it (Kaggle has one as bitcoin_price.csv)"
        )
    path = given if given is not None else Path(root or "") / FILE
    if path.is_dir():
        path = path / FILE.name
    return read_prices(path), path.resolve()


def data_of(prices: Prices, path: Path) -> dict[str, Any]:
    """What a run remembers of its prices."""
    return {"kind": "prices", "place": str(path), "sha256": {prices.source: prices.sha256}}


def execute(run: RunFolder, config: Config, prices: Prices, console: Console) -> dict[str, PriceScores]:
    """Do whatever of a run is not done yet, and write and print its results.

    Raises:
        gatedcells.forecast.training.Interrupted: Ctrl-C during training; the run can be resumed.
        ForecastError: as the parts say.
    """
    torch.set_num_threads(config.threads)
    first = split(config.recipe_for(config.cells[0]), prices)
    days = f"{prices.days[0]} to {prices.days[-1]}"
    console.print(
        f"{prices.source}: {len(prices.close):,} closes, {days}; sorted {prices.out_of_order} rows,"
        f" {prices.missing_closes} without a close, {prices.missing_days} days without a row",
        soft_wrap=True,
    )
    console.print(
        f"Trained on the closes before {prices.days[first]}, tested on the {len(prices.close) - first}"
        " from then on"
    )
    forecasts: dict[str, FloatArray] = {}
    seconds: dict[str, float] = {}
    for cell in config.cells:
        if distributed.as_first_says(not run.is_trained(cell)):
            _train(run, config, cell, prices, console)
    if not distributed.share().first:
        return {}
    for cell in config.cells:
        forecaster, seconds[cell.upper()] = run.forecaster(config, cell)
        forecasts[cell.upper()] = forecaster.forecast(prices.close, range(first, len(prices.close)))
    forecasts[PERSISTENCE] = prices.close[first - 1 : -1]
    scores = {name: PriceScores.of(forecast, prices.close, first) for name, forecast in forecasts.items()}
    said = [
        verdict(name, scores[name], float(prices.close[:first].max()), float(prices.close[first:].max()))
        for name in scores
        if name != PERSISTENCE
    ]
    _write(run, prices, first, forecasts, scores, said)
    console.print(_table(scores, seconds))
    for sentence in said:
        console.print(sentence)
    return scores


def _train(run: RunFolder, config: Config, cell: str, prices: Prices, console: Console) -> None:
    task = PriceTask(config.recipe_for(cell), prices, config.seed)
    first = distributed.share().first
    if first:
        run.save_scales(task.scales)
    name = f"{cell.upper()} training"
    forecaster, done = train_shown(task, name, console, seed=config.seed, checkpoint=run.checkpoint(cell))
    if first:
        run.save_forecaster(cell, forecaster, done.seconds)


def _write(
    run: RunFolder,
    prices: Prices,
    first: int,
    forecasts: dict[str, FloatArray],
    scores: dict[str, PriceScores],
    said: list[str],
) -> None:
    models = {name: one.to_json() for name, one in scores.items()}
    write_json(run.metrics, {"format": FORMAT, "data": "prices", "models": models, "verdict": said})
    with written_csv(run.path / "test_forecasts.csv") as table:
        table.writerow(["Date", "Close", *forecasts])
        for row, (day, actual) in enumerate(zip(prices.days[first:], prices.close[first:], strict=True)):
            table.writerow([day, actual, *(f"{forecast[row]:.2f}" for forecast in forecasts.values())])
    plot_prices(run.path / "predicted_vs_actual.png", prices, first, forecasts, scores)


def _table(scores: dict[str, PriceScores], seconds: dict[str, float]) -> Table:
    table = Table(title="The next day's close", title_justify="left", title_style="bold", box=None)
    table.add_column("")
    for heading in ("MAE", "RMSE", "MAPE %", "times 'today'", "train s"):
        table.add_column(heading, justify="right")
    best = min(one.mae for one in scores.values())
    for name, one in scores.items():
        table.add_row(
            name, f"{one.mae:,.1f}", f"{one.rmse:,.1f}", f"{one.mape:.2f}", f"{one.mase:.2f}",
            f"{seconds[name]:.0f}" if name in seconds else "", style="bold green" if one.mae == best else "",
        )  # fmt: skip
    return table


def predict(
    run: RunFolder, config: Config, path: Path, cell: str | None, out: Path | None, console: Console
) -> None:
    """Forecast the close of the day after the last one in a file, print it, and perhaps write it; with the
    network of the lower test MAE, if ``cell`` names none.

    Raises:
        ForecastError: the file has too few closes, or the run is not usable.
    """
    prices = read_prices(path)
    cell = cell or _better(run, config)
    forecaster, _ = run.forecaster(config, cell)
    if len(prices.close) < forecaster.recipe.lookback_days:
        raise ForecastError(
            f"{path}: {len(prices.close)} closes; expected at least {forecaster.recipe.lookback_days}, the"
            " model's window"
        )
    day = prices.days[-1] + timedelta(days=1)
    close = float(forecaster.forecast(np.append(prices.close, np.nan), [len(prices.close)])[0])
    console.print(f"{day}: {close:,.2f} ({cell.upper()}); 'tomorrow = today' says {prices.close[-1]:,.2f}")
    if out is not None:
        with written_beside(out) as beside:
            beside.write_text(f"Date,Close\n{day},{close:.2f}\n", encoding="utf-8")


def _better(run: RunFolder, config: Config) -> str:
    """The cell with the lower test MAE; the first one, if the run has not been scored."""
    if not run.metrics.exists():
        return config.cells[0]
    try:
        models = read_json(run.metrics)["models"]
        return min(config.cells, key=lambda cell: float(models[cell.upper()]["mae"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ForecastError(f"{run.metrics}: not the scores of this run ({error!r})") from error
