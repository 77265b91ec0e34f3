"""To and from cuDNN's packed weights: the single buffer into which torch flattens a layer on the GPU.

All matrices come first, layer by layer and forward before reverse: ``W``, ``U`` and the projection ``V`` of
each direction. Then all biases in the same order: ``b_i`` and ``b_h`` of each direction. Matrices are stored
row by row, with the gates in torch's order::

    W_0 U_0 [V_0]  W_0' U_0' [V_0']  W_1 ...  |  b_i0 b_h0  b_i0' b_h0'  b_i1 ...

The equations are torch's: the reset gate acts after the product, the input is multiplied by ``W``
(CUDNN_LINEAR_INPUT), and there are two biases (CUDNN_RNN_DOUBLE_BIAS). Sources: cudnnGetRNNWeightParams and
cudnnRNNMode_t (docs.nvidia.com, cuDNN API, cudnn_adv); aten/src/ATen/native/cudnn/RNN.cpp in pytorch/pytorch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gatedcells.interop.gate_order import CUDNN_GRU, CUDNN_LSTM, OURS, reorder
from gatedcells.interop.weights import AnyLayer, Direction, Layer, Weights

_ORDERS = {"GRU": CUDNN_GRU, "LSTM": CUDNN_LSTM}
_MATRICES = ("weight_ih", "weight_hh", "weight_hr")
_BIASES = ("bias_ih", "bias_hh")


def to_packed(layer: AnyLayer) -> Tensor:
    """Pack a layer's weights into one buffer.

    Args:
        layer: a GRU or LSTM of gatedcells or torch.

    Returns:
        ``[n]``, a copy in the layer's dtype and on its device.

    Raises:
        TypeError: ``layer`` is not a GRU or LSTM.
        LossyConversion: the layer is a GRU with ``reset_after=False``, which cuDNN does not have.
    """
    weights = Weights.of_layer(layer)
    weights.refuse_reset_before("cuDNN")
    directions = [direction for row in weights.layers for direction in row]
    parts = [
        _gates(weights.cell, name, tensor, to_cudnn=True).flatten()
        for names in (_MATRICES, _BIASES)
        for direction in directions
        for name in names
        if (tensor := getattr(direction, name)) is not None
    ]
    return torch.cat(parts)


def from_packed(
    packed: Tensor,
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = False,
    dropout: float = 0.0,
    bidirectional: bool = False,
    proj_size: int = 0,
) -> Layer:
    """Unpack a buffer into a layer. A buffer does not contain its sizes, so they must be given.

    Args:
        packed: ``[n]``, as returned by `to_packed`.
        cell: "GRU" or "LSTM".
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size: as for
            `gatedcells.GRU` and `gatedcells.LSTM`.

    Returns:
        a `gatedcells.GRU` or `gatedcells.LSTM` with copies of the weights.

    Raises:
        ValueError: ``cell`` is neither, a GRU has a projection, or the buffer's length does not match the
            sizes.
    """
    if cell not in OURS:
        raise ValueError(f"cell must be 'GRU' or 'LSTM', got {cell!r}")
    if proj_size and cell == "GRU":
        raise ValueError(f"only an LSTM has a projection: a GRU needs proj_size=0, got {proj_size}")
    D, rows, P = 2 if bidirectional else 1, len(OURS[cell].gates) * hidden_size, proj_size or hidden_size
    shapes: list[tuple[int, str, tuple[int, ...]]] = []
    for k in range(num_layers * D):
        I = input_size if k < D else D * P
        shapes += [(k, "weight_ih", (rows, I)), (k, "weight_hh", (rows, P))]
        shapes += [(k, "weight_hr", (P, hidden_size))] if proj_size else []
    for k in range(num_layers * D if bias else 0):
        shapes += [(k, name, (rows,)) for name in _BIASES]
    expected = sum(torch.Size(shape).numel() for _, _, shape in shapes)
    if packed.shape != (expected,):
        raise ValueError(f"these sizes need a buffer of shape [{expected}], got {list(packed.shape)}")
    found: list[dict[str, Tensor]] = [{} for _ in range(num_layers * D)]
    parts = packed.detach().split([torch.Size(shape).numel() for _, _, shape in shapes])
    for (k, name, shape), part in zip(shapes, parts, strict=True):
        found[k][name] = _gates(cell, name, part.view(shape), to_cudnn=False)
    directions = [Direction(**tensors) for tensors in found]
    layers = tuple(tuple(directions[k : k + D]) for k in range(0, len(directions), D))
    return Weights(cell, layers).to_layer(batch_first=batch_first, dropout=dropout)


def _gates(cell: str, name: str, tensor: Tensor, *, to_cudnn: bool) -> Tensor:
    """The gates in the other library's order; a projection has no gates."""
    if name == "weight_hr":
        return tensor
    source, target = (OURS[cell], _ORDERS[cell]) if to_cudnn else (_ORDERS[cell], OURS[cell])
    return reorder(tensor, source, target)
