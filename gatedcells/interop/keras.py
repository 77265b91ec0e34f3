"""To and from Keras 3's ``GRU``, ``LSTM``, ``Bidirectional`` of either, and their cells, on any backend.

Kernels are transposed, ``kernel`` ``[I, GH]`` and ``recurrent_kernel`` ``[H, GH]``, with the gates z, r, h or
i, f, c, o. The biases:

- GRU with ``reset_after=True`` (Keras' default): ``bias`` ``[2, 3H]`` holds ``bias_ih`` and ``bias_hh``
  unchanged.
- GRU with ``reset_after=False``: ``bias`` ``[3H]`` is ``bias_ih + bias_hh``.
- LSTM: ``bias`` ``[4H]`` is ``bias_ih + bias_hh``.

A Keras layer corresponds to one of the ``num_layers`` of a gatedcells layer; `to_layers` and `from_layers`
convert stacks. A Keras layer always reads ``[B, T, I]``. Initialisers, regularizers and constraints concern
training only and are not converted. Nor are masks, which Keras takes per call: beyond a row's length it
repeats the last output, or returns zeros with ``zero_output_for_mask=True``, as torch's
``pad_packed_sequence`` does.

Sources: keras.io/api/layers/recurrent_layers and keras/src/layers/rnn/{gru,lstm,bidirectional}.py in
github.com/keras-team/keras. Layers are read by `gatedcells.interop.keras_reading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gatedcells.interop.arrays import to_numpy
from gatedcells.interop.gate_order import KERAS_GRU, KERAS_LSTM, reorder
from gatedcells.interop.keras_reading import from_cell as from_cell
from gatedcells.interop.keras_reading import from_layer as from_layer
from gatedcells.interop.keras_reading import from_layers as from_layers
from gatedcells.interop.weights import (
    AnyCell,
    AnyLayer,
    Direction,
    LossyConversion,
    Weights,
    library,
    one_bias,
)

_ORDERS = {"GRU": KERAS_GRU, "LSTM": KERAS_LSTM}


def to_layer(
    layer: AnyLayer,
    *,
    go_backwards: bool = False,
    return_sequences: bool = True,
    return_state: bool = False,
    dtype: torch.dtype | None = None,
) -> Any:
    """Make a built ``keras.layers.GRU`` or ``LSTM``, or a ``Bidirectional`` of one, with a layer's weights.

    Args:
        layer: a GRU or LSTM of gatedcells or torch with ``num_layers=1`` (for more, see `to_layers`).
        go_backwards: make a Keras layer that reads its input from the last step to the first and returns its
            outputs in that order: for ``x`` it computes what ``layer`` computes for the time-reversed ``x``.
        return_sequences, return_state: of the Keras layer. By default it returns all outputs (Keras' own
            default is the last one only).
        dtype: of the Keras layer, None for ``layer``'s own.

    Raises:
        TypeError: ``layer`` is not a GRU or LSTM.
        LossyConversion: several layers, a projection, or a dtype that the Keras backend cannot hold (float64
            on JAX without ``jax_enable_x64``).
        ValueError: ``go_backwards`` with a bidirectional layer.
        ModuleNotFoundError: keras is not installed.
    """
    weights = Weights.of_layer(layer).cast(dtype)
    if layer.num_layers != 1:
        raise LossyConversion(
            f"a Keras layer holds a single layer, got num_layers={layer.num_layers}: use to_layers"
        )
    if go_backwards and layer.bidirectional:
        raise ValueError("go_backwards=True needs a unidirectional layer, got a bidirectional one")
    weights.refuse_projection("Keras")
    return _layer(
        library("keras"), weights, 0,
        go_backwards=go_backwards, return_sequences=return_sequences, return_state=return_state,
    )  # fmt: skip


def to_layers(
    layer: AnyLayer,
    *,
    return_sequences: bool = True,
    return_state: bool = False,
    dtype: torch.dtype | None = None,
) -> list[Any]:
    """Make built Keras layers for a stack, to be called in turn: ``keras.Sequential(to_layers(layer))``.

    If the stack has dropout, there is a ``keras.layers.Dropout`` between the layers.

    Args:
        layer: a GRU or LSTM of gatedcells or torch with any number of layers.
        return_sequences, return_state: of the last Keras layer; the others return their sequences.
        dtype: as for `to_layer`.

    Raises:
        TypeError, ModuleNotFoundError: as `to_layer`.
        LossyConversion: a projection, or a dtype that the Keras backend cannot hold.
    """
    keras = library("keras")
    weights = Weights.of_layer(layer).cast(dtype)
    weights.refuse_projection("Keras")
    layers: list[Any] = []
    for k in range(layer.num_layers):
        if k and layer.dropout:
            layers.append(keras.layers.Dropout(layer.dropout, dtype=_options(weights)["dtype"]))
        is_last = k + 1 == layer.num_layers
        layers.append(
            _layer(
                keras, weights, k, go_backwards=False,
                return_sequences=return_sequences or not is_last, return_state=return_state and is_last,
            )
        )  # fmt: skip
    return layers


def to_cell(cell: AnyCell, *, dtype: torch.dtype | None = None) -> Any:
    """Make a built ``keras.layers.GRUCell`` or ``LSTMCell`` with a cell's weights.

    Args:
        cell: a GRUCell or LSTMCell of gatedcells or torch.
        dtype: of the Keras cell, None for ``cell``'s own.

    Raises:
        TypeError: ``cell`` is not a GRU or LSTM cell.
        LossyConversion: a dtype that the Keras backend cannot hold.
        ModuleNotFoundError: keras is not installed.
    """
    keras = library("keras")
    weights = Weights.of(cell).cast(dtype)
    made = getattr(keras.layers, f"{weights.cell}Cell")(**_options(weights))
    _build(keras, made, [made], (None, weights.input_size))
    _fill(keras, made, weights, weights.only("Keras"))
    return made


def _layer(
    keras: Any, weights: Weights, k: int, *, go_backwards: bool, return_sequences: bool, return_state: bool
) -> Any:
    """Layer k, built and filled."""
    row = weights.layers[k]
    options = {"return_sequences": return_sequences, "return_state": return_state, **_options(weights)}
    made: Any = getattr(keras.layers, weights.cell)(go_backwards=go_backwards, **options)
    directions = [made]
    if len(row) == 2:
        backward: Any = getattr(keras.layers, weights.cell)(go_backwards=True, **options)
        made = keras.layers.Bidirectional(
            made, backward_layer=backward, merge_mode="concat", dtype=options["dtype"]
        )
        directions = [made.forward_layer, made.backward_layer]
    _build(keras, made, [layer.cell for layer in directions], (None, None, row[0].weight_ih.shape[1]))
    for layer, one in zip(directions, row, strict=True):
        _fill(keras, layer.cell, weights, one)
    return made


def _build(keras: Any, made: Any, cells: Sequence[Any], shape: tuple[int | None, ...]) -> None:
    """Make the variables as zeros: numbers drawn now would only be written over, and move Keras' generator
    on."""
    kept = [(cell.kernel_initializer, cell.recurrent_initializer) for cell in cells]
    for cell in cells:
        cell.kernel_initializer = cell.recurrent_initializer = keras.initializers.Zeros()
    made.build(shape)
    for cell, initializers in zip(cells, kept, strict=True):
        cell.kernel_initializer, cell.recurrent_initializer = initializers


def _options(weights: Weights) -> dict[str, Any]:
    options: dict[str, Any] = {
        "units": weights.hidden_size,
        "use_bias": weights.first.bias_ih is not None,
        "dtype": str(weights.first.weight_ih.dtype).removeprefix("torch."),
    }
    return options | ({"reset_after": weights.reset_after} if weights.cell == "GRU" else {})


def _fill(keras: Any, cell: Any, weights: Weights, one: Direction) -> None:
    target, dtype = _ORDERS[weights.cell], str(one.weight_ih.dtype).removeprefix("torch.")
    if (held := keras.backend.standardize_dtype(cell.kernel.value.dtype)) != dtype:
        raise LossyConversion(
            f"Keras on {keras.backend.backend()} holds weights of {dtype} in {held}: pass dtype=torch.{held}"
            " to round them, or let the backend hold them (JAX: jax_enable_x64)"
        )
    cell.kernel.assign(to_numpy(reorder(one.weight_ih, weights.order, target).T))
    cell.recurrent_kernel.assign(to_numpy(reorder(one.weight_hh, weights.order, target).T))
    if one.bias_ih is None or one.bias_hh is None:
        return
    if weights.cell == "GRU" and weights.reset_after:
        bias = torch.stack([reorder(half, weights.order, target) for half in (one.bias_ih, one.bias_hh)])
    else:
        total = one_bias(one)
        assert total is not None
        bias = reorder(total, weights.order, target)
    cell.bias.assign(to_numpy(bias))
