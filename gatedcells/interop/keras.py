"""To and from Keras 3's layers ``GRU``, ``LSTM``, ``Bidirectional`` of them, and their cells, on any of its
backends.

Kernels are transposed, ``kernel`` ``[I, GH]`` and ``recurrent_kernel`` ``[H, GH]``, gates z, r, h or i, f,
c, o. The biases:

- GRU with ``reset_after=True`` (Keras' default): ``bias`` ``[2, 3H]``, ``bias_ih`` and ``bias_hh``. Bit for
  bit.
- GRU with ``reset_after=False``: ``bias`` ``[3H]``, ``bias_ih + bias_hh``.
- LSTM: ``bias`` ``[4H]``, ``bias_ih + bias_hh``.

One Keras layer is one of our ``num_layers``; `to_layers` and `from_layers` take stacks. A Keras layer always
reads ``[B, T, I]``. Initialisers, regularizers and constraints are about training and stay behind; so does a
mask, which Keras takes per call: beyond a row's length it repeats the last output, or gives zeros with
``zero_output_for_mask=True``, as torch's ``pad_packed_sequence`` does.

Source: keras.io/api/layers/recurrent_layers and keras/src/layers/rnn/{gru,lstm,bidirectional}.py in
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
    """A ``keras.layers.GRU`` or ``LSTM``, or a ``Bidirectional`` of one, with the weights of a layer; built.

    Args:
        layer: ours, with one layer (`to_layers` for more).
        go_backwards: make a Keras layer that reads its input from the end and gives its outputs in that
            order: it computes for ``x`` what ours computes for ``x`` turned round in time.
        return_sequences, return_state: of the Keras layer; its own default is the last output alone.
        dtype: of the Keras layer, None for the layer's own.

    Raises:
        LossyConversion: several layers, or a projection.
        ValueError: ``go_backwards`` of a bidirectional layer.
        ModuleNotFoundError: keras is not installed.
    """
    weights = Weights.of_layer(layer).cast(dtype)
    if layer.num_layers != 1:
        raise LossyConversion(
            f"a Keras layer is one layer, this has {layer.num_layers}: to_layers gives them all"
        )
    if go_backwards and layer.bidirectional:
        raise ValueError("go_backwards is for one direction: a bidirectional layer has both")
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
    """A stack as Keras layers to be called one after the other, ``keras.Sequential(to_layers(layer))``.

    Between the layers stands a ``keras.layers.Dropout`` if the stack has dropout. Arguments as of `to_layer`,
    about the last layer; the others return their sequences alone.

    Raises:
        LossyConversion: a projection.
        ModuleNotFoundError: keras is not installed.
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
    """A ``keras.layers.GRUCell`` or ``LSTMCell`` with the weights of our cell; built.

    Raises:
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
            f"Keras on {keras.backend.backend()} holds these weights in {held}, not in {dtype}: ask for"
            " that with dtype=, or let the backend hold them (JAX: jax_enable_x64)"
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
