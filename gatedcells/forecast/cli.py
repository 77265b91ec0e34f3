"""``gatedcells forecast``: train, score, predict."""

from pathlib import Path
from typing import Any

import click

from gatedcells.forecast import backtest_cli, own_cli, report_cli, run_cli
from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.console import guarded, plain_console
from gatedcells.forecast.distributed import DEVICES
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.networks import PRECISIONS
from gatedcells.forecast.options import SEED, STAMP, THREADS, TZ
from gatedcells.forecast.policy import ON_GAP, ON_OUTLIER
from gatedcells.forecast.runs import RECIPES, RunFolder


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.option(
    "--data", "data", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder of CSV files 'Datetime,<REGION>_MW' (bitcoin: a CSV file with Date and Close)."
    " Default: $GATEDCELLS_DATA/pjm, else the user cache, else a download of the 12 public PJM files,"
    " else simulated data, with a warning.",
)  # fmt: skip
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default="fast",
    show_default=True,
    help="fast: a loss at every hour. best: six larger networks, trained in the same way for longer."
    " article: one label for each window of 90 hours."
    " bitcoin: the next day's close from the 60 before it.",
)
@click.option(
    "--article",
    "as_published",
    is_flag=True,
    help="The article's recipe as published: scales fitted on all rows, the test part included.",
)
@click.option(
    "--cell",
    type=click.Choice([*CELLS, "both"]),
    default="both",
    show_default=True,
    help="Which network to train.",
)
@click.option(
    "--hidden-size", type=click.IntRange(1, 4096), help="Hidden units. [fast: 64, best: 160, article: 256]"
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, 1, min_open=True),
    help="Learning rate. [fast: 0.02, article: 0.001]",
)
@click.option(
    "--batch-size", type=click.IntRange(1),
    help="Chunks or windows per optimizer step. [fast: 96, best: 56; fewer for few hours of data; article:"
    " 1024]",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1),
    help="fast, best: optimizer steps. [700, 3800; fewer for few hours of data]",
)  # fmt: skip
@click.option(
    "--holidays", metavar="COUNTRY", help="fast, best: country whose holidays are inputs, or none. [US]"
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="fast, best: precision of the recurrence. [fast: float32, best: bfloat16]",
)
@click.option(
    "--neighbours/--no-neighbours",
    default=None,
    help="fast, best: correct forecasts by the last errors of all regions. [fast: no, best: yes]",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="article, bitcoin: passes over the training windows. [5, 50]"
)
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    help="article: share of the training windows drawn in each epoch. [1.0]",
)
@click.option("--layers", type=click.IntRange(1, 16), help="article: number of stacked layers. [2]")
@click.option("--dropout", type=click.FloatRange(0, 1), help="article, bitcoin: dropout probability. [0.2]")
@click.option(
    "--lightgbm", "trees", type=click.IntRange(1), metavar="TREES",
    help="Also fit LightGBM with this many trees, on all regions together; may be added with --resume."
    " [not at all]",
)  # fmt: skip
@click.option(
    "--on-gap", type=click.Choice(list(ON_GAP)), default="fill", show_default=True,
    help="Missing hours. fill: from the hours before, and neither train on nor score them. drop: also leave"
    " out every hour whose inputs include one. raise: refuse the file.",
)  # fmt: skip
@click.option(
    "--on-outlier", type=click.Choice(list(ON_OUTLIER)),
    help="Single hours that are off by over 10%. repair: fill them in the training part; the test part stays"
    " as recorded. keep: leave them. raise: refuse the file. [repair; --article: keep]",
)  # fmt: skip
@SEED
@THREADS
@TZ
@STAMP
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Training device; not bitcoin.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR",
    help="Run folder to create. [forecast-runs/<date>-<time>]",
)  # fmt: skip
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN",
    help="Resume an interrupted run, with the settings in its folder.",
)  # fmt: skip
@click.pass_context
def forecast(context: click.Context, **options: Any) -> None:
    """Forecast the next hour of electric load: train a GRU and an LSTM, score them and simple baselines on
    the last tenth of each region, print a table, and write plots, a report and a run folder.

    \b
    gatedcells forecast                        train and score both cells (about two minutes)
    gatedcells forecast --resume RUN           resume an interrupted run
    gatedcells forecast predict RUN --data F   forecast the hours after the end of a CSV file
    gatedcells forecast backtest --out DIR     train and score at several dates
    gatedcells forecast report RUN             write the report of a run, one HTML file
    gatedcells forecast day-ahead --out DIR    the next 24 hours at once, with intervals
    gatedcells forecast fit FILE --out DIR     your own series; then: forecast apply DIR
    gatedcells forecast --recipe article --fraction 0.02 --epochs 1    the article's recipe, shortened
    gatedcells forecast --recipe bitcoin --data bitcoin_price.csv      the next day's closing price
    """
    if context.invoked_subcommand is not None:
        _refuse_before(context, forecast.commands[context.invoked_subcommand])
        return
    # before a heavy import: a wrong combination should be told at once
    if options["resume"] is None:
        run_cli.check_options(context, options)
    guarded(run_cli.start_or_resume, context, options)


@forecast.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="CSV file 'Datetime,<REGION>_MW' that ends where the forecast begins.",
)
@click.option(
    "--hours",
    type=click.IntRange(1, 24 * 14),
    help="Number of hours to forecast; each after the first builds on the forecasts before it. [24]",
)
@click.option("--cell", type=click.Choice(CELLS), help="Which network. [the better one]")
@click.option("--region", help="Which of the run's regions the file is. [as its header says]")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write the forecast as CSV."
)
def predict(**options: Any) -> None:
    """Forecast the hours after the end of a CSV file, with a trained RUN."""
    guarded(_predict, options)


for _command in (backtest_cli.backtest, report_cli.report, *own_cli.COMMANDS):
    forecast.add_command(_command)


def _refuse_before(context: click.Context, command: click.Command) -> None:
    """Refuse options before a command, which knows nothing of them.

    Raises:
        click.UsageError: there is one.
    """
    behind = {name for parameter in command.params for name in parameter.opts}
    for parameter in context.command.params:
        name = parameter.opts[0]
        if context.get_parameter_source(parameter.name or "") is not click.core.ParameterSource.COMMANDLINE:
            continue
        if name in behind:
            right = f"belongs behind {command.name}: {context.command_path} {command.name} {name} ..."
        else:
            right = f"is no option of {command.name}: leave it out"
        raise click.UsageError(f"{name} {right}", context)


def _predict(options: dict[str, Any]) -> None:
    from gatedcells.forecast.prediction import predict_file, print_prediction, write_prediction

    run = RunFolder(options["run"])
    config = run.config()
    if config.recipe_name == "bitcoin":
        from gatedcells.forecast import bitcoin_run

        if options["hours"] is not None or options["region"] is not None:
            raise ForecastError(f"{run.path}: forecasts the next day's close; leave out --hours and --region")
        bitcoin_run.predict(run, config, options["data"], options["cell"], options["out"], plain_console())
        return
    prediction = predict_file(
        run,
        options["data"],
        hours=options["hours"] or 24,
        cell=options["cell"],
        region=options["region"],
    )
    if options["out"] is not None:
        write_prediction(options["out"], prediction)
    print_prediction(plain_console(), prediction)
