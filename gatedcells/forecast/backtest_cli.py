"""``gatedcells forecast backtest``: scores of forecasts made at several past dates."""

from pathlib import Path
from typing import Any

import click

from gatedcells.forecast.console import guarded, plain_console, stoppable
from gatedcells.forecast.data import Clock, check_written_year, check_years
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.options import CELL, DATA, HIDDEN_SIZE, HOLIDAYS, SEED, STAMP, THREADS, TZ
from gatedcells.forecast.policy import ON_GAP, ON_OUTLIER, Policy

_MOST_HOURS = 24 * 365 * 200


@click.command(context_settings={"max_content_width": 110})
@DATA
@click.option("--folds", type=click.IntRange(1), default=4, show_default=True, help="Number of cutoff dates.")
@click.option(
    "--span", type=click.IntRange(1), default=24 * 90, show_default=True,
    help="Hours forecast after each date, which is also the distance between dates.",
)  # fmt: skip
@click.option("--window", type=click.IntRange(1), help="Hours to train on before a date. [all]")
@click.option("--end", metavar="STAMP", help="Where the last span ends, UTC. [the last hour of any file]")
@click.option(
    "--refit/--no-refit", default=True, show_default=True,
    help="Train again at every date, or at the first one only.",
)  # fmt: skip
@CELL
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Optimizer steps. [700; fewer for few hours of data]",
)
@HIDDEN_SIZE
@HOLIDAYS
@click.option(
    "--on-gap", type=click.Choice(list(ON_GAP)), default="fill", show_default=True, help="As for forecast."
)
@click.option(
    "--on-outlier",
    type=click.Choice(list(ON_OUTLIER)),
    default="repair",
    show_default=True,
    help="As for forecast.",
)
@click.option(
    "--lightgbm", "trees", type=click.IntRange(1), metavar="TREES",
    help="Also fit LightGBM with this many trees at every date. [not at all]",
)  # fmt: skip
@SEED
@THREADS
@TZ
@STAMP
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True,
    help="Folder of the backtest; the same command resumes one that was stopped.",
)  # fmt: skip
def backtest(**options: Any) -> None:
    """Train on the hours before a cutoff date, forecast the hours after it, and repeat at later dates.

    All regions share the dates, so no network is tested on hours that it was trained on in another region.
    """
    guarded(_backtest, options)


def _backtest(options: dict[str, Any]) -> None:
    import torch

    from gatedcells.forecast.backtest import Plan
    from gatedcells.forecast.backtest_run import run
    from gatedcells.forecast.calendar import check_country
    from gatedcells.forecast.fast_recipe import FastRecipe
    from gatedcells.forecast.pipeline import read_data

    console = plain_console()
    check_country(options["holidays"])
    names = ("cell", "hidden_size", "steps", "holidays")
    recipe = FastRecipe(**{name: options[name] for name in names if options[name] is not None})
    hours = options["folds"] * options["span"]
    if hours > _MOST_HOURS:
        raise ForecastError(
            f"--folds {options['folds']} of --span {options['span']} are {hours:,} hours; expected at most"
            f" {_MOST_HOURS:,}"
        )
    plan = Plan(
        options["folds"], options["span"], options["window"], _moment(options["end"]), options["refit"]
    )
    policy = Policy(options["on_gap"], options["on_outlier"])
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    trees = None
    if options["trees"] is not None:
        from gatedcells.forecast.trees import PooledTrees

        if not plan.refit:
            raise ForecastError("--lightgbm fits at every date: leave out --no-refit")
        threads = options["threads"] or torch.get_num_threads()
        trees = PooledTrees(
            options["trees"], threads=threads, seed=options["seed"], holidays=options["holidays"]
        )
    source = read_data(options["data"], Clock(options["tz"], options["stamp"]), console)
    with stoppable():
        fewer = options["steps"] is None
        run(options["out"], source, plan, recipe, options["seed"], console, policy, trees, fewer=fewer)


def _moment(stamp: str | None) -> Any:
    import pandas as pd

    if stamp is None:
        return None
    moments = pd.to_datetime([stamp], format="ISO8601", errors="coerce", utc=True)
    if not stamp[:1].isdigit() or moments.isna().any():
        check_written_year(stamp, "--end", "backtest")
        raise ForecastError(f"--end must be like '2018-07-01 12:00', got {stamp!r}")
    check_years(moments, "--end", lambda _: "backtest")
    return moments[0]
