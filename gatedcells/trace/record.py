"""What a layer's forward pass computed, kept by name; `Trace` is what ``layer.trace(x)`` returns.

The numbers come from `gatedcells.reference`, and so do their names.
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
    """One direction of one layer: ``d["update"]`` is an intermediate by its name, ``[T, B, H]``.

    Attributes:
        kind: "GRU" or "LSTM" ("RNN" inside `gatedcells.gradient_flow`).
        reset_after: the GRU's convention, see `gatedcells.reference.gru`.
        reverse: whether it runs against the order of time.
        x: ``[T, B, I]``, what this layer reads.
        initial: ``h_0`` (and ``c_0``), each ``[B, H]`` (``h_0``: ``[B, P]`` with a projection).
        weights: weight_ih, weight_hh and, where there are any, bias_ih, bias_hh, weight_hr.
        lengths: ``[B]``, each row's number of steps, or None if all have T.
        forgets: ``[T, B]`` bool, the rows that find a state of zeros at step t, or None.
        names: the intermediates' names, in the order of computing.
        beyond: what the cell does beyond its plain equations, in words; empty if nothing.

    The rows B are in the order of the input, of a packed one in the order in which it was packed.
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
        """An intermediate, ``[T, B, H]``; the state that a step found is ``found_hidden`` (``found_cell``).

        Raises:
            KeyError: there is no such intermediate; the message names those that there are.
        """
        for number, state in enumerate(STATES[self.kind]):
            if name == f"found_{state}":
                return previous_states(self[state], self.initial[number], self.reverse, self.forgets)
        return self._in_order(torch.stack(self.values(name)))

    def values(self, name: str) -> list[Tensor]:
        """An intermediate as it was computed, step by step: T tensors ``[B, H]`` that hooks may be put on (of
        a packed input the rows by length).

        Raises:
            KeyError: as above.
        """
        if name not in self.names:
            raise KeyError(f"no intermediate called {name!r}; there are {', '.join(self.names)}")
        return [getattr(step, name) for step in self._steps]

    def gradient(self, name: str) -> Tensor:
        """dL/d(intermediate), ``[T, B, H]``, after a backward pass; zeros where L does not depend on it.

        Raises:
            RuntimeError: the trace was not made with ``retain_grad=True``, or nothing went backward yet; or
                "cell" of an LSTM beyond the plain one whose rows have lengths.
        """
        values = self.values(name)
        if not any(value.retains_grad for value in values):
            raise RuntimeError(
                "this trace keeps no gradients: make it with retain_grad=True, where gradients are enabled"
                " and something requires them"
            )
        if all(value.grad is None for value in values):
            raise RuntimeError("there are no gradients yet: call backward() on something that this computed")
        gradients = [torch.zeros_like(v) if v.grad is None else v.grad for v in values]
        if name == "cell" and self.lengths is not None:
            if self.beyond:
                raise RuntimeError(
                    f"with lengths the gradient at 'cell' is known of the plain LSTM alone, not with"
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
        """``[T, B]`` bool: which rows have a step t."""
        return self._part(self.lengths)

    def _part(self, lengths: Tensor | None) -> Tensor:
        T, B = self.x.shape[:2]
        if lengths is None:
            return torch.ones(T, B, dtype=torch.bool, device=self.x.device)
        return torch.arange(T, device=self.x.device)[:, None] < lengths


class Trace:
    """A forward pass with everything that it computed; ``trace[layer, direction]`` is a `DirectionTrace`.

    Attributes:
        output, last: as ``layer(x, hx)`` returns them, ``last`` a tensor or for the LSTM a pair.
        layers: how many layers.
        directions: 1 or 2.
    """

    def __init__(self, output: Any, last: Any, recorded: list[DirectionTrace], directions: int) -> None:
        self.output = output
        self.last = last
        self.directions = directions
        self.layers = len(recorded) // directions
        self._recorded = recorded

    def __getitem__(self, where: int | tuple[int, int]) -> DirectionTrace:
        """``trace[layer]`` or ``trace[layer, direction]``.

        Raises:
            IndexError: there is no such layer or direction.
        """
        layer, direction = where if isinstance(where, tuple) else (where, 0)
        if not (0 <= layer < self.layers and 0 <= direction < self.directions):
            there = f"{self.layers} layer(s) in {self.directions} direction(s)"
            raise IndexError(f"no layer {layer}, direction {direction}: there are {there}")
        return self._recorded[layer * self.directions + direction]

    def explain(self, t: int, layer: int = 0, unit: int = 0, *, direction: int = 0, row: int = 0) -> str:
        """One unit's step in words: each equation with its values put in, and what the gates do.

        Args:
            t: the time, 0 the first; negative from the end.
            layer, direction: which layer, which direction.
            unit: the hidden unit.
            row: the row of the batch.

        Raises:
            IndexError: there is no such step, layer, direction, unit or row.
            RuntimeError: the cell does something beyond its plain equations.
        """
        return equations.explain(self[layer, direction], t, unit, row)

    def check(self) -> dict[str, float]:
        """Derive every line of every step again from the line before, in float64.

        Returns:
            for each line the largest deviation, all layers, directions, steps, rows and units together.

        Raises:
            AssertionError: one deviates by more than rounding explains.
            RuntimeError: the cell does something beyond its plain equations.
        """
        worst: dict[str, float] = {}
        for recorded in self._recorded:
            for name, error in equations.check(recorded).items():
                worst[name] = max(worst.get(name, 0.0), error)
        return worst

    def plot(self, path: str | Path | None = None, *, row: int = 0) -> Any:
        """Draw each gate and state as a heat map, time to the right and hidden units downward, a column for
        each layer and direction.

        Args:
            path: where to write the figure (by its ending PNG, SVG or PDF; PNG without one); None to write
                nothing.
            row: which row of the batch.

        Returns:
            a ``matplotlib.figure.Figure``, which notebooks show.

        Raises:
            IndexError: there is no such row.
        """
        from gatedcells.trace import plots  # numpy and matplotlib come with it

        return plots.heat_maps(self, path, row)

    def to_json(self) -> str:
        """Everything as JSON: by layer and direction the input, initial states, weights and each
        intermediate as nested lists ``[T][B][H]`` (null beyond a row's length, where there is no step).

        JSON has no number for what is not finite: the strings "NaN", "Infinity" and "-Infinity" stand for it,
        which Python's ``float`` and JavaScript's ``Number`` read.
        """
        layers = [
            [_as_lists(self[layer, direction]) for direction in range(self.directions)]
            for layer in range(self.layers)
        ]
        return json.dumps({"layers": layers}, allow_nan=False)

    def to_html(self, path: str | Path | None = None, *, title: str = "Step by step") -> str:
        """One self-contained page: gates over time, the cell with numbers on its wires, the equations with
        values, sliders that compute everything again, the other kinds of cell on the same input.

        The page computes the trace again in JavaScript, from the weights, and shows how far it is from these
        numbers. It loads nothing from anywhere.

        Args:
            path: where to write it; None to write nothing.
            title: its heading.

        Returns:
            the page's text.

        Raises:
            IndexError: the batch is empty.
            OSError: the file cannot be written.
            RuntimeError: the cell does something beyond its plain equations.
        """
        from gatedcells.trace import page

        return page.write(self, path, title)

    def _repr_html_(self) -> str:
        """In a notebook: the page."""
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
