"""``gatedcells forecast report``: a run as one HTML file."""

from pathlib import Path
from typing import Any

import click

from gatedcells.forecast.console import guarded, plain_console
from gatedcells.forecast.runs import RunFolder


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="The run's data. [where the run read them]"
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The page. [report.html in the run folder]"
)
def report(**options: Any) -> None:
    """Write the report of a trained RUN: one HTML file that works offline."""
    guarded(_report, options)


def _report(options: dict[str, Any]) -> None:
    from gatedcells.forecast.page import NAME
    from gatedcells.forecast.pipeline import data_of
    from gatedcells.forecast.report_run import config_of, write_report

    console, run = plain_console(), RunFolder(options["run"])
    config, out = config_of(run), options["out"] or run.path / NAME
    write_report(run, config, data_of(run, config, options["data"], console), out, console)
    console.print(f"Report: {out}", soft_wrap=True)
