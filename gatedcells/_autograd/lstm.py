"""The gradient of one direction of one LSTM layer, whoever computed it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gatedcells import _ops as _ops
from gatedcells._autograd.rules import (
    kernel_cannot_differentiate,
    rows,
    save,
    through_reference,
    weight_gradient,
)
from gatedcells.reference import lstm
from gatedcells.reference.time import previous_states
from gatedcells_kernels.tape import LSTMTape

_DIFFERENTIABLE = 8  # input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *tensors, lengths, reverse, _save_tape, backend = inputs
    states, _, _, tape = output
    ctx.options = (reverse, backend)
    save(ctx, tape, *tensors, lengths, states)


def _backward(
    ctx: Any, d_states: Tensor | None, d_last: Tensor | None, d_last_cell: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    tape, *tensors, lengths, states = ctx.saved_tensors
    reverse, backend = ctx.options
    needed = ctx.needs_input_grad[:_DIFFERENTIABLE]
    if kernel_cannot_differentiate(tape):
        run = partial(lstm.unroll, lengths=lengths, reverse=reverse)
        grads = through_reference(run, tensors, needed, (d_states, d_last, d_last_cell))
    else:
        input, hidden, cell, weight_ih, weight_hh, _, _, weight_hr = tensors
        d_gates, d_projected, d_hidden, d_cell = torch.ops.gatedcells.lstm_sequence_backward(
            d_states, d_last, d_last_cell, hidden, cell, weight_hh, weight_hr, lengths, states, tape,
            reverse, backend,
        )  # fmt: skip
        previous = previous_states(states, hidden, reverse)
        grads = _gradients(d_gates, d_hidden, d_cell, input, previous, weight_ih, needed)
        if needed[7]:
            saved = LSTMTape(*tape.unbind(2))
            shown = saved.output * torch.tanh(saved.cell)
            grads[7] = weight_gradient(rows(d_projected), rows(shown))
    return (*grads, *(None,) * 4)


def _gradients(
    d_gates: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
    input: Tensor,
    previous: Tensor,
    weight_ih: Tensor,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """From the gates' gradients ``[T, B, 4, H]`` to those of the operator's inputs but the projection,
    by matrix products over all steps at once."""
    d_rows = rows(d_gates)  # [T*B, 4H]
    grads: list[Tensor | None] = [None] * _DIFFERENTIABLE
    if needed[0]:
        grads[0] = (d_rows @ weight_ih).reshape(input.shape)
    if needed[1]:
        grads[1] = d_hidden
    if needed[2]:
        grads[2] = d_cell
    if needed[3]:
        grads[3] = weight_gradient(d_rows, rows(input))
    if needed[4]:
        grads[4] = weight_gradient(d_rows, rows(previous))
    for bias in (5, 6):
        if needed[bias]:
            grads[bias] = d_rows.sum(0)
    return grads


torch.library.register_autograd("gatedcells::lstm_sequence", _backward, setup_context=_setup)
