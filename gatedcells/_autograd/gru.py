"""The gradient of one direction of one GRU layer, whoever computed it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gatedcells import _ops
from gatedcells._autograd.recompute import Totals, only, register_recompute, spans
from gatedcells._autograd.rules import (
    as_function,
    is_traced,
    kernel_cannot_differentiate,
    product,
    rows,
    save,
    through_reference,
    weight_gradient,
)
from gatedcells.reference import gru
from gatedcells.reference.time import previous_states
from gatedcells.validation import check_gru, check_rows, check_shape
from gatedcells_kernels.tape import GRU_GATE_GRADS, GRUTape, Keep

_DIFFERENTIABLE = 6  # input, hidden, weight_ih, weight_hh, bias_ih, bias_hh
_FEW_ROWS = 256


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, lengths, resets, reverse, reset_after, keep, backend = inputs
    states, _, tape = output
    ctx.options = (reverse, reset_after, keep, backend)
    save(ctx, tape, *tensors, lengths, resets, states)


def backward(ctx: Any, d_states: Tensor | None, d_last: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    tape, *tensors, lengths, resets, states = ctx.saved_tensors
    reverse, reset_after, keep, backend = ctx.options
    needed = ctx.needs_input_grad[:_DIFFERENTIABLE]
    if d_states is None and d_last is None:  # what came after has no gradient: neither has this
        return (None,) * (_DIFFERENTIABLE + 6)
    if kernel_cannot_differentiate(keep):
        run = partial(gru.unroll, lengths=lengths, resets=resets, reverse=reverse, reset_after=reset_after)
        grads = through_reference(run, tensors, needed, (d_states, d_last))
    elif keep == Keep.STATES:
        recompute = _ops.operator("gru_sequence_recompute", (d_states, d_last, *tensors), _recompute)
        found = recompute(
            d_states, d_last, *tensors, lengths, resets, states, reverse, reset_after, needed, backend
        )
        grads = only(found, needed)
    else:
        input, hidden, weight_ih, weight_hh, _, _ = tensors
        run_backward = _ops.operator(
            "gru_sequence_backward", (d_states, d_last, *tensors), _ops.run_gru_sequence_backward
        )
        d_gates, d_hidden = run_backward(
            d_states, d_last, hidden, weight_hh, lengths, resets, states, tape, reverse, reset_after,
            backend, needed[1],
        )  # fmt: skip
        previous = previous_states(states, hidden, reverse, resets)
        grads = gradients(
            d_gates, d_hidden, input, previous, weight_ih, tape, needed, reset_after=reset_after
        )
    return (*grads, *(None,) * 6)


def gradients(
    d_gates: Tensor,
    d_hidden: Tensor,
    input: Tensor,
    previous: Tensor,
    weight_ih: Tensor,
    tape: Tensor,
    needed: tuple[bool, ...],
    *,
    reset_after: bool,
) -> list[Tensor | None]:
    """From the gates' gradients ``[T, B, 4, H]`` to those of the operator's inputs, by matrix products
    over all steps at once."""
    H = previous.shape[-1]
    d_rows = rows(d_gates)  # [T*B, 4H]: n (input half), r, z, n (hidden half)
    d_x, d_h = d_rows[:, : 3 * H], d_rows[:, H:]
    # d_x has the candidate first, the weights have it last: what is less is turned, the rows or (twice) those
    few = not is_traced() and len(d_rows) < max(2 * input.shape[-1], _FEW_ROWS)
    if few:
        d_x = d_x.roll(-H, 1)
    grads: list[Tensor | None] = [None] * _DIFFERENTIABLE
    if needed[0]:
        grads[0] = product(d_x, weight_ih if few else weight_ih.roll(H, 0)).reshape(input.shape)
    if needed[1]:
        grads[1] = d_hidden
    if needed[2]:
        found = weight_gradient(d_x, rows(input))
        grads[2] = found if few else found.roll(-H, 0)
    if needed[3]:
        before = rows(previous)
        if reset_after:
            grads[3] = weight_gradient(d_h, before)
        else:
            reset = rows(GRUTape(*tape.unbind(2)).reset)
            grads[3] = torch.cat(
                [
                    weight_gradient(d_h[:, : 2 * H], before),
                    weight_gradient(d_h[:, 2 * H :], reset * before),
                ]
            )
    if few and len(d_rows) == 1:  # no sum, and one half is turned already
        grads[4] = d_x[0] if needed[4] else None
        grads[5] = d_h[0] if needed[5] else None
    elif needed[4] or needed[5]:
        total = d_rows.sum(0)
        grads[4] = total[: 3 * H].roll(-H, 0) if needed[4] else None
        grads[5] = total[H:] if needed[5] else None
    return grads


def _recompute(
    d_states: Tensor | None,
    d_last: Tensor | None,
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    reverse: bool,
    reset_after: bool,
    needed: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    """The gradients of the operator's inputs (empty where not needed) from its states alone."""
    T, B, H = *input.shape[:2], hidden.shape[-1]
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    check_gru(input, hidden, *weights)
    check_rows(lengths, resets, T, B)
    check_shape("states", states, "T B H", (T, B, H))
    if d_states is not None:
        check_shape("d_states", d_states, "T B H", (T, B, H))
    if d_last is not None:
        check_shape("d_last", d_last, "B H", (B, H))
    kernels = _ops.implementation(backend)
    totals = Totals((input, hidden, *weights), needed, states=1)
    d_hidden = d_last
    for span in spans(input, len(GRUTape._fields) + len(GRU_GATE_GRADS), hidden.shape[-1], reverse):
        x, found, d, forgets = (span.of(part) for part in (input, states, d_states, resets))
        assert x is not None
        assert found is not None
        start, some = span.before(states, hidden), span.lengths(lengths)
        _, tape = kernels.gru_forward(x, start, *weights, some, forgets, reverse, reset_after, Keep.TAPE)
        d_gates, d_hidden = kernels.gru_backward(
            d, d_hidden, start, weight_hh, some, forgets, found, tape, reverse, reset_after
        )
        previous = previous_states(found, start, reverse, forgets)
        grads = gradients(
            d_gates, d_hidden, x, previous, weight_ih, tape, tuple(needed), reset_after=reset_after
        )
        totals.add(span, grads)
    return totals.finish()


register_recompute(
    "gru_sequence_recompute",
    "(Tensor? d_states, Tensor? d_last, Tensor input, Tensor hidden, Tensor weight_ih, Tensor weight_hh,"
    " Tensor? bias_ih, Tensor? bias_hh, Tensor? lengths, Tensor? resets, Tensor states, bool reverse,"
    " bool reset_after, bool[] needed, str backend)",
    _recompute,
    first=2,
    count=_DIFFERENTIABLE,
)
torch.library.register_autograd("gatedcells::gru_sequence", backward, setup_context=_setup)
GRUSequence = as_function("GRUSequence", _ops.run_gru_sequence, _setup, backward)
