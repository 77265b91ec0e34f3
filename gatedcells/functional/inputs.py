"""Preparation of a sequence's inputs for a backend: autocast, lengths, what to keep for the backward pass."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gatedcells.validation import is_autocast_enabled
from gatedcells_kernels.tape import Keep


class GRUTensors(NamedTuple):
    """What one direction of one GRU layer computes with; shapes as in `gatedcells.gru_sequence`."""

    input: Tensor
    hidden: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None


class LSTMTensors(NamedTuple):
    """What one direction of one LSTM layer computes with; shapes as in `gatedcells.lstm_sequence`."""

    input: Tensor
    hidden: Tensor
    cell: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    weight_hr: Tensor | None


Tensors = TypeVar("Tensors", GRUTensors, LSTMTensors)


def to_autocast(tensors: Tensors) -> Tensors:
    """The tensors in autocast's dtype where autocast is on for their device, unchanged where it is off.

    As with torch's own layers on the GPU, input, states and weights are cast together, the results come
    in autocast's dtype, and float64 and complex tensors are left alone.

    Raises:
        RuntimeError: some are left alone and others are not.
    """
    device = tensors.input.device.type
    if not is_autocast_enabled(device):
        return tensors
    cast: list[Any] = each_to_autocast(device, tensors)
    for name, given, tensor in zip(type(tensors)._fields, tensors, cast, strict=True):
        if given is not None and tensor.dtype != cast[0].dtype:
            raise RuntimeError(
                f"{name} and input must have the same dtype under autocast too, which casts neither float64"
                f" nor complex numbers: got {given.dtype} and {tensors.input.dtype}"
            )
    return type(tensors)(*cast)


def each_to_autocast(device: str, tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Each tensor as `to_autocast` has it."""
    if not is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [
        tensor.to(dtype)
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    ]


def zero_beyond_lengths(input: Tensor, lengths: Tensor | None) -> Tensor:
    """``input`` ``[T, B, I]`` with zeros beyond each row's length, so that whatever lies there (NaN, say)
    reaches neither a result nor a gradient."""
    if lengths is None:
        return input
    # not by [:, None], which ties an export of torch 2.6 to a range of T
    beyond = torch.arange(input.shape[0], device=input.device).unsqueeze(1) >= lengths
    return input.masked_fill(beyond.unsqueeze(2), 0)


# IntEnum members as plain integers: the compiler takes only those as an operator's arguments.
_NOTHING, _TAPE, _STATES = int(Keep.NOTHING), int(Keep.TAPE), int(Keep.STATES)


def what_to_keep(tensors: Iterable[Tensor | None], recompute: bool) -> int:
    """A `Keep`: nothing unless autograd will ask for a gradient with respect to any of the tensors."""
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)):
        return _NOTHING
    # gradients can be switched on within inference mode, but nothing is differentiated there; the compiler,
    # which has no word for the question, never compiles for it
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        return _NOTHING
    return _STATES if recompute else _TAPE
