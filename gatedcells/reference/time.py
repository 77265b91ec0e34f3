"""Walking over time: what the sequences of the GRU and of the LSTM share."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def time_order(T: int, reverse: bool) -> Iterable[int]:
    """The time indices in the order in which a direction visits them."""
    return range(T - 1, -1, -1) if reverse else range(T)


def keep_beyond_length(t: int | Tensor, lengths: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """``new`` in the rows that have a step ``t``, ``old`` in those that ended before; ``[B, ...]``."""
    if lengths is None:
        return new
    return torch.where((t < lengths)[:, None], new, old)


def stack_steps(steps: list[Any], reverse: bool) -> Any:
    """Steps in visiting order, a NamedTuple each with fields ``[B, H]``, as one step with fields
    ``[T, B, H]`` in time order."""
    if reverse:
        steps = steps[::-1]
    return type(steps[0])(*(torch.stack(field) for field in zip(*steps, strict=True)))


def previous_states(states: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """For each step the state before it: ``states`` ``[T, B, H]`` shifted by one step in visiting
    order, ``initial`` ``[B, H]`` first. Rows that keep their state beyond their length need no mask."""
    if reverse:
        return torch.cat([states[1:], initial[None]])
    return torch.cat([initial[None], states[:-1]])
