"""Options that several commands have."""

import click

_LARGEST_SEED, _MOST_THREADS = 2**63 - 1, 1024  # as a run's config.json may have

SEED = click.option(
    "--seed",
    type=click.IntRange(0, _LARGEST_SEED),
    default=0,
    show_default=True,
    help="Of everything random.",
)
THREADS = click.option(
    "--threads", type=click.IntRange(1, _MOST_THREADS), help="Threads of torch. [its own choice]"
)
