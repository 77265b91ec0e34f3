"""The LSTM's kernels on tensors: the contract of a backend (see `gatedcells_kernels.tape`)."""

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
from gatedcells_kernels.tape import LSTM_GATES, LSTM_SLOTS, Keep


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
    native = library.load()
    T, B, I = input.shape
    H, P = cell.shape[-1], hidden.shape[-1]
    states, last_cell = library.empty(hidden, T, B, P), cell.new_empty(B, H)
    tape = memory.working(hidden, T, B, LSTM_SLOTS[keep], H) if keep else hidden.new_empty(0)
    if states.numel() == 0:
        return states, last_cell, tape
    # everything that the kernel reads is held by a name until it is done
    input, hidden, cell = input.contiguous(), hidden.contiguous(), cell.contiguous()
    form = form_for(native, T, B, input.dtype)
    prepare = functools.partial(prepared, native, form)
    w_x, w_h = prepare(weight_ih, gates=4), prepare(weight_hh, gates=4)
    w_p = None if weight_hr is None else prepare(weight_hr)
    bias_x = None if bias_ih is None else bias_ih.contiguous()
    bias_h = None if bias_hh is None else bias_hh.contiguous()
    rows = None if lengths is None else lengths.to(torch.int64).contiguous()
    resets = None if resets is None else resets.contiguous()
    library.run(
        native, "GatedcellsLSTM",
        T=T, B=B, I=I, H=H, P=P, reverse=reverse, form=form, dtype=library.DTYPES[input.dtype],
        input=input, hidden=hidden, cell=cell, w_x=w_x, w_h=w_h, w_p=w_p, bias_x=bias_x, bias_h=bias_h,
        lengths=rows, resets=resets, states=states, last=None, last_cell=last_cell,
        tape=tape if keep == Keep.TAPE else None, cells=tape if keep == Keep.STATES else None,
        origin_x=None, origin_h=None,
    )  # fmt: skip
    return states, last_cell, tape


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
    native = library.load()
    T, B, P = states.shape
    H = cell.shape[-1]
    d_gates = memory.working(states, T, B, len(LSTM_GATES), H)
    d_projected = states.new_empty((T, B, P) if weight_hr is not None else (0,))
    d_hidden, d_cell = states.new_empty(B, P), cell.new_empty(B, H)
    if states.numel() == 0:
        return d_gates, d_projected, d_hidden, d_cell
    d_states = None if d_states is None else d_states.contiguous()
    d_last_hidden = None if d_last_hidden is None else d_last_hidden.contiguous()
    d_last_cell = None if d_last_cell is None else d_last_cell.contiguous()
    cell, tape = cell.contiguous(), tape.contiguous()
    form = form_for(native, T, B, states.dtype)
    prepare = functools.partial(prepared, native, form, by_rows=False)
    w_h = prepare(weight_hh)
    w_p = None if weight_hr is None else prepare(weight_hr)
    rows = None if lengths is None else lengths.to(torch.int64).contiguous()
    resets = None if resets is None else resets.contiguous()
    library.run(
        native, "GatedcellsLSTMBackward",
        T=T, B=B, H=H, P=P, reverse=reverse, form=form, dtype=library.DTYPES[states.dtype],
        d_states=d_states, d_last_hidden=d_last_hidden, d_last_cell=d_last_cell, cell=cell, w_h=w_h, w_p=w_p,
        lengths=rows, resets=resets, tape=tape, d_gates=d_gates,
        d_projected=d_projected if w_p is not None else None, d_hidden=d_hidden, d_cell=d_cell,
        initial=initial, origin_h=None,
    )  # fmt: skip
    return d_gates, d_projected, d_hidden, d_cell


class LSTMInference:
    """Forward runs of one shape without a tape or a projection, for tensors that the caller knows to be
    contiguous, on the CPU and of one dtype: what is left of `lstm_forward` once everything else is known.

    Args:
        T, B, I, H: the shape.
        weights: weight_ih, weight_hh and, if there are any, both biases; they may get other numbers, but not
            in another place.
        apart: whether the last hidden state is a tensor of its own; else T is 1.
    """

    def __init__(
        self, T: int, B: int, I: int, H: int, weights: tuple[Tensor | None, ...], apart: bool
    ) -> None:
        weight = weights[0]
        assert weight is not None
        self._states = library.made_like(weight, T, B, H) if apart else None
        self._run = _forward(T, B, I, H, weights)

    def __call__(self, input: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All hidden states ``[T, B, H]``, the last one, shaped like ``hidden``, and the last cell state; if
        the first two do not lie apart, one tensor is both."""
        x = input.data_ptr() or library.without_memory(input)
        h = hidden.data_ptr() or library.without_memory(hidden)
        c = cell.data_ptr() or library.without_memory(cell)
        last, last_cell, threads = torch.empty_like(hidden), torch.empty_like(cell), torch.get_num_threads()
        if self._states is None:
            self._run((threads, x, h, c, last_cell.data_ptr(), last.data_ptr(), 0, 0))
            return last, last, last_cell
        states = self._states()
        self._run((threads, x, h, c, last_cell.data_ptr(), states.data_ptr(), last.data_ptr(), 0))
        return states, last, last_cell


class LSTMTraining:
    """Runs of one shape with a tape and back, as `LSTMInference` runs without: what is left of `lstm_forward`
    and `lstm_backward` once everything else is known.

    Args:
        T, B, I, H: the shape.
        weights: as for `LSTMInference`.
    """

    def __init__(self, T: int, B: int, I: int, H: int, weights: tuple[Tensor | None, ...]) -> None:
        weight = weights[0]
        assert weight is not None
        self.shape, self.last_shape = (T, B, H), (1, B, H)
        self.tape_shape = (T, B, LSTM_SLOTS[Keep.TAPE], H)
        self._states = library.made_like(weight, *self.shape)
        self._last = library.made_like(weight, *self.last_shape)
        self._tape = memory.working_like(weight, *self.tape_shape)
        self._d_gates = memory.working_like(weight, T, B, len(LSTM_GATES), H)
        self._forward = _forward(T, B, I, H, weights)
        self.input_shape = (T, B, I)
        self.weight_gradients = PreparedWeightGradients("LSTM", T, B, I, H, weight)
        # packs the weight anew, which a call that no backward pass follows need not
        self._backward = functools.cache(lambda: _backward(T, B, H, weights))

    def forward(self, input: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tape ``[T, B, 5, H]``, all hidden states ``[T, B, H]``, the last one and the last cell state
        ``[1, B, H]``."""
        states, last, last_cell, tape = self._states(), self._last(), self._last(), self._tape()
        self._forward(
            (torch.get_num_threads(), address(input), address(hidden), address(cell), last_cell.data_ptr(),
             states.data_ptr(), last.data_ptr(), tape.data_ptr())
        )  # fmt: skip
        return tape, states, last, last_cell

    def backward(
        self,
        d_states: Tensor | None,
        d_last_hidden: Tensor | None,
        d_last_cell: Tensor | None,
        hidden: Tensor,
        cell: Tensor,
        states: Tensor,
        tape: Tensor,
        initial: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of the gates and of the initial states ``[1, B, H]``; see `lstm_backward`. The hidden
        states are not read."""
        d_gates, d_hidden, d_cell = self._d_gates(), self._last(), self._last()
        self._backward()(
            (torch.get_num_threads(), initial, address(d_states), address(d_last_hidden),
             address(d_last_cell), address(cell), address(tape), d_gates.data_ptr(), d_hidden.data_ptr(),
             d_cell.data_ptr())
        )  # fmt: skip
        return d_gates, d_hidden, d_cell


def _forward(
    T: int, B: int, I: int, H: int, weights: tuple[Tensor | None, ...]
) -> Callable[[tuple[int, ...]], bool]:
    """A forward call of which threads, input, hidden, cell, last_cell, states, last and tape are given each
    time."""
    w_x, w_h, bias_x, bias_h = (*weights, None, None)[:4]
    changing = ("threads", "input", "hidden", "cell", "last_cell", "states", "last", "tape")
    return prepared_call(
        "GatedcellsLSTM", T, B, changing, FORWARD_PANELS, (w_x, w_h), gates=4, I=I, H=H, P=H, w_p=None,
        bias_x=bias_x, bias_h=bias_h, cells=None,
    )  # fmt: skip


def _backward(
    T: int, B: int, H: int, weights: tuple[Tensor | None, ...]
) -> Callable[[tuple[int, ...]], bool]:
    """A backward call of which threads, initial, d_states, d_last_hidden, d_last_cell, cell, tape, d_gates,
    d_hidden and d_cell are given each time."""
    changing = (
        "threads", "initial", "d_states", "d_last_hidden", "d_last_cell", "cell", "tape", "d_gates",
        "d_hidden", "d_cell",
    )  # fmt: skip
    return prepared_call(
        "GatedcellsLSTMBackward", T, B, changing, BACKWARD_PANELS, weights[1:2], by_rows=False, H=H, P=H,
        w_p=None, d_projected=None,
    )  # fmt: skip
