"""Backward passes that compute the gates again, some steps at a time, from the states alone.

With ``recompute=True`` a forward pass keeps nothing beside its output (GRU), or one number a unit and step
(LSTM: the cell state), instead of four or five.
The backward pass cuts time into spans, runs each forward again with a tape, then backward, and adds up the
weights' gradients. It reads the tape of a span while that is in cache.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells import _ops, _shapes

SPAN_BYTES = 4 << 20  # of tape and gates' gradients at one time, if a single step has no more


class Span(NamedTuple):
    """Some successive steps, ``first <= t < last`` of T, of a walk."""

    first: int
    last: int
    T: int
    reverse: bool

    def of(self, over_time: Tensor | None) -> Tensor | None:
        """The span's part of ``[T, ...]``."""
        return None if over_time is None else over_time[self.first : self.last]

    def lengths(self, lengths: Tensor | None) -> Tensor | None:
        """How many of the span's steps each row has."""
        return None if lengths is None else (lengths - self.first).clamp(0, self.last - self.first)

    def before(self, states: Tensor, initial: Tensor) -> Tensor:
        """The state ``[B, ...]`` that the walk brings into the span."""
        if self.reverse:
            return initial if self.last == self.T else states[self.last]
        return initial if self.first == 0 else states[self.first - 1]


def spans(input: Tensor, slots: int, hidden_size: int, reverse: bool) -> Iterator[Span]:
    """The spans of a walk over ``input`` ``[T, B, I]``, last visited first, with ``slots`` numbers to be
    kept of each unit and step."""
    T, B, _ = input.shape
    step_bytes = slots * B * hidden_size * input.element_size()
    steps = max(1, min(T, SPAN_BYTES // max(step_bytes, 1)))
    firsts = range(0, T, steps)
    for first in firsts if reverse else reversed(firsts):
        yield Span(first, min(first + steps, T), T, reverse)


class Totals:
    """Gradients added up over spans: of the input step by step, of the initial states as they leave the
    last span, of the weights as sums, which of 16-bit numbers are held in float32."""

    def __init__(self, inputs: Sequence[Tensor | None], needed: Sequence[bool], *, states: int) -> None:
        input = inputs[0]
        assert input is not None
        self._input = input
        self._states = states  # of the inputs, the first is the input and the next are so many states
        self._totals: list[Tensor | None] = [None] * len(inputs)
        if needed[0]:
            self._totals[0] = torch.empty_like(self._input)

    def add(self, span: Span, grads: Sequence[Tensor | None]) -> None:
        """Take in a span's gradients, in the order of the inputs."""
        for which, grad in enumerate(grads):
            total = self._totals[which]
            if grad is None:
                continue
            if which == 0:
                assert total is not None
                total[span.first : span.last] = grad
            elif which <= self._states:
                self._totals[which] = grad
            else:
                wide = grad.float() if grad.element_size() < 4 else grad
                self._totals[which] = wide if total is None else total.add_(wide)

    def finish(self) -> tuple[Tensor, ...]:
        """The sums, in their inputs' dtype; empty where none was needed."""
        like = self._input
        return tuple(like.new_empty(0) if t is None else t.to(like.dtype).contiguous() for t in self._totals)


def only(found: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """The gradients that were asked for, None for the others."""
    return [grad if need else None for grad, need in zip(found, needed, strict=True)]


def register_recompute(
    name: str, arguments: str, body: Callable[..., tuple[Tensor, ...]], *, first: int, count: int
) -> None:
    """Make ``body`` the operator ``gatedcells::name``.

    Args:
        name: the operator's.
        arguments: its schema before the arrow.
        body: returns the gradients of ``count`` inputs, which its arguments hold from number ``first`` on.
        first, count: see ``body``.
    """

    def fake(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(_shapes.gradients(arguments[first : first + count], arguments[-2]))

    returns = ", ".join(["Tensor"] * count)
    torch.library.define(f"gatedcells::{name}", f"{arguments} -> ({returns})")
    _ops.register(name, body, fake)
