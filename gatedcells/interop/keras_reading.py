"""Reading Keras 3's layers and cells; see `gatedcells.interop.keras` for the equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatedcells.interop.arrays import from_numpy
from gatedcells.interop.cells import stacked
from gatedcells.interop.gate_order import KERAS_GRU, KERAS_LSTM, OURS, reorder
from gatedcells.interop.weights import Cell, Direction, Layer, LossyConversion, Weights, kind_of, library

_ORDERS = {"GRU": KERAS_GRU, "LSTM": KERAS_LSTM}


def from_layer(layer: Any, *, go_backwards: bool = False, batch_first: bool = True) -> Layer:
    """Make a `gatedcells.GRU` or `gatedcells.LSTM` with the weights of a built Keras layer.

    Args:
        layer: a ``keras.layers.GRU`` or ``LSTM``, or a ``Bidirectional`` of one.
        go_backwards: must be True for a Keras layer that has ``go_backwards=True``. The new layer then
            computes for the time-reversed ``x`` what the Keras layer computes for ``x``.
        batch_first: of the new layer; Keras' layers read ``[B, T, I]``.

    Returns:
        a layer that returns all outputs and the last states, independently of the Keras layer's
        ``return_sequences`` and ``return_state``.

    Raises:
        TypeError: ``layer`` is of another class.
        LossyConversion: activations other than tanh and sigmoid, ``dropout``, ``recurrent_dropout``,
            ``stateful``, ``go_backwards=True`` of the Keras layer alone, a ``merge_mode`` other than
            "concat", or a ``dtype`` of the computation that differs from the weights'.
        ValueError: the layer is not built yet, or ``go_backwards`` is given for a layer without it.
        ModuleNotFoundError: keras is not installed.
    """
    keras = library("keras")
    row = _directions(keras, layer, go_backwards)
    return stacked([row], batch_first=batch_first, dropout=0.0)


def from_layers(layers: Sequence[Any], *, batch_first: bool = True) -> Layer:
    """Make a stacked `gatedcells.GRU` or `gatedcells.LSTM` from Keras layers that are called in turn.

    Args:
        layers: as for `from_layer`. There may be a ``keras.layers.Dropout`` between all of them or between
            none, with the same rate everywhere.
        batch_first: of the new layer.

    Raises:
        TypeError, LossyConversion, ModuleNotFoundError: as `from_layer`.
        ValueError: as `from_layer`; also if the layers do not fit into one stack (sizes, directions or
            conventions differ).
    """
    keras = library("keras")
    recurrent = [one for one in layers if not isinstance(one, keras.layers.Dropout)]
    rates = [float(one.rate) for one in layers if isinstance(one, keras.layers.Dropout)]
    expected = [one for k, one in enumerate(layers) if not rates or k % 2 == 0]
    if len(set(rates)) > 1 or expected != recurrent or (rates and len(rates) != len(recurrent) - 1):
        kinds = [type(one).__name__ for one in layers]
        raise ValueError(
            "expected recurrent layers with a Dropout of the same rate between all of them or none, got"
            f" {kinds} and rates {rates}"
        )
    rows = [_directions(keras, one, False) for one in recurrent]
    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError(
            "expected at least one layer, and all with the same number of directions (1 or 2), got"
            f" {[len(row) for row in rows]}"
        )
    if not all(one.return_sequences for one in recurrent[:-1]):
        raise ValueError(
            "every layer but the last needs return_sequences=True, because the next one reads its sequence"
        )
    return stacked(rows, batch_first=batch_first, dropout=rates[0] if rates else 0.0)


def from_cell(cell: Any) -> Cell:
    """Make a `gatedcells.GRUCell` or `gatedcells.LSTMCell` with the weights of a built Keras cell.

    Args:
        cell: a ``keras.layers.GRUCell`` or ``LSTMCell``.

    Raises:
        TypeError, LossyConversion, ValueError, ModuleNotFoundError: as `from_layer`.
    """
    keras = library("keras")
    for kind in _ORDERS:
        if type(cell) is getattr(keras.layers, f"{kind}Cell"):
            return _read(keras, cell, kind).to_cell()
    raise TypeError(f"expected a keras.layers.GRUCell or LSTMCell, got {kind_of(cell)}")


def _directions(keras: Any, layer: Any, go_backwards: bool) -> list[Weights]:
    """Each direction's weights, forward before reverse."""
    if type(layer) is keras.layers.Bidirectional:
        if go_backwards:
            raise ValueError("go_backwards=True needs a unidirectional layer, got a Bidirectional")
        if layer.merge_mode != "concat":
            raise LossyConversion(
                f"this Bidirectional has merge_mode={layer.merge_mode!r}, expected 'concat', as gatedcells'"
                " layers concatenate their directions"
            )
        pair = layer.forward_layer, layer.backward_layer
        if [one.go_backwards for one in pair] != [False, True]:
            raise LossyConversion(
                "a Bidirectional needs a forward_layer with go_backwards=False and a backward_layer with"
                f" go_backwards=True, got {pair[0].go_backwards} and {pair[1].go_backwards}"
            )
        return [_one(keras, one) for one in pair]
    found = _one(keras, layer)
    if layer.go_backwards and not go_backwards:
        raise LossyConversion(
            "this layer reads its input from the last step to the first (go_backwards=True):"
            " from_layer(layer, go_backwards=True) returns a layer that computes the same for the"
            " time-reversed input"
        )
    if go_backwards and not layer.go_backwards:
        raise ValueError("go_backwards=True was given, but this layer has go_backwards=False")
    return [found]


def _one(keras: Any, layer: Any) -> Weights:
    kind = next((kind for kind in _ORDERS if type(layer) is getattr(keras.layers, kind)), None)
    if kind is None:
        raise TypeError(f"expected a keras.layers.GRU, LSTM or Bidirectional of one, got {kind_of(layer)}")
    if layer.stateful:
        raise LossyConversion(
            "this layer keeps its state from call to call (stateful=True); gatedcells' layers take it as the"
            " argument hx"
        )
    return _read(keras, layer.cell, kind)


def _read(keras: Any, cell: Any, kind: str) -> Weights:
    """A Keras cell's weights.

    Raises:
        LossyConversion, ValueError: as `from_layer`.
    """
    if not cell.built:
        raise ValueError(f"this Keras {kind} has no weights yet: call it or its build() first")
    for name, given, ours in (
        ("activation", cell.activation, keras.activations.tanh),
        ("recurrent_activation", cell.recurrent_activation, keras.activations.sigmoid),
    ):
        if given is not ours:
            called = getattr(given, "__name__", given)
            raise LossyConversion(f"this layer has {name}={called}, expected {ours.__name__}")
    for name in ("dropout", "recurrent_dropout"):
        if getattr(cell, name):
            raise LossyConversion(
                f"this layer has {name}={getattr(cell, name)}, which is not converted; inference does not use"
                f" it: to convert for inference only, set {name} of its cell to 0 first"
            )
    policy = cell.dtype_policy
    if policy.compute_dtype != policy.variable_dtype:
        raise LossyConversion(
            f"this layer computes in {policy.compute_dtype} with weights in {policy.variable_dtype}"
            f" ({policy.name}); gatedcells computes in the dtype of its weights"
        )
    source, target = _ORDERS[kind], OURS[kind]

    def tensor(variable: Any) -> Tensor:
        value = variable.value
        return value.detach() if isinstance(value, Tensor) else from_numpy(keras.ops.convert_to_numpy(value))

    kernels = [reorder(tensor(v).T, source, target) for v in (cell.kernel, cell.recurrent_kernel)]
    reset_after = kind == "LSTM" or bool(cell.reset_after)
    if not cell.use_bias:
        return Weights(kind, ((Direction(kernels[0], kernels[1]),),), reset_after)
    bias = tensor(cell.bias)
    if kind == "GRU" and reset_after:
        bias_ih, bias_hh = (reorder(half, source, target) for half in bias)
    else:
        bias_ih = reorder(bias, source, target)
        bias_hh = torch.zeros_like(bias_ih)
    return Weights(kind, ((Direction(kernels[0], kernels[1], bias_ih, bias_hh),),), reset_after)
