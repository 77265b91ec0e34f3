"""Split a layer into cells and join cells to a layer, for libraries that have single cells only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gatedcells.cells import GRUCell, LSTMCell
from gatedcells.interop.weights import AnyLayer, Cell, Layer, Weights, kind_of


def cells_of(layer: AnyLayer) -> list[list[Cell]]:
    """Split a layer into cells, one for each layer and direction.

    Args:
        layer: a GRU or LSTM of gatedcells or torch.

    Returns:
        ``L`` lists of ``D`` cells, forward before reverse, with copies of the weights.

    Raises:
        TypeError: ``layer`` is not a GRU or LSTM.
        LossyConversion: the layer has a projection, which cells do not have.
    """
    weights = Weights.of_layer(layer)
    weights.refuse_projection("a cell")
    return [
        [weights._replace(layers=((one,),)).to_cell() for one in directions] for directions in weights.layers
    ]


def layer_of(
    cells: Sequence[Sequence[Cell]] | Cell, *, batch_first: bool = False, dropout: float = 0.0
) -> Layer:
    """Join cells to a layer, the inverse of `cells_of`.

    Args:
        cells: ``L`` lists of ``D`` cells, forward before reverse, all of the same type, hidden size, dtype
            and device. A single cell becomes a layer with ``num_layers=1`` and one direction.
        batch_first, dropout: options of the layer, see `gatedcells.GRU`.

    Returns:
        a `gatedcells.GRU` or `gatedcells.LSTM` with copies of the weights.

    Raises:
        TypeError: one of ``cells`` is not a `gatedcells.GRUCell` or `gatedcells.LSTMCell`.
        ValueError: the cells' sizes or options do not fit into one layer.
    """
    rows: Sequence[Sequence[Cell]] = [[cells]] if isinstance(cells, nn.Module) else cells
    flat: list[object] = [cell for row in rows for cell in row]
    for cell in flat:
        if not isinstance(cell, (GRUCell, LSTMCell)):
            raise TypeError(f"expected gatedcells.GRUCell or LSTMCell, got {kind_of(cell)}")
    if not flat or any(len(row) not in (1, 2) or len(row) != len(rows[0]) for row in rows):
        given = [len(row) for row in rows]
        raise ValueError(f"each layer needs one cell, or each two (forward and reverse), got {given}")
    read = [[Weights.of(cell) for cell in row] for row in rows]
    return stacked(read, batch_first=batch_first, dropout=dropout)


def stacked(rows: Sequence[Sequence[Weights]], *, batch_first: bool, dropout: float) -> Layer:
    """Join ``L`` rows of ``D`` single directions to a layer.

    Raises:
        ValueError: their sizes or options do not fit into one layer.
    """
    first = rows[0][0]
    width = len(rows[0]) * first.hidden_size
    for k, row in enumerate(rows):
        expected = _described(first, first.input_size if k == 0 else width)
        for found in row:
            if (given := _described(found, found.input_size)) != expected:
                raise ValueError(f"layer {k}: expected {expected}, got {given}")
    layers = tuple(tuple(weights.first for weights in row) for row in rows)
    return first._replace(layers=layers).to_layer(batch_first=batch_first, dropout=dropout)


def _described(weights: Weights, input_size: int) -> str:
    first = weights.first
    return (
        f"{weights.cell}({input_size}, {weights.hidden_size}), bias={first.bias_ih is not None},"
        f" reset_after={weights.reset_after}, {first.weight_ih.dtype} on {first.weight_ih.device}"
    )
