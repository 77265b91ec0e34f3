"""Between a layer and the cells that it is made of, for libraries that have one cell at a time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gatedcells.cells import GRUCell, LSTMCell
from gatedcells.interop.weights import AnyLayer, Cell, Layer, Weights, kind_of


def cells_of(layer: AnyLayer) -> list[list[Cell]]:
    """A layer's cells, ``L`` lists of ``D``: forward, and reverse if it is bidirectional; copies of its
    weights.

    Raises:
        TypeError: not a GRU or LSTM.
        LossyConversion: a layer with a projection; a cell has none.
    """
    weights = Weights.of_layer(layer)
    weights.refuse_projection("a cell")
    return [
        [weights._replace(layers=((one,),)).to_cell() for one in directions] for directions in weights.layers
    ]


def layer_of(
    cells: Sequence[Sequence[Cell]] | Cell, *, batch_first: bool = False, dropout: float = 0.0
) -> Layer:
    """The layer of these cells: `cells_of` the other way round; one cell is a layer of one layer and
    direction.

    Args:
        cells: ``L`` lists of ``D`` cells, forward before reverse, all of one kind, size, dtype and device.
        batch_first, dropout: of the layer, see `gatedcells.GRU`.

    Raises:
        TypeError: something that is no `gatedcells.GRUCell` or `LSTMCell`.
        ValueError: the cells do not make one layer.
    """
    rows: Sequence[Sequence[Cell]] = [[cells]] if isinstance(cells, nn.Module) else cells
    flat: list[object] = [cell for row in rows for cell in row]
    for cell in flat:
        if not isinstance(cell, (GRUCell, LSTMCell)):
            raise TypeError(f"expected gatedcells.GRUCell or LSTMCell, got {kind_of(cell)}")
    if not flat or any(len(row) not in (1, 2) or len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"expected rows of one or of two cells, got rows of {[len(row) for row in rows]}")
    read = [[Weights.of(cell) for cell in row] for row in rows]
    return stacked(read, batch_first=batch_first, dropout=dropout)


def stacked(rows: Sequence[Sequence[Weights]], *, batch_first: bool, dropout: float) -> Layer:
    """A layer of single directions, ``L`` rows of ``D``.

    Raises:
        ValueError: they do not make one layer.
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
