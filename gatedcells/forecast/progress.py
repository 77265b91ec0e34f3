"""What long work shows, and how it is stopped."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gatedcells.forecast import training


def progress_bar(console: Console, training: bool = False) -> Progress:
    """A bar that goes when it is done; with ``training``, epoch and loss beside it."""
    columns: list[Any] = [
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    ]
    if training:
        columns += [TextColumn("epoch {task.fields[epoch]:.2f}  loss {task.fields[loss]:.5f}")]
    columns += [TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn()]
    watched = console.is_terminal
    # at most ten redraws a second, none where nobody watches: there rich before 14.3 leaves a blank line
    return Progress(
        *columns, console=console if watched else Console(quiet=True), refresh_per_second=10, transient=True,
        disable=not watched,
    )  # fmt: skip


@contextmanager
def reading(console: Console, frame: Any) -> Generator[None]:
    """Within the block a bar of unknown length: a large file is read for long."""
    with progress_bar(console) as progress:
        name = Path(frame).name if isinstance(frame, (str, Path)) else "the frame"
        progress.add_task(f"reading {name}", total=None)
        yield


@contextmanager
def stop_on_interrupt() -> Generator[threading.Event]:
    """Within the block the first Ctrl-C, or the first request to end (as of a scheduler, or of torchrun when
    another process is gone), asks for a stop after the step under way; the second one does not wait.

    Raises:
        gatedcells.forecast.training.Interrupted: as the block does, with the number of the signal.
    """
    stop, asked = threading.Event(), list[signal.Signals]()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: Any) -> None:
        stop.set()
        asked.append(signal.Signals(number))
        signal.signal(number, before[number])

    before = {int(number): signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except training.Interrupted:
        raise training.Interrupted(*asked[:1]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_shown(
    task: training.Task, name: str, console: Console, *, seed: int, checkpoint: Path | None,
    device: str = "cpu",
) -> tuple[Any, training.Progress]:  # fmt: skip
    """`gatedcells.forecast.training.train` with a bar, stopped by Ctrl-C.

    Raises:
        gatedcells.forecast.training.Interrupted, ForecastError: as it does.
    """
    with progress_bar(console, training=True) as progress, stop_on_interrupt() as stop:
        bar = progress.add_task(name, total=task.steps, epoch=0.0, loss=float("nan"))

        def show(now: training.Progress) -> None:
            progress.update(bar, completed=now.step, epoch=now.epoch, loss=now.loss)

        return training.train(
            task, seed=seed, checkpoint=checkpoint, on_step=show, should_stop=stop.is_set, device=device
        )
