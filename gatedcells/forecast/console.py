"""How the commands speak: a console, and one line for what a user can mend."""

import io
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from rich.console import Console

from gatedcells.backends import BackendUnavailable, requested
from gatedcells.forecast.distributed import share
from gatedcells.forecast.errors import ForecastError

USER_ERROR = 2


def plain_console() -> Console:
    """A console that takes what it prints literally: names of files and regions are the user's. Of several
    processes the first one prints."""
    return Console(markup=False, highlight=False, emoji=False, quiet=not share().first)


def one_process(command: str) -> None:
    """Refuse to run beside other processes of torchrun.

    Raises:
        ForecastError: there are others.
    """
    if share().of > 1:
        raise ForecastError(f"{command} runs on one process, got {share().of}; start it without torchrun")


@contextmanager
def stoppable(said: str = "Stopped. The same command goes on.") -> Generator[None]:
    """Within the block Ctrl-C, or SIGTERM, ends the command with a line, also where training has heard it."""
    from gatedcells.forecast.training import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stopped:
        click.echo(said, err=True)
        raise SystemExit(_status(stopped)) from None


def _status(stopped: BaseException) -> int:
    """As a shell counts: 128 and the signal, 130 for Ctrl-C and 143 for SIGTERM."""
    told = [number for number in stopped.args if isinstance(number, signal.Signals)]
    return 128 + (told[0] if told else signal.SIGINT)


@contextmanager
def _ended_in_order() -> Generator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does, so that a file half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: Any) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number))

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(function: Any, *arguments: Any) -> None:
    """Run, and turn bad input into one line and exit status 2; so a backend that the environment asks for and
    that cannot run, or that there is not; so a path that may not be looked at, and a stdout that is full.
    Ctrl-C is status 130, SIGTERM 143, also where there is nothing to go on with. What stdout's encoding does
    not have is printed as a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        requested()
    except ValueError as error:
        fail(str(error))
    try:
        with _ended_in_order():
            function(*arguments)
    except (ForecastError, BackendUnavailable) as error:
        fail(str(error))
    except BrokenPipeError:
        raise  # nobody reads any more: click's
    except OSError as error:
        place = "stdout or a file" if error.filename is None else os.fsdecode(error.filename)
        _drop_unprinted()
        fail(f"{place}: {error.strerror}")
    except KeyboardInterrupt as stopped:
        click.echo("Stopped.", err=True)
        raise SystemExit(_status(stopped)) from None


def _drop_unprinted() -> None:
    """What a full stdout did not take would be written again at the end, with another exit status."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = io.StringIO()


def fail(message: str, command: str = "forecast") -> NoReturn:
    """Say it in one line and end."""
    # file names and cell contents may hold anything: one line, nothing that a terminal would obey
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
    process = "" if share().first else f" (process {share().rank})"
    click.echo(f"gatedcells {command}{process}: {line}", err=True)
    raise SystemExit(USER_ERROR)
