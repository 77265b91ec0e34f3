"""Both directions of one layer at once: operators for backends that can run them in one go, and their rules.

As the operators of one direction, with an axis of two in front of all tensors but the input and the lengths;
the second direction is against the order of time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gatedcells import _ops, _shapes
from gatedcells._autograd import gru as gru_rule
from gatedcells._autograd import lstm as lstm_rule
from gatedcells._autograd.rules import (
    Found,
    as_function,
    kernel_cannot_differentiate,
    save,
    through_reference,
)
from gatedcells.reference import gru, lstm
from gatedcells.validation import check_gru, check_lengths, check_lstm, check_resets
from gatedcells_kernels.tape import Keep

DIRECTIONS = (0, 1)

torch.library.define(
    "gatedcells::gru_both",
    "(Tensor input, Tensor hidden, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh,"
    " Tensor? lengths, Tensor? resets, bool reset_after, int keep, str backend)"
    " -> (Tensor states, Tensor last, Tensor tape)",
)
torch.library.define(
    "gatedcells::gru_both_backward",
    "(Tensor? d_states, Tensor? d_last, Tensor hidden, Tensor weight_hh, Tensor? lengths, Tensor? resets,"
    " Tensor states, Tensor tape, bool reset_after, str backend) -> (Tensor d_gates, Tensor d_hidden)",
)
torch.library.define(
    "gatedcells::lstm_both",
    "(Tensor input, Tensor hidden, Tensor cell, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih,"
    " Tensor? bias_hh, Tensor? weight_hr, Tensor? lengths, Tensor? resets, int keep, str backend)"
    " -> (Tensor states, Tensor last_hidden, Tensor last_cell, Tensor tape)",
)
torch.library.define(
    "gatedcells::lstm_both_backward",
    "(Tensor? d_states, Tensor? d_last_hidden, Tensor? d_last_cell, Tensor hidden, Tensor cell,"
    " Tensor weight_hh, Tensor? weight_hr, Tensor? lengths, Tensor? resets, Tensor states, Tensor tape,"
    " str backend) -> (Tensor d_gates, Tensor d_projected, Tensor d_hidden, Tensor d_cell)",
)


def of(direction: int, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """One direction's part of each."""
    return [None if tensor is None else tensor[direction] for tensor in tensors]


def stacked(found: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """What two directions returned, each pair as one tensor."""
    return tuple(torch.stack(pair) for pair in zip(*found, strict=True))


def _last(states: Tensor) -> Tensor:
    # the second direction ends at the first time
    return torch.stack((states[0, -1], states[1, 0]))


def run_gru_both(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, lengths, resets, reset_after, keep, backend = arguments
    kernels = _ops.implementation(backend)
    states, tape = kernels.gru_both_forward(*tensors, lengths, resets, reset_after, Keep(keep))
    return states, _last(states), tape


def run_lstm_both(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *tensors, lengths, resets, keep, backend = arguments
    kernels = _ops.implementation(backend)
    states, last_cell, tape = kernels.lstm_both_forward(*tensors, lengths, resets, Keep(keep))
    return states, _last(states), last_cell, tape


def _gru_both(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    input, *tensors, lengths, resets = arguments[:8]
    for direction in DIRECTIONS:
        check_gru(input, *of(direction, tensors))  # type: ignore[arg-type]
        check_resets(None if resets is None else resets[direction], input)
    check_lengths(lengths, input)
    return run_gru_both(*arguments)


def _lstm_both(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    input, *tensors, lengths, resets = arguments[:10]
    for direction in DIRECTIONS:
        check_lstm(input, *of(direction, tensors))  # type: ignore[arg-type]
        check_resets(None if resets is None else resets[direction], input)
    check_lengths(lengths, input)
    return run_lstm_both(*arguments)


def run_gru_both_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *given, backend = arguments
    return _ops.implementation(backend).gru_both_backward(*given)


def run_lstm_both_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *given, backend = arguments
    return _ops.implementation(backend).lstm_both_backward(*given)


def _gru_rule(ctx: Any, d_states: Tensor | None, d_last: Tensor | None, _: None) -> tuple[Any, ...]:
    tape, input, hidden, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, states = ctx.saved_tensors
    reset_after, keep, backend = ctx.options
    needed = ctx.needs_input_grad[:6]
    if d_states is None and d_last is None:  # what came after has no gradient: neither has this
        return (None,) * 11
    if kernel_cannot_differentiate(keep):

        def run(input: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            return stacked([
                gru.unroll(
                    input, *of(d, tensors), lengths=lengths, resets=of(d, [resets])[0], reverse=d == 1,  # type: ignore[arg-type]
                    reset_after=reset_after,
                )
                for d in DIRECTIONS
            ])  # fmt: skip

        tensors = [input, hidden, weight_ih, weight_hh, bias_ih, bias_hh]
        return (*through_reference(run, tensors, needed, (d_states, d_last)), *(None,) * 5)
    backward = _ops.operator(
        "gru_both_backward", (d_states, d_last, input, hidden, weight_hh), run_gru_both_backward
    )
    d_gates, d_hidden = backward(
        d_states, d_last, hidden, weight_hh, lengths, resets, states, tape, reset_after, backend
    )

    def gradients(d: int) -> list[Tensor | None]:
        found = Found(states[d], hidden[d], d == 1, None if resets is None else resets[d])
        return gru_rule.gradients(
            d_gates[d], d_hidden[d], input, found, weight_ih[d], tape[d], needed, backend,
            reset_after=reset_after,
        )  # fmt: skip

    return (*_joined(gradients), *(None,) * 5)


def _lstm_rule(
    ctx: Any, d_states: Tensor | None, d_last: Tensor | None, d_last_cell: Tensor | None, _: None
) -> tuple[Any, ...]:
    tape, *tensors, lengths, resets, states = ctx.saved_tensors
    input, hidden, cell, weight_ih, weight_hh, _, _, weight_hr = tensors
    keep, backend = ctx.options
    needed = ctx.needs_input_grad[:8]
    if d_states is None and d_last is None and d_last_cell is None:  # what came after has no gradient
        return (None,) * 12
    if kernel_cannot_differentiate(keep):

        def run(input: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            return stacked([
                lstm.unroll(
                    input, *of(d, tensors), lengths=lengths, resets=of(d, [resets])[0], reverse=d == 1  # type: ignore[arg-type]
                )
                for d in DIRECTIONS
            ])  # fmt: skip

        d_outputs = (d_states, d_last, d_last_cell)
        return (*through_reference(run, tensors, needed, d_outputs), *(None,) * 4)
    backward = _ops.operator(
        "lstm_both_backward",
        (d_states, d_last, d_last_cell, input, hidden, weight_hh),
        run_lstm_both_backward,
    )
    d_gates, d_projected, d_hidden, d_cell = backward(
        d_states, d_last, d_last_cell, hidden, cell, weight_hh, weight_hr, lengths, resets, states, tape,
        backend,
    )  # fmt: skip

    def gradients(d: int) -> list[Tensor | None]:
        found = Found(states[d], hidden[d], d == 1, None if resets is None else resets[d])
        projected = d_projected if weight_hr is None else d_projected[d]
        return lstm_rule.gradients(
            d_gates[d],
            projected,
            d_hidden[d],
            d_cell[d],
            input,
            found,
            weight_ih[d],
            tape[d],
            needed,
            backend,
        )

    return (*_joined(gradients), *(None,) * 4)


def _joined(gradients: Callable[[int], list[Tensor | None]]) -> list[Tensor | None]:
    """Both directions' gradients: the input's added up, the others side by side."""
    first, second = (gradients(d) for d in DIRECTIONS)
    joined: list[Tensor | None] = []
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a is None or b is None:
            joined.append(None)
        else:
            joined.append(a + b if number == 0 else torch.stack((a, b)))
    return joined


def _gru_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, lengths, resets, reset_after, keep, backend = inputs
    ctx.options = (reset_after, keep, backend)
    save(ctx, output[2], *tensors, lengths, resets, output[0])


def _lstm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *tensors, lengths, resets, keep, backend = inputs
    ctx.options = (keep, backend)
    save(ctx, output[3], *tensors, lengths, resets, output[0])


_ops.register("gru_both", _gru_both, _shapes.gru_both)
_ops.register("gru_both_backward", run_gru_both_backward, _shapes.gru_both_backward)
_ops.register("lstm_both", _lstm_both, _shapes.lstm_both)
_ops.register("lstm_both_backward", run_lstm_both_backward, _shapes.lstm_both_backward)
torch.library.register_autograd("gatedcells::gru_both", _gru_rule, setup_context=_gru_setup)
torch.library.register_autograd("gatedcells::lstm_both", _lstm_rule, setup_context=_lstm_setup)
GRUBoth = as_function("GRUBoth", run_gru_both, _gru_setup, _gru_rule)
LSTMBoth = as_function("LSTMBoth", run_lstm_both, _lstm_setup, _lstm_rule)
