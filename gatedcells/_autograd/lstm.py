"""The gradient of one direction of one LSTM layer, whoever computed it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gatedcells import _ops
from gatedcells._autograd.recompute import Totals, only, register_recompute, spans
from gatedcells._autograd.rules import (
    Found,
    as_function,
    kernel_cannot_differentiate,
    own_input_gradient,
    own_weight_gradients,
    product,
    rows,
    save,
    through_reference,
    weight_gradient,
)
from gatedcells.reference import lstm
from gatedcells.validation import check_lstm, check_rows, check_shape
from gatedcells_kernels.tape import LSTM_GATES, Keep, LSTMTape

_DIFFERENTIABLE = 8  # input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *tensors, lengths, resets, reverse, keep, backend = inputs
    states, _, _, tape = output
    ctx.options = (reverse, keep, backend)
    save(ctx, tape, *tensors, lengths, resets, states)


def backward(
    ctx: Any, d_states: Tensor | None, d_last: Tensor | None, d_last_cell: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    tape, *tensors, lengths, resets, states = ctx.saved_tensors
    reverse, keep, backend = ctx.options
    needed = ctx.needs_input_grad[:_DIFFERENTIABLE]
    if d_states is None and d_last is None and d_last_cell is None:  # what came after has no gradient
        return (None,) * (_DIFFERENTIABLE + 5)
    if kernel_cannot_differentiate(keep):
        run = partial(lstm.unroll, lengths=lengths, resets=resets, reverse=reverse)
        grads = through_reference(run, tensors, needed, (d_states, d_last, d_last_cell))
    elif keep == Keep.STATES:
        recompute = _ops.operator(
            "lstm_sequence_recompute", (d_states, d_last, d_last_cell, *tensors), _recompute
        )
        every = recompute(
            d_states, d_last, d_last_cell, *tensors, lengths, resets, states, tape, reverse, needed, backend
        )
        grads = only(every, needed)
    else:
        input, hidden, cell, weight_ih, weight_hh, _, _, weight_hr = tensors
        run_backward = _ops.operator(
            "lstm_sequence_backward",
            (d_states, d_last, d_last_cell, *tensors),
            _ops.run_lstm_sequence_backward,
        )
        d_gates, d_projected, d_hidden, d_cell = run_backward(
            d_states, d_last, d_last_cell, hidden, cell, weight_hh, weight_hr, lengths, resets,
            states, tape, reverse, backend, needed[1] or needed[2],
        )  # fmt: skip
        found = Found(states, hidden, reverse, resets)
        grads = gradients(
            d_gates, d_projected, d_hidden, d_cell, input, found, weight_ih, tape, needed, backend
        )
    return (*grads, *(None,) * 5)


def gradients(
    d_gates: Tensor,
    d_projected: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
    input: Tensor,
    found: Found,
    weight_ih: Tensor,
    tape: Tensor,
    needed: tuple[bool, ...],
    backend: str,
) -> list[Tensor | None]:
    """From the gates' gradients ``[T, B, 4, H]``, which ``backend`` computed, to those of the operator's
    inputs, by matrix products over all steps at once."""
    d_rows = rows(d_gates)  # [T*B, 4H]
    grads: list[Tensor | None] = [None] * _DIFFERENTIABLE
    if needed[0]:
        grads[0] = own_input_gradient("LSTM", backend, d_gates, weight_ih)
        if grads[0] is None:
            grads[0] = product(d_rows, weight_ih).reshape(input.shape)
    if needed[1]:
        grads[1] = d_hidden
    if needed[2]:
        grads[2] = d_cell
    own = own_weight_gradients("LSTM", backend, d_gates, input, found, needed[3:7])
    if own is not None:
        grads[3:7] = own
    else:
        if needed[3]:
            grads[3] = weight_gradient(d_rows, rows(input))
        if needed[4]:
            grads[4] = weight_gradient(d_rows, rows(found.whole()))
        if needed[5] or needed[6]:
            d_bias = d_rows.sum(0)
            grads[5:7] = (d_bias if needed[5] else None, d_bias.clone() if needed[6] else None)
    if needed[7]:
        saved = LSTMTape(*tape.unbind(2))
        shown = saved.output * torch.tanh(saved.cell)
        grads[7] = weight_gradient(rows(d_projected), rows(shown))
    return grads


def _recompute(
    d_states: Tensor | None,
    d_last_hidden: Tensor | None,
    d_last_cell: Tensor | None,
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
    states: Tensor,
    cells: Tensor,
    reverse: bool,
    needed: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    """The gradients of the operator's inputs (empty where not needed) from its states and cell states."""
    T, B, P, H = *input.shape[:2], hidden.shape[-1], cell.shape[-1]
    weights = (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    check_lstm(input, hidden, cell, *weights)
    check_rows(lengths, resets, T, B)
    check_shape("states", states, "T B P", (T, B, P))
    check_shape("cells", cells, "T B slots H", (T, B, 1, H))
    if d_states is not None:
        check_shape("d_states", d_states, "T B P", (T, B, P))
    if d_last_hidden is not None:
        check_shape("d_last_hidden", d_last_hidden, "B P", (B, P))
    if d_last_cell is not None:
        check_shape("d_last_cell", d_last_cell, "B H", (B, H))
    kernels = _ops.implementation(backend)
    totals = Totals((input, hidden, cell, *weights), needed, states=2)
    d_hidden, d_cell = d_last_hidden, d_last_cell
    for span in spans(input, len(LSTMTape._fields) + len(LSTM_GATES), cell.shape[-1], reverse):
        x, after, d, forgets = (span.of(part) for part in (input, states, d_states, resets))
        assert x is not None
        assert after is not None
        some = span.lengths(lengths)
        start, start_cell = span.before(states, hidden), span.before(cells[:, :, 0], cell)
        _, _, tape = kernels.lstm_forward(x, start, start_cell, *weights, some, forgets, reverse, Keep.TAPE)
        d_gates, d_projected, d_hidden, d_cell = kernels.lstm_backward(
            d, d_hidden, d_cell, start, start_cell, weight_hh, weight_hr, some, forgets, after, tape, reverse
        )
        found = Found(after, start, reverse, forgets)
        grads = gradients(
            d_gates, d_projected, d_hidden, d_cell, x, found, weight_ih, tape, tuple(needed), backend
        )
        totals.add(span, grads)
    return totals.finish()


register_recompute(
    "lstm_sequence_recompute",
    "(Tensor? d_states, Tensor? d_last_hidden, Tensor? d_last_cell, Tensor input, Tensor hidden, Tensor cell,"
    " Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, Tensor? weight_hr,"
    " Tensor? lengths, Tensor? resets, Tensor states, Tensor cells, bool reverse, bool[] needed,"
    " str backend)",
    _recompute,
    first=3,
    count=_DIFFERENTIABLE,
)
torch.library.register_autograd("gatedcells::lstm_sequence", backward, setup_context=_setup)
LSTMSequence = as_function("LSTMSequence", _ops.run_lstm_sequence, _setup, backward)
