"""Asking a module who would compute it, and why."""

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatedcells.backends import explain
from gatedcells.cells.base import RecurrentCell
from gatedcells.layers.base import RecurrentLayer


def explain_backend(module: nn.Module, input: Tensor | PackedSequence) -> str:
    """Say which backend ``module(input)`` would use and why, one backend a line.

    Args:
        module: a `gatedcells` layer or cell.
        input: what it would be called with; only device, dtype and kind are read.

    Raises:
        TypeError: ``module`` is not one of ours.
    """
    data = input.data if isinstance(input, PackedSequence) else input
    tensors = (data, *module.parameters())
    if isinstance(module, RecurrentLayer):
        return explain(module.mode, "sequence", tensors, module.backend)
    if isinstance(module, RecurrentCell):
        return explain(type(module).__name__.removesuffix("Cell"), "step", tensors, module.backend)
    raise TypeError(f"module must be a gatedcells layer or cell, got {type(module).__name__}")
