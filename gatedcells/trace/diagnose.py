"""Which convention a GRU or LSTM step function follows, and where it first differs from torch's.

GRUs are defined in more than one way (`gatedcells.reference.gru`), and implementations usually differ in
these points: the reset gate before or after the product, z and 1 - z swapped, a bias left out, gates in
another order. `diagnose` compares a step function with every combination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells.reference import gru, lstm
from gatedcells.trace.equations import GATES

Weights = dict[str, Tensor]
ROWS = 7  # of the random input that both sides are asked


class Diagnosis(NamedTuple):
    """The result of `diagnose`; ``print`` it for a summary.

    Attributes:
        matches: each convention that the step function agrees with, as text; empty if there is none.
        agrees_with_torch: whether torch's convention is among them.
        error: the largest deviation from the nearest convention.
        nearest: that convention.
        departs_at: the first intermediate value that differs from torch's, None if the function agrees.
    """

    matches: tuple[str, ...]
    agrees_with_torch: bool
    error: float
    nearest: str
    departs_at: str | None

    def __str__(self) -> str:
        """A one-line summary."""
        if self.agrees_with_torch:
            return f"this is torch's convention: {self.matches[0]}"
        if self.matches:
            found = " or ".join(self.matches)
            return f"this is not torch's convention, but: {found}; first difference: {self.departs_at}"
        return (
            f"no known convention gives these numbers; the nearest, off by {self.error:.2e}, is:"
            f" {self.nearest}"
        )


class _Convention(NamedTuple):
    order: tuple[str, ...]
    reset_after: bool
    keeps_with_update: bool  # h' = (1 - z) n + z h; else z n + (1 - z) h
    bias_ih: bool
    bias_hh: bool

    def words(self, kind: str) -> str:
        said = [f"gates in the order {', '.join(self.order)}"]
        if kind == "GRU":
            said.append(f"reset gate {'after' if self.reset_after else 'before'} the matrix product")
            form = "(1 - z) * n + z * h" if self.keeps_with_update else "z * n + (1 - z) * h"
            said.append(f"h' = {form}")
        missing = [n for n, there in (("bias_ih", self.bias_ih), ("bias_hh", self.bias_hh)) if not there]
        said += [f"{name} left out" for name in missing]
        return "; ".join(said)


def diagnose(
    step: Callable[..., Any],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    tolerance: float | None = None,
) -> Diagnosis:
    """Find the convention that a GRU or LSTM step function follows.

    Args:
        step: ``h' = step(x, h)`` for a GRU, ``h', c' = step(x, h, c)`` for an LSTM; ``x`` is ``[B, I]``,
            the states are ``[B, H]``. The function contains the weights below.
        weight_ih, weight_hh, bias_ih, bias_hh: the function's weights in torch's layout, ``[3H, I]`` and so
            on for a GRU, ``[4H, I]`` for an LSTM; their shapes decide which of the two it is.
        tolerance: the largest deviation that counts as agreement; None: what rounding explains in the
            weights' dtype.

    Returns:
        a `Diagnosis`.

    Raises:
        ValueError: the weights fit neither cell, or ``step`` returns states of the wrong shape.
    """
    H = weight_hh.shape[-1]
    kinds = {3 * H: "GRU", 4 * H: "LSTM"}
    if weight_hh.shape[0] not in kinds or weight_ih.shape[0] != weight_hh.shape[0]:
        raise ValueError(
            f"weights must be [3H, I] and [3H, H] (GRU) or [4H, I] and [4H, H] (LSTM),"
            f" got {list(weight_ih.shape)} and {list(weight_hh.shape)}"
        )
    kind = kinds[weight_hh.shape[0]]
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(ROWS, weight_ih.shape[1], generator=generator, device="cpu").to(weight_ih)
    states = [
        torch.randn(ROWS, H, generator=generator, device="cpu").to(weight_hh)
        for _ in range(2 if kind == "LSTM" else 1)
    ]
    with torch.no_grad():
        found = step(x, *states)
        found = (found,) if isinstance(found, Tensor) else tuple(found)
        if [part.shape for part in found] != [state.shape for state in states]:
            shapes = [list(part.shape) for part in found]
            raise ValueError(f"step must return {len(states)} state(s) of {[ROWS, H]}, got {shapes}")
        given = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
        weights = {name: value.detach().double() for name, value in given.items() if value is not None}
        wide = [part.double() for part in (x, *states)]
        if tolerance is None:
            scale = float(sum(weight.abs().sum(-1).max() for weight in weights.values() if weight.dim() == 2))
            tolerance = 8 * torch.finfo(weight_hh.dtype).eps * max(1.0, scale)
        errors = [
            (max(float((a.double() - b).abs().max()) for a, b in zip(found, exact, strict=True)), convention)
            for convention, exact in _all(kind, wide, weights)
        ]
    torchs = _Convention(GATES[kind], True, True, "bias_ih" in weights, "bias_hh" in weights)
    matches = [convention for error, convention in errors if error <= tolerance]
    error, nearest = min(errors, key=lambda pair: pair[0])
    agrees = torchs in matches
    closest = torchs if agrees else (matches or [nearest])[0]
    return Diagnosis(
        tuple(c.words(kind) for c in ([torchs] if agrees else matches)),
        agrees,
        error,
        nearest.words(kind),
        None if agrees else _departs_at(kind, closest, torchs, wide, weights),
    )


def _all(kind: str, wide: list[Tensor], weights: Weights) -> Iterator[tuple[_Convention, tuple[Tensor, ...]]]:
    """Every convention with its new states."""
    biases = [(b, c) for b in (True, False) for c in (True, False)]
    there = ("bias_ih" in weights, "bias_hh" in weights)
    for order in permutations(GATES[kind]):
        for after in (True, False) if kind == "GRU" else (True,):
            for keeps in (True, False) if kind == "GRU" else (True,):
                for b, c in biases:
                    if b <= there[0] and c <= there[1]:
                        convention = _Convention(order, after, keeps, b, c)
                        now = _step(kind, convention, wide, weights)
                        yield convention, (now.hidden,) if kind == "GRU" else (now.hidden, now.cell)


def _step(kind: str, convention: _Convention, wide: list[Tensor], weights: Weights) -> Any:
    """The reference's step on the weights as the convention reads them."""
    H = weights["weight_hh"].shape[-1]

    def turned(name: str, there: bool = True) -> Tensor | None:
        if name not in weights or not there:
            return None
        blocks = dict(zip(convention.order, weights[name].split(H), strict=True))
        return torch.cat([blocks[gate] for gate in GATES[kind]])

    x, *states = wide
    w_ih, w_hh = turned("weight_ih"), turned("weight_hh")
    assert w_ih is not None
    assert w_hh is not None
    projection = torch.nn.functional.linear(x, w_ih, turned("bias_ih", convention.bias_ih))
    bias = turned("bias_hh", convention.bias_hh)
    if kind == "LSTM":
        return lstm.step(projection, states[0], states[1], w_hh, bias)
    now = gru.step(projection, states[0], w_hh, bias, reset_after=convention.reset_after)
    if convention.keeps_with_update:
        return now
    return now._replace(hidden=torch.lerp(states[0], now.candidate, now.update))


def _departs_at(
    kind: str, found: _Convention, torchs: _Convention, wide: list[Tensor], weights: Weights
) -> str:
    ours, theirs = (_step(kind, convention, wide, weights) for convention in (found, torchs))
    for name in ours._fields:
        if not torch.allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-12):
            return name
    return "nothing: these weights do not tell the two apart"
