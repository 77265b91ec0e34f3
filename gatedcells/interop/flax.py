"""To and from Flax: linen's parameters and nnx's cells.

linen's ``GRUCell`` has a matrix for every gate, named by two letters (i or h for the input or the hidden
state, then the gate). Its biases belong to the input's matrices and to the candidate's hidden matrix::

    r = σ(W_ir x + b_ir + W_hr h)      n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))

so ``ir/bias`` is ``b_ir + b_hr``, ``in/bias`` is ``b_in`` and ``hn/bias`` is ``b_hn``. ``LSTMCell`` and
``OptimizedLSTMCell`` share one parameter tree, with the biases on the hidden matrices: ``hi/bias`` is
``b_ii + b_hi``. Kernels are transposed, ``[I, H]``.

nnx's cells have the same parameters with all gates concatenated in ``dense_i`` and ``dense_h`` (except
``nnx.LSTMCell``, which has linen's layout). **nnx.GRUCell has no b_hn**, contrary to its documentation (Flax
issue 5594), so it cannot represent a GRU whose ``b_hn`` is not zero.

The reset gate acts after the product. Flax's LSTM carry is ``(c, h)``, the state of gatedcells ``(h, c)``.
Sources: flax.readthedocs.io, flax.linen and flax.nnx, recurrent; flax/linen/recurrent.py and
flax/nnx/nn/recurrent.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gatedcells.interop.arrays import from_numpy, to_jax
from gatedcells.interop.gate_order import FLAX_GRU, FLAX_LSTM, OURS, join, reorder, split
from gatedcells.interop.weights import (
    AnyCell,
    AnyLayer,
    Cell,
    Direction,
    LossyConversion,
    Weights,
    four_biases,
    kind_of,
    library,
    one_bias,
    six_biases,
)

_ORDERS = {"GRU": FLAX_GRU, "LSTM": FLAX_LSTM}
# linen's letters of the gates
_LETTERS = {
    "GRU": {"reset": "r", "update": "z", "candidate": "n"},
    "LSTM": {"input": "i", "forget": "f", "candidate": "g", "output": "o"},
}
_OTHER_CELLS = {
    frozenset({"i", "h"}): "a SimpleCell, which has no gates",
    frozenset({"if", "in", "hf", "hn"}): "an MGUCell, which has one gate for a GRU's two",
}


def to_params(module: AnyLayer | AnyCell, *, dtype: torch.dtype | None = None) -> dict[str, dict[str, Any]]:
    """Make the parameters of a ``flax.linen.GRUCell``, or of an ``LSTMCell`` or ``OptimizedLSTMCell``.

    Args:
        module: a cell, or a layer with ``num_layers=1`` and one direction, of gatedcells or torch. Flax's
            cells always have biases; they are zeros if the module has none.
        dtype: of the arrays, None for the module's own.

    Returns:
        what ``variables["params"]`` of the cell holds; a ``linen.RNN`` has it under ``cell``.

    Raises:
        TypeError: ``module`` is none of these.
        LossyConversion: several layers or directions (see `gatedcells.interop.cells_of`), a projection, a GRU
            with ``reset_after=False``, or float64 while JAX's ``jax_enable_x64`` is off.
        ModuleNotFoundError: jax is not installed.
    """
    weights, one = _one(module, dtype)
    letters, order = _LETTERS[weights.cell], weights.order
    params: dict[str, dict[str, Any]] = {}
    for half, matrix in (("i", one.weight_ih), ("h", one.weight_hh)):
        for gate, block in split(matrix, order).items():
            params[half + letters[gate]] = {"kernel": to_jax(block.T)}
    zeros = torch.zeros_like(one.weight_ih[:, 0])
    if weights.cell == "LSTM":
        bias = one_bias(one)
        half = "h"
    else:
        bias, apart = four_biases(one) or (None, zeros[: weights.hidden_size])
        params["hn"]["bias"] = to_jax(apart)
        half = "i"
    for gate, block in split(zeros if bias is None else bias, order).items():
        params[half + letters[gate]]["bias"] = to_jax(block)
    return params


def from_params(params: Mapping[str, Any]) -> Cell:
    """Make a `gatedcells.GRUCell` or `gatedcells.LSTMCell` from linen's parameters.

    The parameters' names tell which of the two it is. They do not contain the activations, which must be
    linen's defaults, sigmoid and tanh. `gatedcells.interop.layer_of` joins cells to a layer.

    Args:
        params: as returned by `to_params`, also inside ``{"params": ...}`` or a ``linen.RNN``'s
            ``{"cell": ...}``.

    Raises:
        LossyConversion: the parameters of another cell (SimpleCell, MGUCell, ...).
        ValueError: the shapes are not those of a cell.
    """
    found: Any = params
    while set(found) in ({"params"}, {"cell"}):
        found = next(iter(found.values()))
    cell = next((cell for cell in _LETTERS if set(found) == _names(cell)), None)
    if cell is None:
        known = _OTHER_CELLS.get(frozenset(found))
        what = f"those of {known}" if known else f"{sorted(found)}"
        raise LossyConversion(f"expected the parameters of a GRUCell or LSTMCell, got {what}")
    letters, order = _LETTERS[cell], OURS[cell]

    def matrix(half: str) -> Tensor:
        return join({gate: from_numpy(found[half + x]["kernel"]).T for gate, x in letters.items()}, order)

    def bias(half: str) -> Tensor:
        return join({gate: from_numpy(found[half + x]["bias"]) for gate, x in letters.items()}, order)

    if cell == "GRU":
        biases = six_biases(bias("i"), from_numpy(found["hn"]["bias"]))
    else:
        hidden = bias("h")
        biases = torch.zeros_like(hidden), hidden
    return Weights(cell, ((Direction(matrix("i"), matrix("h"), *biases),),)).to_cell()


def to_nnx(module: AnyLayer | AnyCell, *, dtype: torch.dtype | None = None) -> Any:
    """Make a ``flax.nnx.GRUCell`` or ``OptimizedLSTMCell`` with a module's weights.

    Args:
        module, dtype: as for `to_params`.

    Raises:
        TypeError: as `to_params`.
        LossyConversion: as `to_params`; also a GRU whose ``b_hn`` is not zero.
        ModuleNotFoundError: flax is not installed.
    """
    nnx = library("flax.nnx")
    weights, one = _one(module, dtype)
    target = _ORDERS[weights.cell]
    if weights.cell == "GRU":
        bias, apart = four_biases(one) or (None, None)
        if apart is not None and apart.any():
            raise LossyConversion(
                "flax.nnx.GRUCell has no hidden bias of the candidate (b_hn), and this GRU's is not zero:"
                " use to_params for flax.linen.GRUCell, which has it"
            )
        kind, biased = nnx.GRUCell, "dense_i"
    else:
        bias = one_bias(one)
        kind, biased = nnx.OptimizedLSTMCell, "dense_h"
    kernels = {"dense_i": one.weight_ih, "dense_h": one.weight_hh}
    arrays = {name: to_jax(reorder(w, weights.order, target).T) for name, w in kernels.items()}
    bias = torch.zeros_like(one.weight_ih[:, 0]) if bias is None else bias
    # its shapes alone: numbers drawn now would only be written over
    cell = nnx.eval_shape(
        lambda: kind(
            weights.input_size, weights.hidden_size, param_dtype=arrays["dense_i"].dtype, rngs=nnx.Rngs(0)
        )
    )
    for name, array in arrays.items():
        getattr(cell, name).kernel.set_value(array)
    getattr(cell, biased).bias.set_value(to_jax(reorder(bias, weights.order, target)))
    return cell


def from_nnx(cell: Any) -> Cell:
    """Make a `gatedcells.GRUCell` or `gatedcells.LSTMCell` with the weights of a ``flax.nnx`` cell.

    Args:
        cell: a ``flax.nnx.GRUCell``, ``LSTMCell`` or ``OptimizedLSTMCell``.

    Raises:
        TypeError: ``cell`` is none of these.
        LossyConversion: activations other than sigmoid and tanh, or a ``dtype`` of the computation that
            differs from the weights'.
        ModuleNotFoundError: flax is not installed.
    """
    nnx = library("flax.nnx")
    kinds = {nnx.GRUCell: "GRU", nnx.LSTMCell: "LSTM", nnx.OptimizedLSTMCell: "LSTM"}
    if type(cell) not in kinds:
        raise TypeError(f"expected a flax.nnx.GRUCell, LSTMCell or OptimizedLSTMCell, got {kind_of(cell)}")
    for given, ours in ((cell.gate_fn, nnx.sigmoid), (cell.activation_fn, nnx.tanh)):
        if given is not ours:
            name = getattr(given, "__name__", given)
            raise LossyConversion(
                f"this cell has the activation {name}, expected sigmoid for the gates and tanh"
            )
    computes, holds = (
        library("numpy").dtype(one or cell.param_dtype) for one in (cell.dtype, cell.param_dtype)
    )
    if computes != holds:
        raise LossyConversion(
            f"this cell computes in {computes} with weights in {holds}; gatedcells computes in the dtype of"
            " its weights"
        )
    kind = kinds[type(cell)]
    if type(cell) is nnx.LSTMCell:
        names = {x: "if_" if x == "if" else x for x in _names(kind)}
        return from_params(
            {
                x: {"kernel": _values(getattr(cell, name).kernel)} | _bias(getattr(cell, name))
                for x, name in names.items()
            }
        )
    source, target = _ORDERS[kind], OURS[kind]
    weight_ih, weight_hh = (
        reorder(from_numpy(_values(dense.kernel)).T, source, target) for dense in (cell.dense_i, cell.dense_h)
    )
    bias = reorder(
        from_numpy(_values((cell.dense_i if kind == "GRU" else cell.dense_h).bias)), source, target
    )
    zeros = torch.zeros_like(bias)
    biases = (bias, zeros) if kind == "GRU" else (zeros, bias)
    return Weights(kind, ((Direction(weight_ih, weight_hh, *biases),),)).to_cell()


def _one(module: AnyLayer | AnyCell, dtype: torch.dtype | None) -> tuple[Weights, Direction]:
    weights = Weights.of(module).cast(dtype)
    weights.refuse_reset_before("Flax")
    return weights, weights.only("Flax")


def _names(cell: str) -> set[str]:
    return {half + letter for half in "ih" for letter in _LETTERS[cell].values()}


def _bias(linear: Any) -> dict[str, Any]:
    return {} if linear.bias is None else {"bias": _values(linear.bias)}


def _values(variable: Any) -> Any:
    return variable.get_value()
