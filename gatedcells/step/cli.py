"""``gatedcells step``: the gates of a cell, one step after the other."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

PRESETS = ("latch", "reset-on-marker", "counter", "random")


@click.command(context_settings={"max_content_width": 110})
@click.argument("preset", type=click.Choice(PRESETS), required=False)
@click.option("--cell", type=click.Choice(["gru", "lstm"]), help="Cell of preset random, or of a run. [gru]")
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE",
    help="Your own GRU or LSTM: the state_dict of a torch or gatedcells module, as safetensors.",
)  # fmt: skip
@click.option(
    "--input", "given", type=click.Path(path_type=Path), metavar="FILE",
    help="With --weights: a CSV file, one line of numbers per step. [random numbers]",
)  # fmt: skip
@click.option(
    "--reset-before", is_flag=True, help="With --weights: a GRU whose reset gate comes before the product."
)
@click.option(
    "--run", type=click.Path(path_type=Path), metavar="RUN",
    help="A trained forecaster of `gatedcells forecast`: what its gates do over a day.",
)  # fmt: skip
@click.option(
    "--hour", metavar="STAMP", help="With --run: the day's last hour, as in the file. [the file's last]"
)
@click.option("--region", help="With --run: whose load. [the first]")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FILE", help="With --run: the CSV file. [the run's]"
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@click.option("--t", type=int, default=0, show_default=True, help="The step; negative: from the end.")
@click.option("--unit", type=click.IntRange(0), default=0, show_default=True, help="The hidden unit.")
@click.option("--layer", type=click.IntRange(0), default=0, show_default=True)
@click.option("--direction", type=click.IntRange(0, 1), default=0, show_default=True)
@click.option(
    "--plain", is_flag=True, help="Print the step and exit; the default without a capable terminal."
)
@click.option("--backward", is_flag=True, help="With --plain: also print the gradients.")
@click.option("--json", "as_json", is_flag=True, help="Print the step as JSON and exit.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write an HTML page to step through, and exit.",
)
def step(**options: Any) -> None:
    """Step through a GRU or an LSTM: inputs, pre-activations, gates, candidate and state as numbers and bars,
    each equation with its values, and how far all of it is from torch.nn.

    \b
    gatedcells step                            a review whose last lines matter: the reset gate
    gatedcells step latch                      the update gate; counter: an LSTM's cell state
    gatedcells step --weights w.safetensors    your own weights
    gatedcells step --run RUN                  a trained forecaster over a day of load
    gatedcells step latch --t 2 --plain        one step as text; --json for programs, --html for a page
    """
    from gatedcells.forecast.console import fail
    from gatedcells.forecast.errors import ForecastError
    from gatedcells.step.errors import StepError

    try:
        _run(options)
    except (StepError, ForecastError) as error:
        fail(str(error), "step")


def _run(options: dict[str, Any]) -> None:
    from gatedcells.forecast.console import fail
    from gatedcells.step.session import Session

    session = Session(_scene(options))
    _place(session, options)
    if options["html"] is not None:
        try:
            session.trace.to_html(options["html"], title=f"Step by step: {session.scene.name}")
        except OSError as error:
            fail(f"{options['html']}: cannot be written ({error})", "step")
        click.echo(f"Written: {options['html']}")
    elif options["as_json"]:
        click.echo(json.dumps(as_json(session), allow_nan=False))
    elif options["plain"] or not _walkable():
        _print(session, options["backward"])
    else:
        from gatedcells.step.app import StepApp

        StepApp(session, plain=not _shows("▁█")).run()


def _scene(options: dict[str, Any]) -> Any:
    from gatedcells.step import scenes
    from gatedcells.step.errors import StepError

    sources = [name for name in ("preset", "weights", "run") if options[name] is not None]
    if len(sources) > 1:
        raise StepError("choose only one of a preset, --weights and --run")
    source = sources[0] if sources else "preset"
    for owner, names in {"weights": ("given", "reset_before"), "run": ("hour", "region", "data")}.items():
        for name in names:
            if source != owner and options[name]:
                shown = {"given": "input"}.get(name, name.replace("_", "-"))
                raise StepError(f"--{shown} goes with --{owner}")
    preset = options["preset"] or "reset-on-marker"
    if options["cell"] and source != "run" and (source != "preset" or preset != "random"):
        raise StepError("--cell goes with the preset random and with --run")
    if source == "weights":
        return scenes.from_files(
            options["weights"],
            options["given"],
            reset_after=not options["reset_before"],
            seed=options["seed"],
        )
    if source == "run":
        from gatedcells.step.day import day_of_load

        return day_of_load(
            options["run"],
            hour=options["hour"],
            region=options["region"],
            cell=options["cell"],
            data=options["data"],
        )
    if preset == "random":
        return scenes.drawn(options["cell"] or "gru", seed=options["seed"])
    return scenes.PRESETS[preset]()


def _place(session: Any, options: dict[str, Any]) -> None:
    from gatedcells.step.errors import StepError

    sizes = {
        "layer": session.trace.layers, "direction": session.trace.directions,
        "unit": session.network.hidden_size, "t": len(session.now),
    }  # fmt: skip
    for name, size in sizes.items():
        least = -size if name == "t" else 0
        if not least <= options[name] < size:
            raise StepError(f"--{name} must lie in {least}..{size - 1}, got {options[name]}")
    session.go(**{name: options[name] % size for name, size in sizes.items()})


def _walkable() -> bool:
    """Whether there is a terminal whose cursor can be moved."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "").lower() != "dumb"


def _shows(characters: str) -> bool:
    """Whether standard output can write these."""
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(session: Any, backward: bool) -> None:
    from rich.console import Console

    from gatedcells.step import screen

    plain = not _shows("▁█")
    text = screen.draw(session, plain=plain, backward=backward)
    text.append("\n")
    text.append_text(screen.foot(session))
    Console(markup=False, highlight=False, emoji=False).print(text, soft_wrap=True)


def as_json(session: Any) -> dict[str, Any]:
    """The step that is shown, for programs; numbers that are not finite as null."""
    from gatedcells.step import screen

    d, t, row = session.now, session.t, session.row
    lines = screen.lines_of(session)
    there = not screen.ended(session)
    states = ("found_hidden",) if d.kind == "GRU" else ("found_hidden", "found_cell")
    names = (*states, *d.names) if there else ()
    return {
        "scene": session.scene.name,
        "kind": d.kind,
        "reset_after": d.reset_after,
        "t": t, "layer": session.layer, "direction": session.direction, "row": row, "unit": session.unit,
        "reads": session.scene.times[t],
        "input": dict(zip(session.scene.inputs, _finite(session.x[t, row].tolist()), strict=True)),
        "values": {name: _finite(d[name][t, row].tolist()) for name in names},
        "equations": [line for name, line in lines if name],
        "sentence": lines[-1][1],
        "deviation_from_torch": _finite([session.deviation])[0],
        "difference_of_conventions": _finite([session.difference])[0],
    }  # fmt: skip


def _finite(values: Sequence[float | None]) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]
