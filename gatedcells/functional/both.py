"""Both directions of one layer at once, where the backend that is chosen can."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gatedcells import _ops
from gatedcells._autograd import both
from gatedcells.backends import AUTO, requested, resolve
from gatedcells.functional.inputs import (
    GRUTensors,
    LSTMTensors,
    to_autocast,
    what_to_keep,
    zero_beyond_lengths,
)
from gatedcells.reference.time import boundaries
from gatedcells.validation import check_gru, check_lstm, check_sequence

# The states of both directions and their last ones, each pair as one tensor ``[2, ...]``.
Found = tuple[Tensor, tuple[Tensor, ...]]
# Backends that have a call for both directions.
_ABLE = ("triton",)


def _may_be_able(input: Tensor, backend: str, recompute: bool) -> bool:
    """Whether it is worth asking further, without touching a tensor: every bidirectional layer comes by here.
    Recomputing goes direction by direction, and on the CPU nobody runs both unless asked for by name."""
    name, _ = requested(backend)
    return not recompute and (name in _ABLE or (name == AUTO and not input.is_cpu))


def _able(cell: str, tensors: tuple[Tensor | None, ...], backend: str, precision: str | None) -> str | None:
    """The backend that runs both at once, if it is the one that is chosen."""
    choice = resolve(cell, "sequence", tensors, backend, "", precision)
    return choice.backend if choice.route == "operator" and choice.backend in _ABLE else None


def _pairs(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [
        None if a is None or b is None else torch.stack((a, b)) for a, b in zip(first, second, strict=True)
    ]


def _both_boundaries(resets: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    if resets is None:
        return None
    found = [boundaries(resets, lengths, reverse) for reverse in (False, True)]
    return torch.stack([part for part in found if part is not None])


def gru_both(
    input: Tensor,
    hidden: Tensor,
    weights: Sequence[Sequence[Tensor | None]],
    *,
    lengths: Tensor | None,
    resets: Tensor | None,
    reset_after: bool,
    recompute: bool,
    backend: str,
    precision: str | None = None,
) -> Found | None:
    """`gatedcells.gru_sequence` forward and in reverse, or None where no backend runs them as one.

    Args:
        input: ``[T, B, I]``.
        hidden: ``[2, B, H]``.
        weights: weight_ih, weight_hh, bias_ih, bias_hh of each direction.
        lengths, resets, reset_after, recompute, backend, precision: as there.

    Returns:
        states ``[2, T, B, H]`` and ``([2, B, H],)``.

    Raises:
        RuntimeError, ValueError: as there.
    """
    if not _may_be_able(input, backend, recompute):
        return None
    each = [GRUTensors(input, hidden[d], *weights[d]) for d in (0, 1)]  # type: ignore[arg-type]
    chosen = _able("GRU", to_autocast(each[0]), backend, precision)
    if chosen is None:
        return None
    check_sequence(input, lengths, resets)
    for tensors in each:
        check_gru(*tensors)
    given = to_autocast(
        GRUTensors(zero_beyond_lengths(input, lengths), hidden, *_pairs(*weights))  # type: ignore[arg-type]
    )
    keep = what_to_keep(given, recompute)
    run = _ops.operator("gru_both", given, both.GRUBoth.apply if keep else both.run_gru_both)
    states, last, _ = run(*given, lengths, _both_boundaries(resets, lengths), reset_after, keep, chosen)
    return states, (last,)


def lstm_both(
    input: Tensor,
    state: tuple[Tensor, Tensor],
    weights: Sequence[Sequence[Tensor | None]],
    *,
    lengths: Tensor | None,
    resets: Tensor | None,
    recompute: bool,
    backend: str,
    precision: str | None = None,
) -> Found | None:
    """`gatedcells.lstm_sequence` forward and in reverse, or None where no backend runs them as one.

    Args:
        input: ``[T, B, I]``.
        state: ``[2, B, P]`` and ``[2, B, H]``.
        weights: weight_ih, weight_hh, bias_ih, bias_hh, weight_hr of each direction.
        lengths, resets, recompute, backend, precision: as there.

    Returns:
        states ``[2, T, B, P]`` and ``([2, B, P], [2, B, H])``.

    Raises:
        RuntimeError, ValueError: as there.
    """
    if not _may_be_able(input, backend, recompute):
        return None
    hidden, cell = state
    each = [LSTMTensors(input, hidden[d], cell[d], *weights[d]) for d in (0, 1)]  # type: ignore[arg-type]
    chosen = _able("LSTM", to_autocast(each[0]), backend, precision)
    if chosen is None:
        return None
    check_sequence(input, lengths, resets)
    for tensors in each:
        check_lstm(*tensors)
    given = to_autocast(
        LSTMTensors(zero_beyond_lengths(input, lengths), hidden, cell, *_pairs(*weights))  # type: ignore[arg-type]
    )
    keep = what_to_keep(given, recompute)
    run = _ops.operator("lstm_both", given, both.LSTMBoth.apply if keep else both.run_lstm_both)
    states, last, last_cell, _ = run(*given, lengths, _both_boundaries(resets, lengths), keep, chosen)
    return states, (last, last_cell)
