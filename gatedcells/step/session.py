"""Where the reader is and what was changed; everything shown is computed from here."""

from __future__ import annotations

import copy
import re
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import gatedcells
from gatedcells.step.errors import StepError
from gatedcells.step.scenes import Layer, Scene
from gatedcells.trace import DirectionTrace, Trace

_EDIT = re.compile(r"^\s*(\w+)((?:[\s,.\[\]]+-?\d+)+)(?:[\s\]]*=\s*|[\s\]]+)([-+0-9.eE]+)\s*$")


class Session:
    """A walk through a `Scene`.

    Attributes:
        scene: what is walked through.
        t, layer, direction, row, unit: where.
        line: which line of the step is pointed at, -1 for none.
        edits: what was changed, in words.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.t = self.layer = self.direction = self.row = self.unit = 0
        self.line = -1
        self.edits: list[str] = []
        self._network: Layer = copy.deepcopy(scene.layer)
        self._x = scene.x.clone()

    # --- what there is ------------------------------------------------------------------------------------

    @property
    def network(self) -> Layer:
        """The layer as changed."""
        return self._network

    @property
    def x(self) -> Tensor:
        """The input as changed, ``[T, B, I]``."""
        return self._x

    @cached_property
    def trace(self) -> Trace:
        """Of the layer and input as changed."""
        with torch.no_grad():
            return self._network.trace(self._by_layout(self._x), self.scene.hx)

    @cached_property
    def other(self) -> Trace | None:
        """The same with the GRU's other convention; None for an LSTM."""
        if not isinstance(self._network, gatedcells.GRU):
            return None
        other = copy.deepcopy(self._network)
        other.reset_after = not other.reset_after
        with torch.no_grad():
            return other.trace(self._by_layout(self._x), self.scene.hx)

    @property
    def now(self) -> DirectionTrace:
        """The layer and direction looked at."""
        return self.trace[self.layer, self.direction]

    @cached_property
    def deviation(self) -> float | None:
        """``max |ours - torch.nn's|`` over outputs and last states; None where torch has no such layer."""
        ours = self._network
        if isinstance(ours, gatedcells.GRU) and not ours.reset_after:
            return None
        kind = nn.GRU if isinstance(ours, gatedcells.GRU) else nn.LSTM
        options: dict[str, Any] = {} if kind is nn.GRU else {"proj_size": ours.proj_size}
        parameter = next(ours.parameters())
        theirs = kind(
            ours.input_size, ours.hidden_size, ours.num_layers, ours.bias, ours.batch_first,
            bidirectional=ours.bidirectional, dtype=parameter.dtype, device=parameter.device, **options,
        )  # fmt: skip
        theirs.load_state_dict(ours.state_dict())
        with torch.no_grad():
            output, last = theirs.eval()(self._by_layout(self._x), self.scene.hx)
        pairs = [(self.trace.output, output)]
        if kind is nn.GRU:
            pairs.append((self.trace.last, last))
        else:
            pairs += list(zip(self.trace.last, last, strict=True))
        return max(float((a - b).abs().max()) for a, b in pairs)

    @cached_property
    def difference(self) -> float | None:
        """The largest difference that the other convention makes to an output; None for an LSTM."""
        if self.other is None:
            return None
        return float((self.trace.output - self.other.output).abs().max())

    def gradients(self) -> tuple[dict[str, float], float, float]:
        """For L = h[unit] after the direction's last step: dL/d of each intermediate of this unit at t, what
        of dL/dh_t (an LSTM's dL/dc_t) goes straight on to the state before, and all that reaches it. Which
        unit of fewer: `unit_of`."""
        with torch.enable_grad():
            hx = self.scene.hx
            trace = self._network.trace(self._by_layout(self._x), hx, retain_grad=True)
            d = trace[self.layer, self.direction]
            unit = self.unit_of("hidden")
            last = 0 if d.reverse else len(d) - 1
            state = "hidden" if d.kind == "GRU" else "cell"
            kept = {name: d.values(name) for name in d.names}
            flat = [value for values in kept.values() for value in values]
            loss = d.values("hidden")[last][self.row, unit]
            found = torch.autograd.grad(loss, flat, allow_unused=True)
        by_name: dict[str, list[Any]] = {}
        for number, name in enumerate(kept):
            by_name[name] = list(found[number * len(d) : (number + 1) * len(d)])

        def at(name: str, t: int) -> float:
            gradient = by_name[name][t]
            return 0.0 if gradient is None else float(gradient[self.row, self.unit_of(name)])

        gate = "update" if d.kind == "GRU" else "forget"
        straight = at(state, self.t) * float(d[gate][self.t, self.row, self.unit].detach())
        before = self.t + 1 if d.reverse else self.t - 1
        reaches = at(state, before) if 0 <= before < len(d) else float("nan")
        return {name: at(name, self.t) for name in d.names}, straight, reaches

    def unit_of(self, name: str) -> int:
        """The unit looked at, in an intermediate; a projected state has fewer, and its last is shown."""
        fewer = name in ("hidden", "found_hidden")
        return min(self.unit, self.now.weights["weight_hh"].shape[-1] - 1) if fewer else self.unit

    # --- where the reader goes ----------------------------------------------------------------------------

    def go(self, **where: int) -> None:
        """Set t, layer, direction, row or unit; beyond an end is at the end."""
        for name, value in where.items():
            setattr(self, name, value)
        self.layer = min(max(self.layer, 0), self.trace.layers - 1)
        self.direction = min(max(self.direction, 0), self.trace.directions - 1)
        self.t = min(max(self.t, 0), len(self.now) - 1)
        self.row = min(max(self.row, 0), self._x.shape[1] - 1)
        self.unit = min(max(self.unit, 0), self._network.hidden_size - 1)

    # --- what the reader changes --------------------------------------------------------------------------

    def toggle(self) -> None:
        """The GRU's other convention, with the same weights.

        Raises:
            StepError: it is an LSTM.
        """
        if not isinstance(self._network, gatedcells.GRU):
            raise StepError("the convention needs a GRU, got an LSTM, which has no reset gate")
        self._network.reset_after = not self._network.reset_after
        self._forget()

    def edit(self, text: str) -> None:
        """Change a number: ``x 0 = 0.5`` an input of this step, ``weight_hh 2 1 = -0.3`` a weight of this
        layer and direction, ``bias_ih 2 = 1``.

        Raises:
            StepError: it is not written so, or there is no such number.
        """
        match = _EDIT.match(text)
        expected = f"expected something like 'x 0 = 0.5' or 'weight_hh 2 1 = -0.3', got {text!r}"
        if match is None:
            raise StepError(expected)
        try:
            name, value = match[1], float(match[3])
        except ValueError:
            raise StepError(expected) from None
        where = [int(number) for number in re.findall(r"-?\d+", match[2])]
        if name == "x":
            target: Tensor = self._x[self.t, self.row]
        else:
            suffix = f"_l{self.layer}" + ("_reverse" if self.direction else "")
            found = getattr(self._network, name + suffix, None)
            if not isinstance(found, Tensor):
                known = ", ".join(self.now.weights)
                raise StepError(f"there is no {name}; there are x, {known}")
            target = found.data
        if len(where) != target.dim() or any(
            not 0 <= w < size for w, size in zip(where, target.shape, strict=False)
        ):
            raise StepError(f"{name} is {list(target.shape)}: there is no {name} {' '.join(map(str, where))}")
        target[tuple(where)] = value
        self._forget()
        self.edits.append(f"{name}{where} = {value:g}" + (f" at t = {self.t}" if name == "x" else ""))

    def undo(self) -> None:
        """Take all changes back."""
        self._network, self._x, self.edits = copy.deepcopy(self.scene.layer), self.scene.x.clone(), []
        self._forget()

    def _forget(self) -> None:
        for name in ("trace", "other", "deviation", "difference"):
            self.__dict__.pop(name, None)

    def _by_layout(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) if self._network.batch_first else x


class Quiz:
    """A question: the value of one intermediate of a step, asked with it hidden."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self._value = float(session.now[name][session.t, session.row, session.unit])

    def answer(self, text: str) -> str:
        """What is said to an answer; right is within 0.01 (of larger numbers one percent).

        Raises:
            StepError: it is not a number.
        """
        try:
            given = float(text)
        except ValueError:
            raise StepError(f"expected a number, got {text!r}") from None
        allowed = 0.01 * max(1.0, abs(self._value))
        verdict = "right" if abs(given - self._value) <= allowed else "not quite"
        return f"{verdict}: {self.name} is {self._value:.4f}, your answer was {given:g}"
