"""The gradient of one direction of one GRU layer, whoever computed it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gatedcells import _ops
from gatedcells._autograd.recompute import Totals, only, register_recompute, spans
from gatedcells._autograd.rules import (
    Found,
    as_function,
    is_traced,
    kernel_cannot_differentiate,
    own_input_gradient,
    own_weight_gradients,
    product,
    rows,
    save,
    through_reference,
    weight_gradient,
)
from gatedcells.reference import gru
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
        every = recompute(
            d_states, d_last, *tensors, lengths, resets, states, reverse, reset_after, needed, backend
        )
        grads = only(every, needed)
    else:
        input, hidden, weight_ih, weight_hh, _, _ = tensors
        run_backward = _ops.operator(
            "gru_sequence_backward", (d_states, d_last, *tensors), _ops.run_gru_sequence_backward
        )
        d_gates, d_hidden = run_backward(
            d_states, d_last, hidden, weight_hh, lengths, resets, states, tape, reverse, reset_after,
            backend, needed[1],
        )  # fmt: skip
        found = Found(states, hidden, reverse, resets)
        grads = gradients(
            d_gates, d_hidden, input, found, weight_ih, tape, needed, backend, reset_after=reset_after
        )
    return (*grads, *(None,) * 6)


def gradients(
    d_gates: Tensor,
    d_hidden: Tensor,
    input: Tensor,
    found: Found,
    weight_ih: Tensor,
    tape: Tensor,
    needed: tuple[bool, ...],
    backend: str,
    *,
    reset_after: bool,
) -> list[Tensor | None]:
    """From the gates' gradients ``[T, B, 4, H]``, which ``backend`` computed, to those of the operator's
    inputs, by matrix products over all steps at once."""
    grads: list[Tensor | None] = [None] * _DIFFERENTIABLE
    if needed[1]:
        grads[1] = d_hidden
    wanted = list(needed[:_DIFFERENTIABLE])
    # where the reset gate acts first, the candidate's rows of weight_hh have read something else
    asked = [wanted[2], wanted[3] and reset_after, *wanted[4:]]
    own = own_weight_gradients("GRU", backend, d_gates, input, found, asked)
    if own is not None:
        grads[2:], wanted[2:] = own, [want and not ask for want, ask in zip(wanted[2:], asked, strict=True)]
    if wanted[0]:
        grads[0] = own_input_gradient("GRU", backend, d_gates, weight_ih)
        wanted[0] = grads[0] is None
    if wanted[0] or any(wanted[2:]):
        _by_products(grads, d_gates, input, found, weight_ih, tape, wanted, reset_after)
    return grads


def _by_products(
    grads: list[Tensor | None],
    d_gates: Tensor,
    input: Tensor,
    found: Found,
    weight_ih: Tensor,
    tape: Tensor,
    wanted: list[bool],
    reset_after: bool,
) -> None:
    """Those of `gradients` that are ``wanted``, by torch's products."""
    H = d_gates.shape[-1]
    d_rows = rows(d_gates)  # [T*B, 4H]: n (input half), r, z, n (hidden half)
    d_x, d_h = d_rows[:, : 3 * H], d_rows[:, H:]
    # d_x has the candidate first, the weights have it last: what is less is turned, the rows or (twice) those
    few = not is_traced() and len(d_rows) < max(2 * input.shape[-1], _FEW_ROWS)
    if few and (wanted[0] or wanted[2] or wanted[4]):
        d_x = d_x.roll(-H, 1)
    if wanted[0]:
        grads[0] = product(d_x, weight_ih if few else weight_ih.roll(H, 0)).reshape(input.shape)
    if wanted[2]:
        total = weight_gradient(d_x, rows(input))
        grads[2] = total if few else total.roll(-H, 0)
    if wanted[3]:
        before = rows(found.whole())
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
        grads[4:] = [d_x[0] if wanted[4] else grads[4], d_h[0] if wanted[5] else grads[5]]
    elif wanted[4] or wanted[5]:
        total = d_rows.sum(0)
        grads[4:] = [total[: 3 * H].roll(-H, 0) if wanted[4] else None, total[H:] if wanted[5] else None]


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
        x, after, d, forgets = (span.of(part) for part in (input, states, d_states, resets))
        assert x is not None
        assert after is not None
        start, some = span.before(states, hidden), span.lengths(lengths)
        _, tape = kernels.gru_forward(x, start, *weights, some, forgets, reverse, reset_after, Keep.TAPE)
        d_gates, d_hidden = kernels.gru_backward(
            d, d_hidden, start, weight_hh, some, forgets, after, tape, reverse, reset_after
        )
        grads = gradients(
            d_gates, d_hidden, x, Found(after, start, reverse, forgets), weight_ih, tape, tuple(needed),
            backend, reset_after=reset_after,
        )  # fmt: skip
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
