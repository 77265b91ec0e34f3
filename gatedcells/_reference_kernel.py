"""The reference equations behind the contract of a kernel: forward with a tape, backward from it.

The same mathematics as autograd through the reference, in fewer passes: the tape keeps 4 (GRU) or 5
(LSTM) values a unit and step, and the backward writes the gates' gradients into one buffer, so that
each weight's gradient is one matrix product over all steps.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells.reference import gru, lstm
from gatedcells.reference.time import keep_beyond_length, previous_states, remembered, time_order
from gatedcells_kernels.tape import GRU_GATE_GRADS, LSTM_SLOTS, GRUTape, Keep, LSTMTape


def gru_forward(
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
    keep: Keep,
) -> tuple[Tensor, Tensor]:
    """All states ``[T, B, H]`` and the tape ``[T, B, 4, H]`` (empty unless ``keep`` is TAPE)."""
    x_projection = linear(input, weight_ih, bias_ih)
    T, B, H = *x_projection.shape[:2], hidden.shape[-1]
    states = hidden.new_empty(T, B, H)
    tape = hidden.new_empty(T, B, len(GRUTape._fields), H) if keep == Keep.TAPE else hidden.new_empty(0)
    walk = gru.iterate(
        x_projection,
        hidden,
        weight_hh,
        bias_hh,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        reset_after=reset_after,
    )
    for t, now in walk:
        states[t] = now.hidden
        if keep == Keep.TAPE:
            torch.stack([getattr(now, slot) for slot in GRUTape._fields], dim=1, out=tape[t])
    return states, tape


def gru_backward(
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
    initial: bool = True,
) -> tuple[Tensor, Tensor]:
    """The gates' gradients ``[T, B, 4, H]`` in the order GRU_GATE_GRADS, and dL/dh_0 ``[B, H]`` (if not
    ``initial``, anything)."""
    T, B, H = states.shape
    previous = previous_states(states, hidden, reverse, resets)
    d_gates = states.new_empty(T, B, len(GRU_GATE_GRADS), H)
    d_hidden = torch.zeros_like(hidden) if d_last is None else d_last
    for t in time_order(T, not reverse):
        if d_states is not None:
            d_hidden = d_hidden + d_states[t]
        saved = GRUTape(*tape[t].unbind(1))
        grads = gru.step_backward(
            d_hidden, *saved, hidden=previous[t], weight_hh=weight_hh, reset_after=reset_after
        )
        torch.stack([getattr(grads, gate) for gate in GRU_GATE_GRADS], dim=1, out=d_gates[t])
        if lengths is not None:
            d_gates[t].masked_fill_((t >= lengths)[:, None, None], 0)
        found = remembered(grads.hidden, t, resets, lengths)
        d_hidden = keep_beyond_length(t, lengths, found, d_hidden)
    return d_gates, d_hidden


def lstm_forward(
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
    keep: Keep,
) -> tuple[Tensor, Tensor, Tensor]:
    """All hidden states ``[T, B, H]`` or ``[T, B, P]``, the last cell state ``[B, H]`` and what is kept:
    the tape ``[T, B, 5, H]``, the cell states ``[T, B, 1, H]``, or nothing."""
    x_projection = linear(input, weight_ih, bias_ih)
    T, B, H = *x_projection.shape[:2], cell.shape[-1]
    states = hidden.new_empty(T, B, hidden.shape[-1])
    tape = hidden.new_empty(T, B, LSTM_SLOTS[keep], H) if keep else hidden.new_empty(0)
    walk = lstm.iterate(
        x_projection,
        hidden,
        cell,
        weight_hh,
        bias_hh,
        weight_hr,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
    )
    for t, now in walk:
        cell = now.cell
        states[t] = now.hidden
        if keep == Keep.TAPE:
            torch.stack([getattr(now, slot) for slot in LSTMTape._fields], dim=1, out=tape[t])
        elif keep == Keep.STATES:
            tape[t, :, 0] = cell
    return states, cell, tape


def lstm_backward(
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
    initial: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gates' gradients ``[T, B, 4, H]`` in the order LSTM_GATES; dL/dh of every step as it leaves
    the projection ``[T, B, P]`` (empty without one); dL/dh_0 and dL/dc_0 (if not ``initial``, anything)."""
    T, B, H = *states.shape[:2], cell.shape[-1]
    cells = LSTMTape(*tape.unbind(2)).cell
    previous_cells = previous_states(cells, cell, reverse, resets)
    d_gates = states.new_empty(T, B, 4, H)
    d_projected = torch.empty_like(states) if weight_hr is not None else states.new_empty(0)
    d_hidden = torch.zeros_like(hidden) if d_last_hidden is None else d_last_hidden
    d_cell = torch.zeros_like(cell) if d_last_cell is None else d_last_cell
    for t in time_order(T, not reverse):
        if d_states is not None:
            d_hidden = d_hidden + d_states[t]
        saved = LSTMTape(*tape[t].unbind(1))
        grads = lstm.step_backward(
            d_hidden, d_cell, saved.input, saved.forget, saved.candidate, saved.output, saved.cell,
            cell=previous_cells[t], weight_hh=weight_hh, weight_hr=weight_hr,
        )  # fmt: skip
        torch.stack(grads[:4], dim=1, out=d_gates[t])
        if weight_hr is not None:
            d_projected[t] = d_hidden
        if lengths is not None:
            ended = (t >= lengths)[:, None]
            d_gates[t].masked_fill_(ended[:, :, None], 0)
            if weight_hr is not None:
                d_projected[t].masked_fill_(ended, 0)
        d_hidden = keep_beyond_length(t, lengths, remembered(grads.hidden, t, resets, lengths), d_hidden)
        d_cell = keep_beyond_length(t, lengths, remembered(grads.cell, t, resets, lengths), d_cell)
    return d_gates, d_projected, d_hidden, d_cell
