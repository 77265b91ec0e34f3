"""``gatedcells forecast fit`` and ``apply``: the `Forecaster` on your own file."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gatedcells.forecast.console import guarded, one_process, plain_console, stoppable
from gatedcells.forecast.day_ahead_cli import day_ahead
from gatedcells.forecast.distributed import DEVICES
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.options import CELL, HIDDEN_SIZE, SEED, THREADS
from gatedcells.forecast.panel_report import FrameWarning, ShortFrame

_SHOWN = 30  # rows of a forecast
_NOT_WRITTEN = (".xlsx", ".xls", ".ods", ".json", ".feather", ".gz", ".bz2", ".zip", ".xz", ".zst")


@click.command(context_settings={"max_content_width": 110})
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Folder to create."
)
@click.option("--overwrite", is_flag=True, help="Replace any forecaster already in that folder.")
@click.option("--id-col", default="unique_id", show_default=True, help="Column that names the series.")
@click.option("--time-col", default="ds", show_default=True, help="Column with the timestamps.")
@click.option(
    "--target-col", default="y", show_default=True,
    help="Column to forecast. A file without an id column has one series, this column; without either, every"
    " column is a series.",
)  # fmt: skip
@click.option(
    "--known", multiple=True, metavar="COLUMN", help="Covariate known for future steps; may be repeated."
)
@click.option(
    "--past", multiple=True, metavar="COLUMN", help="Covariate known for past steps only; may be repeated."
)
@click.option("--static", multiple=True, metavar="COLUMN", help="Attribute of a series; may be repeated.")
@click.option("--horizon", type=click.IntRange(1, 10_000), default=24, show_default=True, help="Steps ahead.")
@CELL
@click.option(
    "--lookback", type=click.IntRange(2, 100_000), help="Steps read before a forecast. [from the season]"
)
@HIDDEN_SIZE
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Optimizer steps. [1000; fewer for a small data set]",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 100_000), help="Chunks per step. [16; fewer for a small data set]"
)
@click.option(
    "--scaling", type=click.Choice(["auto", "log", "standard"]), default="auto", show_default=True,
    help="Scaling of the values; auto: log if all values are positive, else standard.",
)  # fmt: skip
@click.option(
    "--level", type=float, multiple=True, default=(80, 95), show_default=True, metavar="PERCENT",
    help="Prediction interval to output, 80 or 95; may be repeated.",
)  # fmt: skip
@click.option(
    "--calibration", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True,
    help="Share at the end of each series on which the intervals are calibrated; it is not trained on.",
)  # fmt: skip
@click.option(
    "--identity/--no-identity", default=True, show_default=True,
    help="Whether the network reads which series it forecasts; without, it can also forecast unseen series.",
)  # fmt: skip
@click.option("--freq", help="Frequency, e.g. 15min, h or D. [inferred]")
@click.option("--tz", help="Time zone of timestamps without one. [UTC]")
@click.option(
    "--stamp", type=click.Choice(["ending", "beginning"]), default="beginning", show_default=True,
    help="Whether a timestamp marks the end of its step or the beginning.",
)  # fmt: skip
@click.option("--holidays", metavar="COUNTRY", help="Country whose holidays are inputs. [none]")
@click.option(
    "--on-gap", type=click.Choice(["fill", "raise", "drop"]), default="fill", show_default=True,
    help="Missing steps within a series. fill: from past values, and neither train on nor score them. raise:"
    " refuse the file. drop: leave out the series.",
)  # fmt: skip
@click.option(
    "--on-duplicate", type=click.Choice(["raise", "first", "last"]), default="raise", show_default=True,
    help="Rows of one series and timestamp with different values. raise: refuse the file. first, last: keep"
    " that row.",
)  # fmt: skip
@click.option(
    "--on-outlier", type=click.Choice(["keep", "repair", "raise"]), default="keep", show_default=True,
    help="Single values far from their neighbours. keep: leave them. repair: treat them as missing in"
    " training. raise: refuse the file.",
)  # fmt: skip
@SEED
@THREADS
@click.option(
    "--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="Training device."
)
def fit(file: Path, out: Path, overwrite: bool, **options: Any) -> None:
    """Train a forecaster on the series of a CSV or Parquet FILE, and save it.

    FILE has one row per series and timestamp, or one column per series. After Ctrl-C, the same command
    resumes the training.
    """
    guarded(_fit, file, out, overwrite, options)


@click.command(context_settings={"max_content_width": 110})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FILE",
    help="Series to forecast. [those that it was trained on]",
)  # fmt: skip
@click.option(
    "--future", type=click.Path(path_type=Path), metavar="FILE", help="Known covariates of the future steps."
)
@click.option(
    "--update", is_flag=True,
    help="The file of --data holds new values: add them to the forecaster in FOLDER, and adapt the width of"
    " its intervals to them, without training again.",
)  # fmt: skip
@click.option("--h", type=click.IntRange(1), help="Steps ahead. [the horizon]")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write it, as CSV or Parquet."
)
def apply(folder: Path, **options: Any) -> None:
    """Forecast the next steps with the forecaster that `forecast fit` saved in FOLDER."""
    guarded(_apply, folder, options)


COMMANDS = (day_ahead, fit, apply)


def _fit(file: Path, out: Path, overwrite: bool, options: dict[str, Any]) -> None:
    from gatedcells.forecast.files import drop
    from gatedcells.forecast.forecaster import Forecaster
    from gatedcells.forecast.forecaster_files import CHECKPOINT, check_folder
    from gatedcells.forecast.replacing import replaces_its_like

    one_process("fit")
    console = plain_console()
    check_folder(out)
    forecaster = Forecaster(**options, verbose=console.is_terminal)
    if not overwrite and not replaces_its_like(out, forecaster, file):
        raise ForecastError(
            f"{out}: holds a forecaster with other settings or data, or that was updated with new values;"
            " choose another folder, or replace it with --overwrite"
        )
    with stoppable():
        with _said_in_a_line():
            forecaster.fit_kept(file, out / CHECKPOINT)
        forecaster.save(out)
        drop(out / CHECKPOINT)
    for line in forecaster.report_.lines():
        console.print(line, soft_wrap=True)
    recipe, season = forecaster.model_.recipe, forecaster.model_.fit.season
    console.print(
        f"{options['cell'].upper()}: {recipe.steps} steps of {recipe.batch_size} chunks in"
        f" {forecaster.train_seconds_:.1f} s{'' if season else ' without the season'}, pinball loss"
        f" {forecaster.loss_:.4f} in spreads, {forecaster.model_.margins.windows:,} windows calibrate the"
        " intervals",
        soft_wrap=True,
    )
    console.print(f"Forecast with it: gatedcells forecast apply {out}", soft_wrap=True)


def _apply(folder: Path, options: dict[str, Any]) -> None:
    from gatedcells.forecast.files import read_json, written_beside
    from gatedcells.forecast.forecaster import Forecaster
    from gatedcells.forecast.forecaster_files import JSON, MADE
    from gatedcells.forecast.frame_files import PARQUET

    out = options["out"]
    suffix = out.suffix.lower() if out is not None else ""
    if suffix in _NOT_WRITTEN:
        raise ForecastError(f"--out {out}: expected a name in .csv or .parquet, others are not written")
    frame = options["data"]
    if options["update"] and frame is None:
        raise ForecastError("--update adds new values to the forecaster: give them as --data FILE")
    before = read_json(folder / JSON, MADE)
    forecaster = Forecaster.load(folder)
    known, h, most = forecaster._names.known, options["h"], forecaster.model_.recipe.horizon
    if known and options["future"] is None and (h is None or h <= most):
        raise ForecastError(
            f"fitted with --known {' --known '.join(known)}: give their values for the {h or most} steps to"
            " come as --future FILE"
        )
    if not known and options["future"] is not None:
        raise ForecastError("--future was given, but the forecaster was fitted without --known")
    # what is printed and written is a pandas frame, whatever it was fitted on
    forecaster._style = replace(forecaster._style, kind="pandas")
    with _said_in_a_line():
        if options["update"]:
            forecaster.update(frame)
            frame = None
        found = forecaster.predict(options["h"], frame=frame, future=options["future"])
    if options["update"]:
        if read_json(folder / JSON) != before:
            raise ForecastError(f"{folder}: another command has written to it meanwhile; run this one again")
        forecaster.save(folder)
    if out is not None:
        with written_beside(out) as beside:
            if suffix not in PARQUET:
                found.to_csv(beside, index=False)
            else:
                try:
                    found.to_parquet(beside, index=False)
                except ImportError as error:
                    raise ForecastError(f"{out}: Parquet files need pyarrow: pip install pyarrow") from error
    text = found.head(_SHOWN).to_string(index=False, float_format="{:,.3f}".format)
    click.echo(text)
    if len(found) > _SHOWN:
        click.echo(f"... {len(found) - _SHOWN:,} more rows" + ("" if out else " (--out FILE writes all)"))


@contextmanager
def _said_in_a_line() -> Generator[None]:
    """Within the block a warning is a line, and not Python's two with a place in the source."""

    def show(message: Any, *_: Any, **__: Any) -> None:
        meant = "; did you mean --update?" if isinstance(message, ShortFrame) and message.behind else ""
        click.echo(f"Warning: {message}{meant}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FrameWarning)
        warnings.showwarning = show
        yield
