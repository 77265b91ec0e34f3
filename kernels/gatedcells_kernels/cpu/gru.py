"""The GRU's kernels on tensors: the contract of a backend (see `gatedcells_kernels.tape`)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from gatedcells_kernels.cpu import library
from gatedcells_kernels.cpu.packing import PANELS, PackedPair, form_for, prepared
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
    tape = library.empty(hidden, T, B, len(GRUTape._fields), H) if keep == Keep.TAPE else hidden.new_empty(0)
    if states.numel() == 0:
        return states, tape
    # everything that the kernel reads is held by a name until it is done
    input, hidden = input.contiguous(), hidden.contiguous()
    form = form_for(native, T, B, input.dtype)
    prepare = partial(prepared, native, form)
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
    d_gates = library.empty(states, T, B, len(GRU_GATE_GRADS), H)
    d_hidden = states.new_empty(B, H)
    if states.numel() == 0:
        return d_gates, d_hidden
    d_states = None if d_states is None else d_states.contiguous()
    d_last = None if d_last is None else d_last.contiguous()
    hidden, states, tape = hidden.contiguous(), states.contiguous(), tape.contiguous()
    form = form_for(native, T, B, states.dtype)
    prepare = partial(prepared, native, form, by_rows=False)
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
        self._native = library.load()
        w_x, w_h, bias_x, bias_h = (*weights, None, None)[:4]
        assert w_x is not None
        assert w_h is not None
        form = form_for(self._native, T, B, w_x.dtype)
        self._states = library.shape_of_states(w_x, T, B, H) if apart else None
        self._run = library.Prepared(
            self._native, "GatedcellsGRU",
            ("threads", "input", "hidden", "states", "last", *(PANELS if T > 1 else ())),
            T=T, B=B, I=I, H=H, reverse=False, reset_after=True, form=form,
            dtype=library.DTYPES[w_x.dtype], w_x=w_x, w_h=w_h, w_n=None, bias_x=bias_x, bias_h=bias_h,
            lengths=None, resets=None, tape=None, origin_x=None, origin_h=None,
        )  # fmt: skip
        self._packed = PackedPair(self._native, form, (w_x, w_h), 3) if T > 1 else None

    def __call__(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """All states ``[T, B, H]`` and the last one, shaped like ``hidden``; if they do not lie apart, one
        tensor is both."""
        x = input.data_ptr() or library.without_memory(input)
        h = hidden.data_ptr() or library.without_memory(hidden)
        last = torch.empty_like(hidden)
        like, pair = self._states, self._packed
        if like is None:
            self._run((torch.get_num_threads(), x, h, last.data_ptr(), 0))
            return last, last
        states = torch.empty_like(like)
        changed = (torch.get_num_threads(), x, h, states.data_ptr(), last.data_ptr())
        if pair is None:
            self._run(changed)
        else:
            pair.run(self._run, changed)
        return states, last
