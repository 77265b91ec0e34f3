"""`Trace`, the result of ``layer.trace(x)``: the intermediate values of a forward pass, by name.

The values are computed by `gatedcells.reference`, which also defines their names.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatedcells.reference.time import previous_states
from gatedcells.trace import equations

State = tuple[Tensor, ...]
STATES = {"RNN": ("hidden",), "GRU": ("hidden",), "LSTM": ("hidden", "cell")}


class DirectionTrace:
    """One direction of one layer; ``d["update"]`` is the intermediate value of that name, ``[T, B, H]``.

    Attributes:
        kind: "GRU" or "LSTM" ("RNN" inside `gatedcells.gradient_flow`).
        reset_after: the GRU's convention, see `gatedcells.reference.gru`.
        reverse: whether this direction runs from the last step to the first.
        x: the layer's input, ``[T, B, I]``.
        initial: ``h_0`` (and ``c_0``), each ``[B, H]`` (``h_0``: ``[B, P]`` with a projection).
        weights: weight_ih, weight_hh and, if the layer has them, bias_ih, bias_hh, weight_hr.
        lengths: ``[B]``, each row's number of steps, or None if all have T.
        forgets: bool ``[T, B]``, True where a row's state is replaced by zeros before step t; or None.
        names: the intermediate values' names, in the order of computation.
        beyond: the variants of the cell that are used, as text; empty for the plain cell.

    The rows B are in the order of the input; for a PackedSequence, in the order in which it was packed.
    """

    def __init__(
        self,
        kind: str,
        reset_after: bool,
        reverse: bool,
        x: Tensor,
        initial: State,
        weights: dict[str, Tensor],
        lengths: Tensor | None,
        forgets: Tensor | None,
        steps: dict[int, Any],
        rows: Tensor | None = None,
        beyond: str = "",
    ) -> None:
        self._lengths_as_computed = lengths
        if rows is not None:  # packing sorts the rows by length
            x, initial = x.index_select(1, rows), tuple(part.index_select(0, rows) for part in initial)
            lengths = None if lengths is None else lengths.index_select(0, rows)
        self.kind = kind
        self.reset_after = reset_after
        self.reverse = reverse
        self.x = x
        self.initial = initial
        self.weights = weights
        self.lengths = lengths
        self.forgets = forgets
        self.beyond = beyond
        self._rows = rows
        self._steps = [steps[t] for t in range(len(steps))]
        self.names: tuple[str, ...] = self._steps[0]._fields

    def __len__(self) -> int:
        """The number of steps, T."""
        return len(self._steps)

    def __getitem__(self, name: str) -> Tensor:
        """An intermediate value, ``[T, B, H]``; ``found_hidden`` and ``found_cell`` are those before a step.

        Raises:
            KeyError: there is no such name; the message lists the names.
        """
        for number, state in enumerate(STATES[self.kind]):
            if name == f"found_{state}":
                return previous_states(self[state], self.initial[number], self.reverse, self.forgets)
        return self._in_order(torch.stack(self.values(name)))

    def values(self, name: str) -> list[Tensor]:
        """An intermediate value as T tensors ``[B, H]``, one per step, on which hooks can be registered.

        With a PackedSequence their rows are sorted by length.

        Raises:
            KeyError: there is no such name; the message lists the names.
        """
        if name not in self.names:
            raise KeyError(f"no intermediate value {name!r}; the names are {', '.join(self.names)}")
        return [getattr(step, name) for step in self._steps]

    def gradient(self, name: str) -> Tensor:
        """The loss's gradient with respect to an intermediate value, ``[T, B, H]``, after a backward pass.

        It is zero where the loss does not depend on the value.

        Raises:
            KeyError: there is no such name; the message lists the names.
            RuntimeError: the trace was not made with ``retain_grad=True``; there was no backward pass yet; or
                ``name`` is "cell" of an LSTM variant whose rows have lengths.
        """
        values = self.values(name)
        if not any(value.retains_grad for value in values):
            raise RuntimeError(
                "this trace has no gradients: make it with retain_grad=True, with gradients enabled and an"
                " input or parameter that requires them"
            )
        if all(value.grad is None for value in values):
            raise RuntimeError(
                "there are no gradients yet: call backward() on a loss that uses the trace's output"
            )
        gradients = [torch.zeros_like(v) if v.grad is None else v.grad for v in values]
        if name == "cell" and self.lengths is not None:
            if self.beyond:
                raise RuntimeError(
                    f"with lengths, the gradient of 'cell' is available for the plain LSTM only, got"
                    f" {self.beyond}"
                )
            # what goes on to the next step was chosen by length; tanh read the number before that choice
            part = self._part(self._lengths_as_computed)
            for t, value in enumerate(self.values("tanh_cell")):
                if value.grad is not None:
                    through = value.grad * (1 - value.detach().square())
                    gradients[t] = gradients[t] + through.masked_fill(~part[t][:, None], 0)
        return self._in_order(torch.stack(gradients))

    def _in_order(self, stacked: Tensor) -> Tensor:
        return stacked if self._rows is None else stacked.index_select(1, self._rows)

    def takes_part(self) -> Tensor:
        """Bool ``[T, B]``: whether step t lies within the row's length."""
        return self._part(self.lengths)

    def _part(self, lengths: Tensor | None) -> Tensor:
        T, B = self.x.shape[:2]
        if lengths is None:
            return torch.ones(T, B, dtype=torch.bool, device=self.x.device)
        return torch.arange(T, device=self.x.device)[:, None] < lengths


class Trace:
    """The intermediate values of a forward pass; ``trace[layer, direction]`` is a `DirectionTrace`.

    Attributes:
        output, last: as ``layer(x, hx)`` returns them; ``last`` is a tensor, for the LSTM a pair.
        layers: the number of layers.
        directions: the number of directions, 1 or 2.
    """

    def __init__(self, output: Any, last: Any, recorded: list[DirectionTrace], directions: int) -> None:
        self.output = output
        self.last = last
        self.directions = directions
        self.layers = len(recorded) // directions
        self._recorded = recorded

    def __getitem__(self, where: int | tuple[int, int]) -> DirectionTrace:
        """``trace[layer]`` (the forward direction) or ``trace[layer, direction]``.

        Raises:
            IndexError: there is no such layer or direction.
        """
        layer, direction = where if isinstance(where, tuple) else (where, 0)
        if not (0 <= layer < self.layers and 0 <= direction < self.directions):
            there = f"{self.layers} layer(s) in {self.directions} direction(s)"
            raise IndexError(f"no layer {layer}, direction {direction}: there are {there}")
        return self._recorded[layer * self.directions + direction]

    def explain(self, t: int, layer: int = 0, unit: int = 0, *, direction: int = 0, row: int = 0) -> str:
        """Describe one step of one unit: each equation with its values substituted, and what the gates do.

        Args:
            t: the step, from 0; negative from the end.
            layer, direction: the layer and its direction (1: reverse).
            unit: the hidden unit.
            row: the row of the batch.

        Returns:
            several lines of text.

        Raises:
            IndexError: there is no such step, layer, direction, unit or row.
            RuntimeError: the cell is a variant, not the plain GRU or LSTM.
        """
        return equations.explain(self[layer, direction], t, unit, row)

    def check(self) -> dict[str, float]:
        """Recompute each intermediate value in float64 from the recorded values that it depends on.

        Returns:
            for each name, the largest deviation over all layers, directions, steps, rows and units.

        Raises:
            AssertionError: a deviation is larger than rounding explains.
            RuntimeError: the cell is a variant, not the plain GRU or LSTM.
        """
        worst: dict[str, float] = {}
        for recorded in self._recorded:
            for name, error in equations.check(recorded).items():
                worst[name] = max(worst.get(name, 0.0), error)
        return worst

    def plot(self, path: str | Path | None = None, *, row: int = 0) -> Any:
        """Plot each gate and state as a heat map of time (to the right) and hidden units (downward), with one
        column for each layer and direction.

        Args:
            path: the file to write, PNG, SVG or PDF by its extension (PNG without one); None: no file.
            row: the row of the batch.

        Returns:
            a ``matplotlib.figure.Figure``, which notebooks display.

        Raises:
            IndexError: there is no such row.
        """
        from gatedcells.trace import plots  # numpy and matplotlib come with it

        return plots.heat_maps(self, path, row)

    def to_json(self) -> str:
        """The trace as JSON: for each layer and direction the input, initial states, weights and intermediate
        values, these as nested lists ``[T][B][H]`` (null beyond a row's length).

        JSON has no numbers that are not finite; they are written as the strings "NaN", "Infinity" and
        "-Infinity", which Python's ``float`` and JavaScript's ``Number`` read.
        """
        layers = [
            [_as_lists(self[layer, direction]) for direction in range(self.directions)]
            for layer in range(self.layers)
        ]
        return json.dumps({"layers": layers}, allow_nan=False)

    def to_html(self, path: str | Path | None = None, *, title: str = "Step by step") -> str:
        """Make a self-contained interactive page that works offline.

        It shows the gates over time, a diagram of the cell and its equations with the values of a step, the
        gradient, and other kinds of cell on the same input; sliders change an input, state or weight. The
        page recomputes the trace in JavaScript from the weights and shows the largest deviation.

        Args:
            path: the file to write; None: no file.
            title: the page's heading.

        Returns:
            the page's HTML.

        Raises:
            IndexError: the batch is empty.
            OSError: the file cannot be written.
            RuntimeError: the cell is a variant, not the plain GRU or LSTM.
        """
        from gatedcells.trace import page

        return page.write(self, path, title)

    def _repr_html_(self) -> str:
        """The page, for notebooks."""
        from gatedcells.trace import page

        return page.in_a_notebook(self)


def _as_lists(recorded: DirectionTrace) -> dict[str, Any]:
    part = recorded.takes_part().tolist()

    def by_time(values: Tensor) -> Any:
        return [
            [row if there else None for row, there in zip(rows, now, strict=True)]
            for rows, now in zip(_numbers(values), part, strict=True)
        ]

    return {
        "kind": recorded.kind,
        "reset_after": recorded.reset_after,
        "reverse": recorded.reverse,
        "lengths": None if recorded.lengths is None else recorded.lengths.tolist(),
        "forgets": None if recorded.forgets is None else recorded.forgets.tolist(),
        "x": by_time(recorded.x),
        "initial": {
            name: _numbers(state) for name, state in zip(STATES[recorded.kind], recorded.initial, strict=True)
        },
        "weights": {name: _numbers(weight) for name, weight in recorded.weights.items()},
        "steps": {name: by_time(recorded[name]) for name in recorded.names},
    }


def _numbers(values: Tensor) -> Any:
    """Nested lists, words where a number is not finite."""
    lists = values.detach().tolist()
    return lists if bool(values.isfinite().all()) else _in_words(lists)


def _in_words(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_words(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
