"""One step on one screen, as text; the same for the terminal program and for ``--plain``."""

from __future__ import annotations

from typing import NamedTuple

from rich.text import Text
from torch import Tensor

from gatedcells.step.session import Session
from gatedcells.trace.equations import GATES, LETTERS

_BARS = "▁▂▃▄▅▆▇█"
_DIGITS = "01234567"  # where the terminal has no bars
_SIGNED = ("candidate", "hidden", "cell", "tanh_cell", "shown")
_MOST_UNITS = 32
_MOST_STEPS = 48


class Hidden(NamedTuple):
    """What a quiz hides: the line asked for and all after it."""

    name: str


def lines_of(session: Session) -> list[tuple[str, str]]:
    """The step's lines: what each computes, and its equation with values; the last is ("", a sentence)."""
    text = session.trace.explain(
        session.t, session.layer, session.unit, direction=session.direction, row=session.row
    ).split("\n")
    kind = session.now.kind
    names = [*GATES[kind], *(("hidden",) if kind == "GRU" else ("cell", "shown", "hidden"))]
    if len(text) == 1:  # this row has ended
        return [("", text[0])]
    return [*zip(names, text[1:-1], strict=True), ("", text[-1])]


def ended(session: Session) -> bool:
    """Whether the row has no step t."""
    return not bool(session.now.takes_part()[session.t, session.row])


def draw(
    session: Session,
    *,
    plain: bool = False,
    hidden: Hidden | None = None,
    backward: bool = False,
    width: int | None = None,
) -> Text:
    """The screen, but for its `foot`.

    Args:
        session: what is shown.
        plain: ASCII only.
        hidden: what a quiz hides.
        backward: the gradients too.
        width: of the terminal, whose lines bars may not be longer than; None where lines may be long.
    """
    bars = _DIGITS if plain else _BARS
    text = _head(session)
    names = [name for name, _ in lines_of(session) if name]
    covered = (
        set(names[names.index(hidden.name) :]) if hidden is not None and hidden.name in names else set[str]()
    )
    _strip(session, text, bars, covered, width)
    if not ended(session):
        _vectors(session, text, bars, covered, width)
    _equations(session, text, covered, hidden)
    if backward and not ended(session):
        _gradients(session, text)
    return Text(_ascii(text.plain)) if plain else text


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _head(session: Session) -> Text:
    d, scene = session.now, session.scene
    text = Text()
    convention = (
        "" if d.kind == "LSTM" else f", reset gate {'after' if d.reset_after else 'before'} the product"
    )
    text.append(f"{scene.name}: {d.kind}{convention}\n", "bold")
    text.append(f"{scene.story}\n\n", "dim")
    place = f"t = {session.t} of 0 to {len(d) - 1}"
    if session.trace.layers > 1:
        place += f", layer {session.layer} (l)"
    if session.trace.directions > 1:
        place += f", {'reverse' if d.reverse else 'forward'} (d)"
    if session.x.shape[1] > 1:
        place += f", row {session.row} (n)"
    text.append(f"{place}, unit {session.unit} of 0 to {session.network.hidden_size - 1}", "bold")
    word = scene.times[session.t]
    text.append(f"   {word}\n" if word else "\n", "italic")
    values = session.x[session.t, session.row].tolist()
    read = [
        f"{name} = {value:+.4g}"
        for name, value in zip(scene.inputs, values, strict=True)
        if value or len(values) < 9
    ]
    shown = ", ".join(read[:12]) + (", ..." if len(read) > 12 else "")
    text.append(f"input: {shown}\n" if read else "input: zeros\n")
    return text


def _level(value: float, bars: str) -> str:
    if value != value:
        return "?"
    return bars[min(7, max(0, round(value * 7)))]


def _window(at: int, size: int, most: int) -> range:
    """What is shown of ``size``: at most ``most``, ``at`` among them."""
    first = max(0, min(at - most // 2, size - most))
    return range(first, min(first + most, size))


def _label(session: Session, name: str) -> str:
    """The name, with its unit where that is another."""
    unit = session.unit_of(name)
    return name if unit == session.unit else f"{name}[{unit}]"


def _strip(session: Session, text: Text, bars: str, covered: set[str], width: int | None) -> None:
    """The unit's gates over time, the present one in brackets."""
    d = session.now
    names = [name for name in (*GATES[d.kind], "cell", "hidden") if name in d.names]
    fitting = _MOST_STEPS if width is None else min(_MOST_STEPS, max(1, (width - 13) // 2))
    part = d.takes_part()[:, session.row]
    text.append("\n")
    for name in names:
        values = d[name][:, session.row, session.unit_of(name)]
        most = max(1.0, float(values.abs().max())) if name in _SIGNED else 1.0
        text.append(f"{_label(session, name):<11}")
        for t in _window(session.t, len(d), fitting):
            value = float(values[t])
            here = t == session.t
            sign = ("-" if value < 0 else "+") if name in _SIGNED else " "
            shown = (
                "  "
                if not bool(part[t])
                else "?"
                if here and name in covered
                else sign + _level(abs(value) / most, bars)
            )
            style = "" if sign == " " else "medium_purple" if value < 0 else "dark_orange"
            if here and name in covered:
                style = ""
            text.append(f"[{shown}]" if here else f"{shown}", "bold" if here else style)
        text.append("\n")


def _vectors(session: Session, text: Text, bars: str, covered: set[str], width: int | None) -> None:
    """Every intermediate of the step: the unit's number, and all units as bars."""
    d, t, row = session.now, session.t, session.row
    states = ("found_hidden",) if d.kind == "GRU" else ("found_hidden", "found_cell")
    fitting = _MOST_UNITS if width is None else min(_MOST_UNITS, max(1, (width - 31) // 4))
    units = _window(session.unit, session.network.hidden_size, fitting)
    which = "all units" if len(units) == session.network.hidden_size else f"units {units[0]} to {units[-1]}"
    text.append(f"\n{'':<15}{f'unit {session.unit}':>9}   {which}\n", "dim")
    for name in (*states, *d.names):
        values: Tensor = d[name][t, row]
        unit = session.unit_of(name)
        gate = name.removeprefix("x_").removeprefix("h_")
        letter = LETTERS[d.kind].get(name, "")
        text.append(f"{f'{_label(session, name):<14}{letter}':<16}")
        if name in covered or (name in ("tanh_cell", "shown", "hidden", "cell") and covered):
            text.append("       ?\n")
            continue
        signed = name in _SIGNED or name.startswith(("x_", "h_", "found_"))
        text.append(f"{float(values[unit]):>8.4f}   ", "bold" if gate == name else "")
        most = max(1.0, float(values.abs().max())) if signed else 1.0
        shown_units = _window(unit, len(values), fitting)
        for number in shown_units:
            value = float(values[number])
            sign = ("-" if value < 0 else "+") if signed else " "
            style = "" if sign == " " else "medium_purple" if value < 0 else "dark_orange"
            shown = sign + _level(abs(value) / most, bars)
            text.append(f"[{shown}]" if number == unit else f" {shown} ", "bold" if number == unit else style)
        text.append(" ...\n" if len(values) > len(shown_units) else "\n")


def _equations(session: Session, text: Text, covered: set[str], hidden: Hidden | None) -> None:
    text.append("\n")
    for number, (name, line) in enumerate(lines_of(session)):
        if not name and covered:
            continue
        if hidden is not None and name == hidden.name:
            line = line.rsplit(" = ", 1)[0] + " = ?"
        elif name in covered:
            continue
        pointed = number == session.line and name
        text.append(
            f"{'> ' if pointed else '  '}{line}\n",
            "bold reverse" if pointed else "italic" if not name else "",
        )


def _gradients(session: Session, text: Text) -> None:
    gradients, straight, reaches = session.gradients()
    kind = session.now.kind
    state, gate = ("h", "z") if kind == "GRU" else ("c", "f")
    text.append(f"\nbackward, L = h[{session.unit_of('hidden')}] after the last step:\n", "bold")
    for name, value in gradients.items():
        text.append(f"  dL/d {_label(session, name):<12}{value:>11.3e}\n")
    text.append(
        f"  {gate} * dL/d{state}' = {straight:.3e} reaches the {state} before directly, bypassing all weights"
    )
    text.append("\n" if reaches != reaches else f"; in total, {reaches:.3e} reaches it\n")


def foot(session: Session) -> Text:
    """What was changed, and how far all of it is from torch's."""
    kind, text = session.now.kind, Text()
    if session.edits:
        text.append(f"changed: {'; '.join(session.edits[-3:])}\n")
    if session.deviation is not None:
        text.append(f"max |gatedcells - nn.{kind}| = {session.deviation:.1e}", "bold")
    else:
        text.append("nn.GRU has no reset gate before the product", "bold")
    if session.difference is not None:
        text.append(f"   the other convention changes an output by up to {session.difference:.1e}")
    return text
