"""What the operators return, without computing it: for torch's compiler. Arguments as the operators'."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gatedcells_kernels.tape import GRU_GATE_GRADS, LSTM_GATES, LSTM_SLOTS, GRUTape, Keep


def gru_sequence(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    reset_after: bool,
    keep: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    T, B, H = *input.shape[:2], hidden.shape[-1]
    states = hidden.new_empty(T, B, H)
    tape = hidden.new_empty((T, B, len(GRUTape._fields), H) if keep == Keep.TAPE else (0,))
    return states, hidden.new_empty(B, H), tape


def gru_sequence_backward(
    d_states: Tensor | None,
    d_last: Tensor | None,
    hidden: Tensor,
    weight_hh: Tensor,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reverse: bool,
    reset_after: bool,
    backend: str,
    initial: bool = True,
) -> tuple[Tensor, Tensor]:
    T, B, H = states.shape
    return states.new_empty(T, B, len(GRU_GATE_GRADS), H), hidden.new_empty((B, H) if initial else (0,))


def lstm_sequence(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    keep: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    T, B, H, P = *input.shape[:2], cell.shape[-1], hidden.shape[-1]
    tape = hidden.new_empty((T, B, LSTM_SLOTS[Keep(keep)], H) if keep else (0,))
    return hidden.new_empty(T, B, P), hidden.new_empty(B, P), cell.new_empty(B, H), tape


def lstm_sequence_backward(
    d_states: Tensor | None,
    d_last_hidden: Tensor | None,
    d_last_cell: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reverse: bool,
    backend: str,
    initial: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    T, B, H = *states.shape[:2], cell.shape[-1]
    d_gates = states.new_empty(T, B, len(LSTM_GATES), H)
    d_projected = states.new_empty(states.shape if weight_hr is not None else (0,))
    if not initial:
        return d_gates, d_projected, hidden.new_empty(0), cell.new_empty(0)
    return d_gates, d_projected, hidden.new_empty(hidden.shape), cell.new_empty(cell.shape)


def gru_both(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reset_after: bool,
    keep: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    T, B, H = *input.shape[:2], hidden.shape[-1]
    tape = hidden.new_empty((2, T, B, len(GRUTape._fields), H) if keep == Keep.TAPE else (0,))
    return hidden.new_empty(2, T, B, H), hidden.new_empty(2, B, H), tape


def gru_both_backward(
    d_states: Tensor | None,
    d_last: Tensor | None,
    hidden: Tensor,
    weight_hh: Tensor,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reset_after: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    _, T, B, H = states.shape
    return states.new_empty(2, T, B, len(GRU_GATE_GRADS), H), hidden.new_empty(2, B, H)


def lstm_both(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    keep: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    T, B, H, P = *input.shape[:2], cell.shape[-1], hidden.shape[-1]
    tape = hidden.new_empty((2, T, B, LSTM_SLOTS[Keep(keep)], H) if keep else (0,))
    return hidden.new_empty(2, T, B, P), hidden.new_empty(2, B, P), cell.new_empty(2, B, H), tape


def lstm_both_backward(
    d_states: Tensor | None,
    d_last_hidden: Tensor | None,
    d_last_cell: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, T, B, H = *states.shape[:3], cell.shape[-1]
    d_projected = states.new_empty(states.shape if weight_hr is not None else (0,))
    d_gates = states.new_empty(2, T, B, len(LSTM_GATES), H)
    return d_gates, d_projected, hidden.new_empty(hidden.shape), cell.new_empty(cell.shape)


def gradients(inputs: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    """Of a backward that runs steps again: like the inputs, empty where no gradient was needed."""
    return [
        torch.empty_like(input, memory_format=torch.contiguous_format) if need else inputs[0].new_empty(0)
        for input, need in zip(inputs, needed, strict=True)
    ]
