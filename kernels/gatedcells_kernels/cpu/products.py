"""The gradients of weights, biases and input from those of the gates: products over all rows of all steps.

A sum has the same bits on any number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gatedcells_kernels.cpu import library
from gatedcells_kernels.cpu.library import address
from gatedcells_kernels.tape import GRU_GATES, LSTM_GATES

_GATES = {"GRU": len(GRU_GATES), "LSTM": len(LSTM_GATES)}
_FEW_ROWS = 8  # weights are packed for fewer in vain
# measured: benchmarks/weight_gradients.py --dtype bfloat16
_MANY_ROWS, _LARGE_WEIGHT = 256, 1 << 18
# numbers in both weights up to which a prepared call makes the products for a single row, which are no sums;
# those of a call that is not prepared are left to torch
_ONE_ROW = 1 << 19


@functools.cache
def _has_tiles() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (AMX), as torch does and these kernels do not."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return ask is not None and ask()


def _may_be_read(like: Tensor, *tensors: Tensor) -> bool:
    """Whether the kernels take these together: a hook may have put others in the place of what was saved."""
    if like.dtype == torch.bfloat16 and _has_tiles():
        return False
    return like.dtype in library.DTYPES and all(
        tensor.dtype == like.dtype and tensor.is_cpu and tensor.numel() for tensor in (like, *tensors)
    )


def weight_gradients(
    cell: str, d_gates: Tensor, input: Tensor, previous: Sequence[Tensor], needed: Sequence[bool]
) -> Sequence[Tensor | None] | None:
    """The gradients of weight_ih, weight_hh, bias_ih and bias_hh, or None if these kernels do not make them.

    Args:
        cell: "GRU" or "LSTM"; a GRU's weight_hh if its reset gate acts after the product, else the others.
        d_gates: the gates' gradients ``[T, B, 4, H]``, as `gru_backward` or `lstm_backward` returns them.
        input: ``[T, B, I]``.
        previous: the states that the steps have found, ``[T, B, H or P]``, in one piece or two along time.
        needed: which of the four are wanted.
    """
    T, B, _, H = d_gates.shape
    I, P = input.shape[-1], previous[0].shape[-1]
    if T * B == 1:  # no sum: torch is faster
        return None
    fits = (
        input.shape == (T, B, I)
        and sum(len(piece) for piece in previous) == T
        and all(piece.shape[1:] == (B, P) for piece in previous)
    )
    if not (fits and _may_be_read(d_gates, input, *previous)):
        return None
    d_gates, input = d_gates.contiguous(), input.contiguous()
    first = previous[0].contiguous()
    second = previous[1].contiguous() if len(previous) > 1 else None
    G, biases = _GATES[cell] * H, needed[2] or needed[3]
    found = [
        d_gates.new_empty(shape) if need else None
        for shape, need in (((G, I), needed[0]), ((G, P), needed[1]), ((G,), biases), ((G,), biases))
    ]
    library.run(
        library.load(), "GatedcellsWeightGradients",
        n=T * B, I=I, H=H, P=P, split=len(first) * B, d=d_gates, input=input, first=first, second=second,
        d_w_x=found[0], d_w_h=found[1], d_bias_x=found[2], d_bias_h=found[3], gru=cell == "GRU",
        dtype=library.DTYPES[d_gates.dtype],
    )  # fmt: skip
    return [tensor if need else None for tensor, need in zip(found, needed, strict=True)]


class PreparedWeightGradients:
    """`weight_gradients` of calls of one shape, forward in time, for tensors that the caller knows to be
    contiguous, on the CPU and of one dtype: what is left of it once everything else is known.

    Args:
        cell: as for `weight_gradients`.
        T, B, I, H: the shape.
        like: a tensor of the dtype.
    """

    def __init__(self, cell: str, T: int, B: int, I: int, H: int, like: Tensor) -> None:
        self._like, G = like.detach().new_empty(1), _GATES[cell] * H
        self._shapes = ((G, I), (G, H), (G,), (G,))
        self._is_one_step = T == 1
        # not the cases that are left to torch
        self._may_run = (T * B > 1 or G * (I + H) <= _ONE_ROW) and _may_be_read(self._like)
        changing = ("threads", "d", "input", "first", "second", "d_w_x", "d_w_h", "d_bias_x", "d_bias_h")
        self._run = library.Prepared(
            library.load(), "GatedcellsWeightGradients", changing, n=T * B, I=I, H=H, P=H, split=B,
            gru=cell == "GRU", dtype=library.DTYPES[like.dtype],
        )  # fmt: skip
        self._made = functools.cache(self._making)

    def _making(self, needed: tuple[bool, ...]) -> list[Callable[[], Tensor] | None]:
        """What makes each of the four gradients; both of the biases if one is needed."""
        *weights, first, second = needed
        made = (*weights, first or second, first or second)
        return [
            library.made_like(self._like, *shape) if make else None
            for shape, make in zip(self._shapes, made, strict=True)
        ]

    def __call__(
        self, d_gates: Tensor, input: Tensor, hidden: Tensor, states: Tensor, needed: tuple[bool, ...]
    ) -> list[Tensor | None] | None:
        """The gradients, or None; see `weight_gradients`.

        Args:
            d_gates: as there.
            input: ``[T, B, I]``.
            hidden: the initial state ``[1, B, H]``.
            states: after each step, ``[T, B, H]``.
            needed: as there.
        """
        if not self._may_run:
            return None
        found = [None if make is None else make() for make in self._made(needed)]
        second = 0 if self._is_one_step else address(states)
        self._run(
            (torch.get_num_threads(), address(d_gates), address(input), address(hidden), second,
             *map(address, found))
        )  # fmt: skip
        return [tensor if need else None for tensor, need in zip(found, needed, strict=True)]


def input_gradient(cell: str, d_gates: Tensor, weight_ih: Tensor) -> Tensor | None:
    """The gradient of the input ``[T, B, I]``, or None if these kernels do not make it.

    Args:
        cell, d_gates: as for `weight_gradients`.
        weight_ih: ``[3H or 4H, I]``.
    """
    T, B, _, H = d_gates.shape
    if T * B < _FEW_ROWS or weight_ih.dim() != 2 or len(weight_ih) != _GATES[cell] * H:
        return None
    if not _may_be_read(d_gates, weight_ih):
        return None
    is_large = T * B > _MANY_ROWS or weight_ih.numel() > _LARGE_WEIGHT
    if is_large and d_gates.dtype == torch.bfloat16 and library.load().multiplies_pairs:  # torch is faster
        return None
    d_gates, weight_ih = d_gates.contiguous(), weight_ih.detach().contiguous()
    I = weight_ih.shape[1]
    d_input = library.empty(d_gates, T, B, I)
    library.run(
        library.load(), "GatedcellsInputGradient",
        n=T * B, I=I, H=H, d=d_gates, w_x=weight_ih, d_input=d_input, gru=cell == "GRU",
        dtype=library.DTYPES[d_gates.dtype],
    )  # fmt: skip
    return d_input
