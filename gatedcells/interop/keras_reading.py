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
    """Our layer with the weights of a built ``keras.layers.GRU`` or ``LSTM``, or of a ``Bidirectional`` of
    one.

    Args:
        layer: Keras'.
        go_backwards: must be given for a Keras layer that goes backwards: ours then computes for ``x`` turned
            round in time what Keras' computes for ``x``.
        batch_first: of our layer; Keras' read ``[B, T, I]``.

    Returns:
        a layer that gives all outputs and the last states, whatever ``return_sequences`` and ``return_state``
        say.

    Raises:
        TypeError: another class.
        LossyConversion: activations other than tanh and sigmoid, dropout or recurrent_dropout, ``stateful``,
            a layer that goes backwards unless ``go_backwards`` says so, another ``merge_mode`` than "concat",
            or a computation in another precision than the weights'.
        ValueError: the layer is not built yet, or ``go_backwards`` is given for one that goes forward.
        ModuleNotFoundError: keras is not installed.
    """
    keras = library("keras")
    row = _directions(keras, layer, go_backwards)
    return stacked([row], batch_first=batch_first, dropout=0.0)


def from_layers(layers: Sequence[Any], *, batch_first: bool = True) -> Layer:
    """Our stack with the weights of Keras layers that are called one after the other.

    Args:
        layers: as of `from_layer`; between them may stand ``keras.layers.Dropout``, between all or none, of
            one rate.
        batch_first: of our layer.

    Raises:
        TypeError, LossyConversion, ModuleNotFoundError: as `from_layer`.
        ValueError: as `from_layer`; or the layers make no stack of ours (sizes, directions or conventions
            differ).
    """
    keras = library("keras")
    recurrent = [one for one in layers if not isinstance(one, keras.layers.Dropout)]
    rates = [float(one.rate) for one in layers if isinstance(one, keras.layers.Dropout)]
    expected = [one for k, one in enumerate(layers) if not rates or k % 2 == 0]
    if len(set(rates)) > 1 or expected != recurrent or (rates and len(rates) != len(recurrent) - 1):
        kinds = [type(one).__name__ for one in layers]
        raise ValueError(
            f"expected recurrent layers with Dropout of one rate between all or none, got {kinds}"
        )
    rows = [_directions(keras, one, False) for one in recurrent]
    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError(f"expected layers of one or of two directions, got {[len(row) for row in rows]}")
    if not all(one.return_sequences for one in recurrent[:-1]):
        raise ValueError(
            "every layer but the last needs return_sequences=True: the next reads its whole sequence"
        )
    return stacked(rows, batch_first=batch_first, dropout=rates[0] if rates else 0.0)


def from_cell(cell: Any) -> Cell:
    """Our cell with the weights of a built ``keras.layers.GRUCell`` or ``LSTMCell``.

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
            raise ValueError("go_backwards is for a layer of one direction, got a Bidirectional")
        if layer.merge_mode != "concat":
            raise LossyConversion(
                f"this Bidirectional puts its directions together by merge_mode={layer.merge_mode!r}; ours"
                " stand side by side ('concat')"
            )
        pair = layer.forward_layer, layer.backward_layer
        if [one.go_backwards for one in pair] != [False, True]:
            raise LossyConversion(
                "expected a Bidirectional's first layer to go forward and its second backwards"
            )
        return [_one(keras, one) for one in pair]
    found = _one(keras, layer)
    if layer.go_backwards and not go_backwards:
        raise LossyConversion(
            "this layer reads its input from the end (go_backwards=True), which ours does not by itself: with"
            " from_layer(layer, go_backwards=True) ours computes the same for the input turned round in time"
        )
    if go_backwards and not layer.go_backwards:
        raise ValueError("go_backwards=True was given, and this layer goes forward")
    return [found]


def _one(keras: Any, layer: Any) -> Weights:
    kind = next((kind for kind in _ORDERS if type(layer) is getattr(keras.layers, kind)), None)
    if kind is None:
        raise TypeError(f"expected a keras.layers.GRU, LSTM or Bidirectional of one, got {kind_of(layer)}")
    if layer.stateful:
        raise LossyConversion(
            "this layer keeps its state from call to call (stateful=True); ours is given it, as hx"
        )
    return _read(keras, layer.cell, kind)


def _read(keras: Any, cell: Any, kind: str) -> Weights:
    """A Keras cell's weights.

    Raises:
        LossyConversion, ValueError: as `from_layer`.
    """
    if not cell.built:
        raise ValueError(f"this Keras {kind} has no weights yet: call it, or its build, first")
    for name, given, ours in (
        ("activation", cell.activation, keras.activations.tanh),
        ("recurrent_activation", cell.recurrent_activation, keras.activations.sigmoid),
    ):
        if given is not ours:
            called = getattr(given, "__name__", given)
            raise LossyConversion(f"this layer has {name}={called}; ours is {ours.__name__}")
    for name in ("dropout", "recurrent_dropout"):
        if getattr(cell, name):
            raise LossyConversion(
                f"this layer has {name}={getattr(cell, name)}, which ours does not know; inference does"
                f" without: for that alone set {name} of its cell to 0 before"
            )
    policy = cell.dtype_policy
    if policy.compute_dtype != policy.variable_dtype:
        raise LossyConversion(
            f"this layer computes in {policy.compute_dtype} with weights in {policy.variable_dtype}"
            f" ({policy.name}); ours computes in the precision of its weights"
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
