"""The command line: ``gatedcells forecast | step | doctor``."""

import importlib
from typing import Any

import click

from gatedcells import __version__


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, so that one need not wait for the
    others' imports."""

    def __init__(self, *args: Any, lazy: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        where = self._lazy.get(cmd_name)
        if where is None:
            return None
        module, name = where.split(":")
        return getattr(importlib.import_module(module), name)


@click.group(
    cls=LazyGroup,
    lazy={
        "forecast": "gatedcells.forecast.cli:forecast",
        "step": "gatedcells.step.cli:step",
        "doctor": "gatedcells.doctor:doctor",
    },
)
@click.version_option(__version__, prog_name="gatedcells")
def main() -> None:
    """Gated recurrent cells written from their equations, and an hourly load forecaster built on them."""
