"""``gatedcells forecast day-ahead``: the next 24 hours at once."""

from pathlib import Path
from typing import Any

import click

from gatedcells.forecast.console import guarded, one_process, plain_console, stoppable
from gatedcells.forecast.data import Clock
from gatedcells.forecast.options import CELL, DATA, HIDDEN_SIZE, HOLIDAYS, SEED, STAMP, THREADS, TZ


@click.command(name="day-ahead", context_settings={"max_content_width": 110})
@DATA
@CELL
@click.option(
    "--every", type=click.Choice(["1", "2", "3", "4", "6", "8", "12", "24"]), default="24", show_default=True,
    help="Forecast from each local hour divisible by this number; 24: from midnight only.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps. [2000; fewer for few hours of data]")
@HIDDEN_SIZE
@click.option(
    "--lookback", type=click.IntRange(2, 24 * 28), default=96, show_default=True,
    help="Hours read before a forecast.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1), help="Chunks per step. [32; fewer for few hours of data]"
)
@HOLIDAYS
@click.option(
    "--lightgbm", "trees", type=click.IntRange(1), metavar="TREES",
    help="Also fit LightGBM with this many trees, one model for all regions and hours ahead. [not at all]",
)  # fmt: skip
@click.option(
    "--lightgbm-rows", "tree_rows", type=click.IntRange(1000), default=1_000_000, show_default=True,
    help="Rows that LightGBM is fitted on: pairs of a starting hour and an hour ahead, drawn from all.",
)  # fmt: skip
@SEED
@THREADS
@TZ
@STAMP
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True,
    help="Folder of the run; the same command resumes one that was stopped.",
)  # fmt: skip
def day_ahead(**options: Any) -> None:
    """Forecast the next 24 hours of every region at once, with prediction intervals.

    The forecasts start at every midnight of the test part. They are scored for each hour ahead, next to the
    same hour of the last week, of the day before and, on request, LightGBM.
    """
    guarded(_day_ahead, options)


def _day_ahead(options: dict[str, Any]) -> None:
    import torch

    from gatedcells.forecast.day_ahead import DirectTrees
    from gatedcells.forecast.day_ahead_run import run
    from gatedcells.forecast.forecaster import Forecaster
    from gatedcells.forecast.pipeline import read_data

    one_process("day-ahead")
    console = plain_console()
    forecaster = Forecaster(
        options["cell"], 24, lookback=options["lookback"], hidden_size=options["hidden_size"],
        steps=options["steps"], batch_size=options["batch_size"], seed=options["seed"],
        holidays=None if options["holidays"] == "none" else options["holidays"], threads=options["threads"],
        tz=options["tz"], stamp=options["stamp"], freq="h",
    )  # fmt: skip
    forecaster.checked()
    trees = None
    if options["trees"] is not None:
        threads = options["threads"] or torch.get_num_threads()
        trees = DirectTrees(
            options["trees"], rows=options["tree_rows"], threads=threads, seed=options["seed"]
        )
    source = read_data(options["data"], Clock(options["tz"], options["stamp"]), console)
    with stoppable():
        run(options["out"], source, forecaster, int(options["every"]), trees, console)
    console.print(f"Run folder: {options['out']}", soft_wrap=True)
