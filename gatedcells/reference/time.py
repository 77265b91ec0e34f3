"""Walking over time: what the sequences of the GRU and of the LSTM share."""

from collections.abc import Callable, Iterable
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


def remembered(state: Tensor, t: int, resets: Tensor | None, lengths: Tensor | None) -> Tensor:
    """``state`` ``[B, ...]`` as step ``t`` finds it: zeros in the rows that forget it (``resets[t]``) and
    have not ended."""
    if resets is None:
        return state
    forgets = resets[t] if lengths is None else resets[t] & (t < lengths)
    return state.masked_fill(forgets[:, None], 0)


def boundaries(resets: Tensor | None, lengths: Tensor | None, reverse: bool) -> Tensor | None:
    """From "a new sequence begins at step t" to "the walk forgets its state before step t", ``[T, B]``.

    The same in the order of time; against it, a state is forgotten one step before. Beyond a row's length
    there are no steps and no beginnings.
    """
    if resets is None or not reverse:
        return resets
    T = resets.shape[0]
    times = torch.arange(T, device=resets.device).unsqueeze(1)
    if lengths is not None:
        resets = resets & (times < lengths)
    return resets.roll(-1, 0) & (times < T - 1)  # slices would tie an exported program to T > 2


def stack_steps(steps: list[Any], reverse: bool) -> Any:
    """Steps in visiting order, a NamedTuple each with fields ``[B, H]``, as one step with fields
    ``[T, B, H]`` in time order."""
    if reverse:
        steps = steps[::-1]
    return type(steps[0])(*(torch.stack(field) for field in zip(*steps, strict=True)))


def previous_states(states: Tensor, initial: Tensor, reverse: bool, resets: Tensor | None = None) -> Tensor:
    """For each step the state that it finds: ``states`` ``[T, B, H]`` shifted by one step in visiting
    order, ``initial`` ``[B, H]`` first, zeros where it is forgotten. Rows that keep their state beyond their
    length need no mask."""
    if resets is None and not torch.compiler.is_compiling() and len(states) == 1:
        return initial[None]
    previous = torch.cat(previous_in_pieces(states, initial, reverse))
    return previous if resets is None else previous.masked_fill_(resets[:, :, None], 0)


def previous_in_pieces(states: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Those of `previous_states` without resets, as two pieces one after the other in time: no copy."""
    return (states[1:], initial[None]) if reverse else (initial[None], states[:-1])


def unroll_states(
    step: Callable[[int, tuple[Tensor, ...]], tuple[Tensor, ...]],
    T: int,
    state: tuple[Tensor, ...],
    *,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
) -> list[tuple[Tensor, ...]]:
    """Any step over time: the states ``[B, ...]`` after each of T steps, in visiting order.

    Args:
        step: from a time and the states that it finds to the states after it.
        T, state, lengths, resets, reverse: as in `gatedcells.reference.gru.sequence`.
    """
    found: list[tuple[Tensor, ...]] = []
    for t in time_order(T, reverse):
        new = step(t, tuple(remembered(part, t, resets, lengths) for part in state))
        state = tuple(keep_beyond_length(t, lengths, n, o) for n, o in zip(new, state, strict=True))
        found.append(state)
    return found
