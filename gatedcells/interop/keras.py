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
github.com/keras-team/keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatedcells.interop.arrays import from_numpy, to_numpy
from gatedcells.interop.cells import stacked
from gatedcells.interop.gate_order import KERAS_GRU, KERAS_LSTM, OURS, reorder
from gatedcells.interop.weights import (
    AnyCell,
    AnyLayer,
    Cell,
    Direction,
    Layer,
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


def from_layer(layer: Any, *, go_backwards: bool = False, batch_first: bool = True) -> Layer:
    """Our layer with the weights of a built ``keras.layers.GRU`` or ``LSTM``, or of a ``Bidirectional`` of
    one.

    Args:
        layer: Keras'.
        go_backwards: must be given for a Keras layer that goes backwards: ours then computes for ``x`` turned
            round in time what Keras' computes for ``x``.
        batch_first: of our layer; Keras' read ``[B, T, I]``.

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


def from_cell(cell: Any) -> Cell:
    """Our cell with the weights of a built ``keras.layers.GRUCell`` or ``LSTMCell``.

    Raises:
        TypeError, LossyConversion, ValueError, ModuleNotFoundError: as `from_layer`.
    """
    keras = library("keras")
    for kind in _ORDERS:
        if type(cell) is getattr(keras.layers, f"{kind}Cell"):
            return _read(keras, cell, kind).to_cell()
    raise TypeError(f"expected a keras.layers.GRUCell or LSTMCell, got a {type(cell).__name__}")


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
    if len(row) == 2:
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
        raise TypeError(
            f"expected a keras.layers.GRU, LSTM or Bidirectional of one, got a {type(layer).__name__}"
        )
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
            raise LossyConversion(f"this layer has {name}={getattr(cell, name)}, which ours does not know")
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
