"""The equations of a step: with their values as text, and recomputed line by line as a check."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells_kernels.tape import GRU_GATES, LSTM_GATES

if TYPE_CHECKING:
    from gatedcells.trace.record import DirectionTrace

GATES = {"GRU": GRU_GATES, "LSTM": LSTM_GATES}
LETTERS = {
    "GRU": {"reset": "r", "update": "z", "candidate": "n"},
    "LSTM": {"input": "i", "forget": "f", "candidate": "g", "output": "o"},
}


def check_plain(d: DirectionTrace, what: str) -> None:
    """Raise RuntimeError unless the cell follows its plain equations, which ``what`` is about."""
    if d.beyond:
        raise RuntimeError(f"{what} needs a plain {d.kind}, got one with {d.beyond}")


def check_index(name: str, index: int, size: int) -> None:
    """Raise IndexError unless there is such a step, unit or row."""
    if size == 0:
        raise IndexError(f"there is no {name} {index}: the trace is of an empty batch")
    if not -size <= index < size:
        raise IndexError(f"{name} must lie in 0..{size - 1}, got {index}")


def explain(d: DirectionTrace, t: int, unit: int, row: int) -> str:
    """See `Trace.explain`."""
    check_plain(d, "explain")
    T, B, H = len(d), d.x.shape[1], d["candidate"].shape[-1]
    for name, index, size in (("t", t, T), ("unit", unit, H), ("row", row, B)):
        check_index(name, index, size)
    t, unit, row = t % T, unit % H, row % B
    if not bool(d.takes_part()[t, row]):
        length = 0 if d.lengths is None else int(d.lengths[row])
        return f"row {row} has {length} steps: at t = {t} nothing is computed, and its state stays as it is"
    lines = [_headline(d, t, unit, row)]
    for number, gate in enumerate(GATES[d.kind]):
        lines.append(_gate(d, gate, number, t, unit, row))
    lines += _state(d, t, unit, row)
    return "\n".join(lines)


def _headline(d: DirectionTrace, t: int, unit: int, row: int) -> str:
    convention = "" if d.kind == "LSTM" or d.reset_after else ", reset gate before the product"
    forgotten = d.forgets is not None and bool(d.forgets[t, row])
    said = f"{d.kind}{convention}, t = {t}, unit {unit}, row {row}"
    return f"{said}; a new sequence begins, the state before is zero" if forgotten else said


def _number(value: Tensor | float) -> str:
    return f"{float(value):.4f}"


def _sum(terms: list[float]) -> str:
    """``0.31 + 0.12 - 0.40``."""
    first, *others = terms
    return _number(first) + "".join(f" {'-' if v < 0 else '+'} {_number(abs(v))}" for v in others)


def _halves(d: DirectionTrace, gate: str, number: int, t: int, unit: int, row: int) -> list[list[float]]:
    """A pre-activation's input half and state half, each as product and, if there is one, bias."""
    at = number * d["candidate"].shape[-1] + unit
    halves: list[list[float]] = []
    for half, bias in (("x", "bias_ih"), ("h", "bias_hh")):
        total = float(d[f"{half}_{gate}"].detach()[t, row, unit])
        added = float(d.weights[bias].detach()[at]) if bias in d.weights else None
        halves.append([total] if added is None else [total - added, added])
    return halves


def _gate(d: DirectionTrace, gate: str, number: int, t: int, unit: int, row: int) -> str:
    letter = LETTERS[d.kind][gate]
    function = "tanh" if gate == "candidate" else "sigmoid"
    x_half, h_half = _halves(d, gate, number, t, unit, row)
    if d.kind == "GRU" and gate == "candidate" and d.reset_after:
        reset = _number(d["reset"].detach()[t, row, unit])
        inside = f"{_sum(x_half)} + {reset} * ({_sum(h_half)})"
        form = "W x + b + r * (U h + b)" if len(x_half) == 2 else "W x + r * (U h)"
    else:
        inside = _sum(x_half + h_half)
        before = d.kind == "GRU" and gate == "candidate"
        state = "U (r * h)" if before else "U h"
        form = f"W x + b + {state} + b" if len(x_half) == 2 else f"W x + {state}"
    value = d[gate].detach()[t, row, unit]
    said = f"{letter}[{unit}] = {function}({form}) = {function}({inside}) = {_number(value)}"
    return f"{said}  ({gate})"


def _state(d: DirectionTrace, t: int, unit: int, row: int) -> list[str]:
    def at(name: str) -> float:
        return float(d[name].detach()[t, row, unit])

    if d.kind == "GRU":
        r, z, n, h = at("reset"), at("update"), at("candidate"), at("found_hidden")
        new = f"(1 - {_number(z)}) * {_number(n)} + {_number(z)} * {_number(h)}"
        return [
            f"h'[{unit}] = (1 - z) * n + z * h = {new} = {_number(at('hidden'))}",
            f"z = {z:.2f}: keeps {100 * z:.0f}% of h = {_number(h)} and takes {100 * (1 - z):.0f}% of"
            f" n = {_number(n)}; r = {r:.2f}: the candidate sees {100 * r:.0f}% of the past",
        ]
    i, f, g, o, c = (at(name) for name in ("input", "forget", "candidate", "output", "found_cell"))
    cell = f"{_number(f)} * {_number(c)} + {_number(i)} * {_number(g)}"
    shown = f"{_number(o)} * {_number(at('tanh_cell'))}"
    lines = [
        f"c'[{unit}] = f * c + i * g = {cell} = {_number(at('cell'))}",
        f"m[{unit}] = o * tanh(c') = {shown} = {_number(at('shown'))}",
    ]
    if "weight_hr" in d.weights:
        lines.append(f"h' = V m, {d['hidden'].shape[-1]} numbers from all {d['shown'].shape[-1]} of m")
    else:
        lines.append(f"h'[{unit}] = m[{unit}] = {_number(at('hidden'))}")
    return [
        *lines,
        f"f = {f:.2f}: keeps {100 * f:.0f}% of c = {_number(c)}; i = {i:.2f}: writes {100 * i:.0f}% of g"
        f" = {_number(g)}; o = {o:.2f}: shows {100 * o:.0f}% of tanh(c')",
    ]


# A line of a step: its name and how it follows from the lines before, all in float64.
Line = tuple[str, Callable[[Callable[[str], Tensor]], Tensor]]


def _lines(d: DirectionTrace) -> list[Line]:
    w = {name: weight.detach().double() for name, weight in d.weights.items()}
    H = w["weight_hh"].shape[0] // len(GATES[d.kind])

    def half(letter: str, number: int, of: str) -> Callable[[Callable[[str], Tensor]], Tensor]:
        rows = slice(number * H, (number + 1) * H)
        matrix, bias = ("weight_ih", "bias_ih") if letter == "x" else ("weight_hh", "bias_hh")
        added = w[bias][rows] if bias in w else None
        return lambda v: linear(v(of), w[matrix][rows], added)

    lines: list[Line] = []
    for number, gate in enumerate(GATES[d.kind]):
        lines.append((f"x_{gate}", half("x", number, "x")))
        if d.kind == "GRU" and gate == "candidate" and not d.reset_after:
            continue
        lines.append((f"h_{gate}", half("h", number, "found_hidden")))
    if d.kind == "GRU":
        lines += [
            ("reset", lambda v: torch.sigmoid(v("x_reset") + v("h_reset"))),
            ("update", lambda v: torch.sigmoid(v("x_update") + v("h_update"))),
        ]
        if d.reset_after:
            candidate: Line = (
                "candidate", lambda v: torch.tanh(v("x_candidate") + v("reset") * v("h_candidate"))
            )  # fmt: skip
            lines.append(candidate)
        else:
            rows = slice(2 * H, 3 * H)
            added = w["bias_hh"][rows] if "bias_hh" in w else None
            lines += [
                (
                    "h_candidate",
                    lambda v: linear(v("reset") * v("found_hidden"), w["weight_hh"][rows], added),
                ),
                ("candidate", lambda v: torch.tanh(v("x_candidate") + v("h_candidate"))),
            ]
        new = lambda v: (1 - v("update")) * v("candidate") + v("update") * v("found_hidden")  # noqa: E731
        return [*lines, ("hidden", new)]
    for gate in ("input", "forget", "output"):
        lines.append((gate, lambda v, gate=gate: torch.sigmoid(v(f"x_{gate}") + v(f"h_{gate}"))))
    return [
        *lines,
        ("candidate", lambda v: torch.tanh(v("x_candidate") + v("h_candidate"))),
        ("cell", lambda v: v("forget") * v("found_cell") + v("input") * v("candidate")),
        ("tanh_cell", lambda v: torch.tanh(v("cell"))),
        ("shown", lambda v: v("output") * v("tanh_cell")),
        ("hidden", lambda v: linear(v("shown"), w["weight_hr"]) if "weight_hr" in w else v("shown")),
    ]


def check(d: DirectionTrace) -> dict[str, float]:
    """See `Trace.check`; one direction."""
    check_plain(d, "check")
    part = d.takes_part()[:, :, None]
    kept: dict[str, Tensor] = {"x": d.x.detach().double()}

    def value(name: str) -> Tensor:
        if name not in kept:
            kept[name] = d[name].detach().double()
        return kept[name]

    # a sum of n products in a dtype may be off by n roundings of what it adds up
    longest = max(d.x.shape[-1], d.weights["weight_hh"].shape[-1]) + 2
    eps = torch.finfo(d.x.dtype).eps
    worst: dict[str, float] = {}
    for name, derive in _lines(d):
        exact = derive(value)
        found = value(name)
        # not finite on both sides alike, it follows as well
        follows = (found == exact) | (found.isnan() & exact.isnan()) | ~part
        error = (found - exact).abs().masked_fill(follows, 0)
        worst[name] = float(error.max()) if error.numel() else 0.0
        allowed = longest * eps * _size(d, name, value)
        if not bool((follows | (error <= allowed)).all()):
            raise AssertionError(f"{name} does not follow from the lines before: off by {worst[name]:.3e}")
    return worst


def _size(d: DirectionTrace, name: str, value: Callable[[str], Tensor]) -> Tensor | float:
    """How large the terms are whose sum a line is, for its rounding errors."""
    half, _, gate = name.partition("_")
    if half in ("x", "h") and gate in GATES[d.kind]:
        matrix, bias, read = (
            ("weight_ih", "bias_ih", "x") if half == "x" else ("weight_hh", "bias_hh", "found_hidden")
        )
        H = d.weights["weight_hh"].shape[0] // len(GATES[d.kind])
        number = GATES[d.kind].index(gate)
        rows = slice(number * H, (number + 1) * H)
        added = d.weights[bias][rows].detach().double().abs() if bias in d.weights else None
        return linear(value(read).abs(), d.weights[matrix][rows].detach().double().abs(), added)
    if name == "hidden" and "weight_hr" in d.weights:
        return linear(value("shown").abs(), d.weights["weight_hr"].detach().double().abs())
    if name in ("reset", "update", "input", "forget", "output"):
        return 1.0 + (value(f"x_{name}") + value(f"h_{name}")).abs()
    if name == "candidate":
        return 1.0 + value("x_candidate").abs() + value("h_candidate").abs()
    if name == "cell":
        return value("found_cell").abs() + 1.0
    return 1.0 + (value("found_hidden").abs() if name == "hidden" and d.kind == "GRU" else 0.0)
