"""The order of the gates in each library's weights.

A weight with G gates consists of G blocks of H rows (or columns). Every library has the same blocks; their
order differs:

========== ================================ ========================================== ==============
library    GRU                              LSTM                                       along
========== ================================ ========================================== ==============
torch      reset, update, candidate         input, forget, candidate, output           rows, ``[GH, I]``
cuDNN      reset, update, candidate         input, forget, candidate, output           rows
Equinox    reset, update, candidate         input, forget, candidate, output           rows
Flax nnx   reset, update, candidate         input, forget, candidate, output           columns
Keras      update, reset, candidate         input, forget, candidate, output           columns, ``[I, GH]``
ONNX       update, reset, candidate         input, output, forget, candidate           rows
Haste      update, reset, candidate         input, candidate, forget, output           columns
========== ================================ ========================================== ==============

Flax linen has a separate matrix for each gate (see `split` and `join`). The usual letters: r, z, n (or h, g)
are reset, update and candidate; i, f, g (or c), o are input, forget, candidate and output.

Sources: torch.nn.GRU and LSTM, "Variables" (docs.pytorch.org); cudnnGetRNNWeightParams (docs.nvidia.com,
cuDNN API, cudnn_adv); equinox/nn/_rnn.py; flax/nnx/nn/recurrent.py; keras/src/layers/rnn/gru.py and lstm.py;
the GRU and LSTM operators (onnx.ai/onnx/operators); haste, docs/pytorch/haste_pytorch.md
(github.com/lmnt-com/haste).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gatedcells_kernels.tape import GRU_GATES, LSTM_GATES


class GateOrder(NamedTuple):
    """The order of the gates in one library's weights.

    Attributes:
        library: the library's name.
        cell: "GRU" or "LSTM".
        gates: the gates' names, as in `gatedcells.reference`, from the first block to the last.
    """

    library: str
    cell: str
    gates: tuple[str, ...]


# by the letters r, z, n and i, f, g, o that the libraries' own documents use
_LETTERS = {
    "GRU": dict(zip("rzn", GRU_GATES, strict=True)),
    "LSTM": dict(zip("ifgo", LSTM_GATES, strict=True)),
}


def _order(library: str, cell: str, letters: str) -> GateOrder:
    return GateOrder(library, cell, tuple(_LETTERS[cell][letter] for letter in letters))


TORCH_GRU, TORCH_LSTM = _order("torch", "GRU", "rzn"), _order("torch", "LSTM", "ifgo")
CUDNN_GRU, CUDNN_LSTM = _order("cuDNN", "GRU", "rzn"), _order("cuDNN", "LSTM", "ifgo")
EQUINOX_GRU, EQUINOX_LSTM = _order("Equinox", "GRU", "rzn"), _order("Equinox", "LSTM", "ifgo")
FLAX_GRU, FLAX_LSTM = _order("Flax", "GRU", "rzn"), _order("Flax", "LSTM", "ifgo")
KERAS_GRU, KERAS_LSTM = _order("Keras", "GRU", "zrn"), _order("Keras", "LSTM", "ifgo")
ONNX_GRU, ONNX_LSTM = _order("ONNX", "GRU", "zrn"), _order("ONNX", "LSTM", "iofg")
HASTE_GRU, HASTE_LSTM = _order("Haste", "GRU", "zrn"), _order("Haste", "LSTM", "igfo")

# torch's order, in which gatedcells keeps its weights
OURS = {"GRU": TORCH_GRU, "LSTM": TORCH_LSTM}


def reorder(tensor: Tensor, source: GateOrder, target: GateOrder, dim: int = 0) -> Tensor:
    """Copy a weight or bias with its gates in another library's order.

    Args:
        tensor: a weight or bias with ``G*H`` entries along ``dim``.
        source: the order of its gates.
        target: the order wanted.
        dim: the axis of the gates.

    Returns:
        a new tensor of the same shape.

    Raises:
        ValueError: the orders are for different cells, or the axis is not divisible by the number of gates.
    """
    if source.cell != target.cell:
        raise ValueError(
            f"source and target must be orders of the same cell, got {source.library}'s {source.cell} and"
            f" {target.library}'s {target.cell}"
        )
    return join(split(tensor, source, dim), target, dim)


def split(tensor: Tensor, order: GateOrder, dim: int = 0) -> dict[str, Tensor]:
    """Each gate's block by name, as views of ``tensor``; arguments as for `reorder`.

    Raises:
        ValueError: the axis is not divisible by the number of gates.
    """
    G, entries = len(order.gates), tensor.shape[dim]
    if entries % G:
        raise ValueError(f"axis {dim} must hold the {G} gates of a {order.cell}, got {entries} entries")
    return dict(zip(order.gates, tensor.chunk(G, dim), strict=True))


def join(gates: Mapping[str, Tensor], order: GateOrder, dim: int = 0) -> Tensor:
    """Concatenate blocks, given by gate name, in a library's order; the inverse of `split`.

    Raises:
        ValueError: the names are not exactly the gates of the cell.
    """
    if set(gates) != set(order.gates):
        raise ValueError(f"expected the gates {list(order.gates)} of a {order.cell}, got {list(gates)}")
    return torch.cat([gates[name] for name in order.gates], dim)
