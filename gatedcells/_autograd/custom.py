"""A user's cell over time as one operator for torch's compiler: the graph holds no step, whatever T.

The cell is a Python object: the operator takes a number that stands for it, and its parameters as tensors.
The forward pass keeps nothing; the backward pass runs the steps again with autograd. (torch's scan is no way:
in torch 2.13 inductor gets gradients of what its step closes over wrong.)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gatedcells import _ops, _shapes
from gatedcells._autograd.recompute import only
from gatedcells._autograd.rules import run_again
from gatedcells.reference.time import unroll_states

States = tuple[Tensor, ...]


class Steps(Protocol):
    """What this module needs of a cell."""

    def advance(self, x_t: Tensor, state: States) -> States:
        """One step."""
        ...


torch.library.define(
    "gatedcells::cell_sequence",
    "(Tensor input, Tensor[] state, Tensor[] parameters, Tensor? lengths, Tensor? resets, bool reverse,"
    " bool autocast, int cell) -> (Tensor states, Tensor[] last)",
)
torch.library.define(
    "gatedcells::cell_sequence_backward",
    "(Tensor d_states, Tensor[] d_last, Tensor input, Tensor[] state, Tensor[] parameters, Tensor? lengths,"
    " Tensor? resets, bool reverse, bool autocast, int cell, bool[] needed) -> Tensor[]",
)

_cells: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_numbers = itertools.count()


def enter(cell: nn.Module) -> int:
    """The number that stands for a cell while it lives."""
    number = next(_numbers)
    _cells[number] = cell
    return number


def tensors_of(cell: nn.Module) -> dict[str, Tensor]:
    """A cell's parameters and buffers."""
    return {**dict(cell.named_parameters()), **dict(cell.named_buffers())}


class _Walk(nn.Module):
    """A cell over time, as a module, so that its parameters can be replaced for a call."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(
        self, input: Tensor, state: States, lengths: Tensor | None, resets: Tensor | None, reverse: bool
    ) -> tuple[Tensor, ...]:
        cell: Any = self.cell
        return walk(cell, input, state, lengths, resets, reverse)


def walk(
    cell: Steps,
    input: Tensor,
    state: States,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """The first state after each step ``[T, B, ...]``, then all states after the last step visited."""
    found = unroll_states(
        lambda t, before: cell.advance(input[t], before),
        len(input),
        state,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
    )
    outputs = [now[0] for now in found]
    return torch.stack(outputs[::-1] if reverse else outputs), *found[-1]


def _run(
    input: Tensor,
    state: Sequence[Tensor],
    parameters: Sequence[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    autocast: bool,
    cell: int,
) -> tuple[Tensor, ...]:
    module = _cells[cell]
    named = {f"cell.{name}": p for name, p in zip(tensors_of(module), parameters, strict=True)}
    kind = input.device.type
    with torch.autocast(kind, input.dtype if autocast else None, enabled=autocast):
        return functional_call(_Walk(module), named, (input, tuple(state), lengths, resets, reverse))


def _forward(input: Tensor, state: Sequence[Tensor], *rest: Any) -> tuple[Tensor, list[Tensor]]:
    states, *last = _run(input, state, *rest)
    return states, [part.clone() for part in last]  # an operator's outputs share memory with nothing


def _forward_fake(input: Tensor, state: Sequence[Tensor], *_: Any) -> tuple[Tensor, list[Tensor]]:
    T, first = input.shape[0], state[0]
    return first.new_empty(T, *first.shape), [torch.empty_like(part) for part in state]


def _backward(
    d_states: Tensor,
    d_last: Sequence[Tensor],
    input: Tensor,
    state: Sequence[Tensor],
    parameters: Sequence[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    autocast: bool,
    cell: int,
    needed: Sequence[bool],
) -> list[Tensor]:
    count = 1 + len(state)

    def run(leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return _run(leaves[0], leaves[1:count], leaves[count:], lengths, resets, reverse, autocast, cell)

    return run_again(run, [input, *state, *parameters], needed, (d_states, *d_last))


def _backward_fake(
    d_states: Tensor,
    d_last: Sequence[Tensor],
    input: Tensor,
    state: Sequence[Tensor],
    parameters: Sequence[Tensor],
    *rest: Any,
) -> list[Tensor]:
    return _shapes.gradients([input, *state, *parameters], rest[-1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    input, state, parameters, lengths, resets, *options = inputs
    ctx.options = options
    ctx.counts = len(state), len(parameters)
    ctx.save_for_backward(input, *state, *parameters, lengths, resets)


def _rule(ctx: Any, d_states: Tensor, d_last: Sequence[Tensor]) -> tuple[Any, ...]:
    input, *rest, lengths, resets = ctx.saved_tensors
    of_state, _ = ctx.counts
    state, parameters = rest[:of_state], rest[of_state:]
    wants_input, wants_state, wants_parameters, *_ = ctx.needs_input_grad
    needed = [wants_input, *wants_state, *wants_parameters]
    grads = torch.ops.gatedcells.cell_sequence_backward(
        d_states, d_last, input, state, parameters, lengths, resets, *ctx.options, needed
    )
    found = only(grads, needed)
    return found[0], found[1 : 1 + of_state], found[1 + of_state :], None, None, None, None, None


_ops.register("cell_sequence", _forward, _forward_fake)
_ops.register("cell_sequence_backward", _backward, _backward_fake)
torch.library.register_autograd("gatedcells::cell_sequence", _rule, setup_context=_setup)
