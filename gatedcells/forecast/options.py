"""Options that several commands have."""

from pathlib import Path

import click

from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.data import EASTERN

_LARGEST_SEED, _MOST_THREADS = 2**63 - 1, 1024  # as a run's config.json may have

SEED = click.option(
    "--seed",
    type=click.IntRange(0, _LARGEST_SEED),
    default=0,
    show_default=True,
    help="Seed of all random numbers.",
)
THREADS = click.option(
    "--threads", type=click.IntRange(1, _MOST_THREADS), help="Number of torch threads. [torch's default]"
)
TZ = click.option("--tz", default=EASTERN, show_default=True, help="Time zone of the files' timestamps.")
STAMP = click.option(
    "--stamp", type=click.Choice(["ending", "beginning"]), default="ending", show_default=True,
    help="Whether a timestamp marks the end of its hour (PJM) or the beginning.",
)  # fmt: skip

# of the commands beside the main one
DATA = click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="As for forecast.")
CELL = click.option(
    "--cell", type=click.Choice(CELLS), default="gru", show_default=True, help="Which network."
)
HIDDEN_SIZE = click.option(
    "--hidden-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Hidden units."
)
HOLIDAYS = click.option(
    "--holidays", metavar="COUNTRY", default="US", show_default=True,
    help="Country whose holidays are inputs, or none.",
)  # fmt: skip
