"""The GRU's kernels on tensors: the contract of a backend (see `gatedcells_kernels.tape`)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from gatedcells_kernels.cpu import library, memory
from gatedcells_kernels.cpu.library import address
from gatedcells_kernels.cpu.packing import (
    BACKWARD_PANELS,
    FORWARD_PANELS,
    form_for,
    prepared,
    prepared_call,
)
from gatedcells_kernels.cpu.products import PreparedWeightGradients
from gatedcells_kernels.tape import GRU_GATE_GRADS, GRUTape, Keep


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
    native = library.load()
    T, B, I = input.shape
    H = hidden.shape[-1]
    states = library.empty(hidden, T, B, H)
    tape = memory.working(hidden, T, B, len(GRUTape._fields), H) if keep == Keep.TAPE else hidden.new_empty(0)
    if states.numel() == 0:
        return states, tape
    # everything that the kernel reads is held by a name until it is done
    input, hidden = input.contiguous(), hidden.contiguous()
    form = form_for(native, T, B, input.dtype)
    prepare = functools.partial(prepared, native, form)
    w_x = prepare(weight_ih, gates=3)
    w_h = prepare(weight_hh, gates=3 if reset_after else 2, rows=(0, (3 if reset_after else 2) * H))
    w_n = None if reset_after else prepare(weight_hh, rows=(2 * H, 3 * H))
    bias_x = None if bias_ih is None else bias_ih.contiguous()
    bias_h = None if bias_hh is None else bias_hh.contiguous()
    rows = None if lengths is None else lengths.to(torch.int64).contiguous()
    resets = None if resets is None else resets.contiguous()
    library.run(
        native, "GatedcellsGRU",
        T=T, B=B, I=I, H=H, reverse=reverse, reset_after=reset_after, form=form,
        dtype=library.DTYPES[input.dtype], input=input, hidden=hidden, w_x=w_x, w_h=w_h, w_n=w_n,
        bias_x=bias_x, bias_h=bias_h, lengths=rows, resets=resets, states=states, last=None,
        tape=tape if keep == Keep.TAPE else None, origin_x=None, origin_h=None,
    )  # fmt: skip
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
    native = library.load()
    T, B, H = states.shape
    d_gates = memory.working(states, T, B, len(GRU_GATE_GRADS), H)
    d_hidden = states.new_empty(B, H)
    if states.numel() == 0:
        return d_gates, d_hidden
    d_states = None if d_states is None else d_states.contiguous()
    d_last = None if d_last is None else d_last.contiguous()
    hidden, states, tape = hidden.contiguous(), states.contiguous(), tape.contiguous()
    form = form_for(native, T, B, states.dtype)
    prepare = functools.partial(prepared, native, form, by_rows=False)
    w_h = prepare(weight_hh, rows=(0, 3 * H if reset_after else 2 * H))
    w_n = None if reset_after else prepare(weight_hh, rows=(2 * H, 3 * H))
    rows = None if lengths is None else lengths.to(torch.int64).contiguous()
    resets = None if resets is None else resets.contiguous()
    library.run(
        native, "GatedcellsGRUBackward",
        T=T, B=B, H=H, reverse=reverse, reset_after=reset_after, form=form,
        dtype=library.DTYPES[states.dtype],
        d_states=d_states, d_last=d_last, hidden=hidden, w_h=w_h, w_n=w_n, lengths=rows, resets=resets,
        states=states, tape=tape, d_gates=d_gates, d_hidden=d_hidden, initial=initial,
        origin_h=None,
    )  # fmt: skip
    return d_gates, d_hidden


class GRUInference:
    """Forward runs of one shape without a tape, for tensors that the caller knows to be contiguous, on the
    CPU and of one dtype: what is left of `gru_forward` once everything else is known.

    Args:
        T, B, I, H: the shape.
        weights: weight_ih, weight_hh and, if there are any, both biases; they may get other numbers, but not
            in another place.
        apart: whether the last state is a tensor of its own; else T is 1.
    """

    def __init__(
        self, T: int, B: int, I: int, H: int, weights: tuple[Tensor | None, ...], apart: bool
    ) -> None:
        weight = weights[0]
        assert weight is not None
        self._states = library.made_like(weight, T, B, H) if apart else None
        self._run = _forward(T, B, I, H, weights)

    def __call__(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """All states ``[T, B, H]`` and the last one, shaped like ``hidden``; if they do not lie apart, one
        tensor is both."""
        x = input.data_ptr() or library.without_memory(input)
        h = hidden.data_ptr() or library.without_memory(hidden)
        last, threads = torch.empty_like(hidden), torch.get_num_threads()
        if self._states is None:
            self._run((threads, x, h, last.data_ptr(), 0, 0))
            return last, last
        states = self._states()
        self._run((threads, x, h, states.data_ptr(), last.data_ptr(), 0))
        return states, last


class GRUTraining:
    """Runs of one shape with a tape and back, as `GRUInference` runs without: what is left of `gru_forward`
    and `gru_backward` once everything else is known.

    Args:
        T, B, I, H: the shape.
        weights: as for `GRUInference`.
    """

    def __init__(self, T: int, B: int, I: int, H: int, weights: tuple[Tensor | None, ...]) -> None:
        weight = weights[0]
        assert weight is not None
        self.shape, self.last_shape = (T, B, H), (1, B, H)
        self.tape_shape = (T, B, len(GRUTape._fields), H)
        self._states = library.made_like(weight, *self.shape)
        self._last = library.made_like(weight, *self.last_shape)
        self._tape = memory.working_like(weight, *self.tape_shape)
        self._d_gates = memory.working_like(weight, T, B, len(GRU_GATE_GRADS), H)
        self._forward = _forward(T, B, I, H, weights)
        self.input_shape = (T, B, I)
        self.weight_gradients = PreparedWeightGradients("GRU", T, B, I, H, weight)
        # packs the weight anew, which a call that no backward pass follows need not
        self._backward = functools.cache(lambda: _backward(T, B, H, weights))

    def forward(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tape ``[T, B, 4, H]``, all states ``[T, B, H]`` and the last one ``[1, B, H]``."""
        states, last, tape = self._states(), self._last(), self._tape()
        self._forward(
            (torch.get_num_threads(), address(input), address(hidden), states.data_ptr(), last.data_ptr(),
             tape.data_ptr())
        )  # fmt: skip
        return tape, states, last

    def backward(
        self,
        d_states: Tensor | None,
        d_last: Tensor | None,
        hidden: Tensor,
        states: Tensor,
        tape: Tensor,
        initial: bool,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of the gates and of the initial state ``[1, B, H]``; see `gru_backward`."""
        d_gates, d_hidden = self._d_gates(), self._last()
        self._backward()(
            (torch.get_num_threads(), initial, address(d_states), address(d_last), address(hidden),
             address(states), address(tape), d_gates.data_ptr(), d_hidden.data_ptr())
        )  # fmt: skip
        return d_gates, d_hidden


def _forward(
    T: int, B: int, I: int, H: int, weights: tuple[Tensor | None, ...]
) -> Callable[[tuple[int, ...]], bool]:
    """A forward call of which threads, input, hidden, states, last and tape are given each time."""
    w_x, w_h, bias_x, bias_h = (*weights, None, None)[:4]
    return prepared_call(
        "GatedcellsGRU", T, B, ("threads", "input", "hidden", "states", "last", "tape"), FORWARD_PANELS,
        (w_x, w_h), gates=3, I=I, H=H, reset_after=True, w_n=None, bias_x=bias_x, bias_h=bias_h,
    )  # fmt: skip


def _backward(
    T: int, B: int, H: int, weights: tuple[Tensor | None, ...]
) -> Callable[[tuple[int, ...]], bool]:
    """A backward call of which threads, initial, d_states, d_last, hidden, states, tape, d_gates and d_hidden
    are given each time."""
    changing = (
        "threads", "initial", "d_states", "d_last", "hidden", "states", "tape", "d_gates", "d_hidden",
    )  # fmt: skip
    return prepared_call(
        "GatedcellsGRUBackward", T, B, changing, BACKWARD_PANELS, weights[1:2], by_rows=False, H=H,
        reset_after=True, w_n=None,
    )  # fmt: skip
