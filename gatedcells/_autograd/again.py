"""Training calls that were checked before: both passes with all that does not change prepared.

The rules are those of `gatedcells._autograd.gru` and `lstm`. A backward pass that finds anything else than
the kernels expect (it is to be differentiated, somebody watches operators, a hook changed what was saved) is
left to them whole.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells import _ops
from gatedcells._autograd import gru, lstm
from gatedcells._autograd.rules import Found, kernel_cannot_differentiate
from gatedcells_kernels.tape import Keep


def with_gradients(
    cell: str, input: Tensor, H: int, weights: tuple[Tensor | None, ...], backend: str
) -> Callable[..., tuple[Tensor, ...]]:
    """What computes a layer's outputs, differentiable, for input and states like these; see
    `gatedcells.functional.again`.

    Args:
        cell: "GRU" or "LSTM".
        input: ``[T, B, I]``.
        H: hidden units.
        weights: weight_ih, weight_hh and, if there are any, both biases.
        backend: one that has `gatedcells._ops.prepared_kernels`.
    """
    padded = (*weights, None, None)[:4]
    kernels: Any = _ops.prepared_kernels(backend)
    T, B, I = input.shape
    if cell == "GRU":
        training = _Training(kernels.GRUTraining(T, B, I, H, padded), _GRU, padded, backend)
    else:
        training = _Training(kernels.LSTMTraining(T, B, I, H, padded), _LSTM, padded, backend)
    return lambda *input_and_states: _PreparedSequence.apply(*input_and_states, *padded, training)


class _Rule(NamedTuple):
    """A cell's rule, and how a call that was prepared looks to it.

    Attributes:
        states: how many the cell has.
        absent: how many tensors of the operator a prepared call lacks: weight_hr, lengths, resets.
        options: of the operator.
        backward: the rule.
        gradients: from those of the gates and of the initial states to those of the operator's inputs.
    """

    states: int
    absent: int
    options: tuple[object, ...]
    backward: Callable[..., tuple[Tensor | None, ...]]
    gradients: Callable[..., list[Tensor | None]]


def _gru_gradients(d_gates: Tensor, d_hidden: Tensor, *found: Any) -> list[Tensor | None]:
    return gru.gradients(d_gates, d_hidden, *found, reset_after=True)


def _lstm_gradients(d_gates: Tensor, d_hidden: Tensor, d_cell: Tensor, *found: Any) -> list[Tensor | None]:
    # without a projection its gradient is not read
    return lstm.gradients(d_gates, d_gates, d_hidden, d_cell, *found)


_GRU = _Rule(1, 2, (False, True, Keep.TAPE), gru.backward, _gru_gradients)
_LSTM = _Rule(2, 3, (False, Keep.TAPE), lstm.backward, _lstm_gradients)


class _Training:
    """A cell's kernels for calls of one shape, and whether a backward pass may go to them."""

    def __init__(self, kernels: Any, rule: _Rule, weights: tuple[Tensor | None, ...], backend: str) -> None:
        self.kernels = kernels
        self.rule = rule
        self.backend = backend
        assert weights[1] is not None
        self._address, self._weight_shape = weights[1].data_ptr(), weights[1].shape
        # what was taken last: which were None, and what tells whether the others are like those
        self._taken: tuple[list[bool], Callable[..., bool]] = [], bool

    def takes(
        self,
        input: Tensor,
        weight_hh: Tensor,
        like_states: Sequence[Tensor | None],
        like_last: Sequence[Tensor | None],
        tape: Tensor,
    ) -> bool:
        """Whether the kernels can be given what a backward pass has found: gradients and what was saved, of
        which some are shaped like all states and some like the last one."""
        if kernel_cannot_differentiate(Keep.TAPE) or _ops.sees_every_call():
            return False
        # ``weight.data = ...`` goes past autograd's own check
        if weight_hh.data_ptr() != self._address or not weight_hh.is_contiguous():
            return False
        given = (input, weight_hh, *like_states, *like_last, tape)
        present, missing = [tensor for tensor in given if tensor is not None], [t is None for t in given]
        last_missing, are_alike = self._taken
        if missing == last_missing and are_alike(*present):
            return True
        kernels, dtype = self.kernels, weight_hh.dtype
        for shape, tensors in (
            (kernels.input_shape, (input,)),
            (kernels.shape, like_states),
            (kernels.last_shape, like_last),
            (kernels.tape_shape, (tape,)),
            (self._weight_shape, (weight_hh,)),
        ):
            for tensor in tensors:
                if tensor is not None and not (
                    _ops.is_plain(tensor)
                    and tensor.shape == shape
                    and tensor.dtype is dtype
                    and tensor.is_cpu
                ):
                    return False
        self._taken = missing, _ops.alike(*present)
        return True

    def gradients(
        self,
        input: Tensor,
        weight_ih: Tensor,
        states: Tensor,
        d_states: Tensor | None,
        initial: Sequence[Tensor],
        d_last: Sequence[Tensor | None],
        tape: Tensor,
        needed: tuple[bool, ...],
    ) -> list[Tensor | None]:
        """The gradients of input, initial states and weights, those that are ``needed``, from what `takes`
        has accepted."""
        kernels, count = self.kernels, self.rule.states
        of_initial, of_weights = needed[1 : 1 + count], needed[1 + count : 5 + count]
        input, states, tape = input.contiguous(), states.contiguous(), tape.contiguous()
        initial = [state.contiguous() for state in initial]
        d_outputs = [None if d is None else d.contiguous() for d in (d_states, *d_last)]
        d_gates, *d_initial = kernels.backward(*d_outputs, *initial, states, tape, any(of_initial))
        own: Sequence[Tensor | None] | None = (None,) * 4
        if any(of_weights):
            own = kernels.weight_gradients(d_gates, input, initial[0], states, of_weights)
        if own is not None and not needed[0]:
            given = zip(d_initial, of_initial, strict=True)
            return [None, *[d if need else None for d, need in given], *own]
        before = Found(states, initial[0][0], reverse=False)
        asked = needed if own is None else (*needed[: 1 + count], *(False,) * 4, *needed[5 + count :])
        grads = self.rule.gradients(d_gates, *d_initial, input, before, weight_ih, tape, asked, self.backend)
        return grads if own is None else [*grads[: 1 + count], *own]


def _forward(ctx: Any, input: Tensor, *given: Any) -> tuple[Tensor, ...]:
    *others, training = given
    tape, *outputs = training.kernels.forward(input, *others[: training.rule.states])
    ctx.training = training
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(tape, outputs[0], input, *others)
    return tuple(outputs)


def _backward(ctx: Any, d_states: Tensor | None, *d_last: Tensor | None) -> tuple[Tensor | None, ...]:
    tape, states, input, *others = ctx.saved_tensors
    training, needed = ctx.training, ctx.needs_input_grad
    rule: _Rule = training.rule
    initial, weights = others[: rule.states], others[rule.states :]
    if training.takes(input, weights[1], (states, d_states), (*initial, *d_last), tape):
        grads = training.gradients(input, weights[0], states, d_states, initial, d_last, tape, needed)
    else:
        call = SimpleNamespace(
            saved_tensors=(tape, input, *[t[0] for t in initial], *weights, *[None] * rule.absent, states),
            options=(*rule.options, training.backend),
            needs_input_grad=needed,
        )
        one = [None if d is None else d[0] for d in d_last]
        d_input, *d_others = rule.backward(call, d_states, *one, None)
        d_initial = [None if d is None else d[None] for d in d_others[: rule.states]]
        grads = [d_input, *d_initial, *d_others[rule.states :]]
    return (*grads, None)[: len(needed)]


_PreparedSequence: Any = type(
    "PreparedSequence",
    (torch.autograd.Function,),
    {"forward": staticmethod(_forward), "backward": staticmethod(_backward)},
)
