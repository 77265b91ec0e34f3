"""To and from Flax: linen's parameters and nnx's cells.

linen's ``GRUCell`` has a matrix for every gate, named by two letters (i or h for the input's or the state's
half, then the gate), and biases on the input's half and on the candidate's hidden half alone::

    r = σ(W_ir x + b_ir + W_hr h)      n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))

so ``ir/bias`` is ``b_ir + b_hr``, ``in/bias`` is ``b_in`` and ``hn/bias`` is ``b_hn``. ``LSTMCell`` and
``OptimizedLSTMCell`` have one and the same tree, biases on the hidden half: ``hi/bias`` is ``b_ii + b_hi``. A
kernel is transposed, ``[I, H]``. nnx's cells are the same with all gates side by side in ``dense_i`` and
``dense_h`` (but for ``nnx.LSTMCell``, which has linen's), and **nnx.GRUCell has no b_hn**, against its own
documentation (Flax issue 5594):
a GRU whose ``b_hn`` is not zero has no counterpart there.

The reset gate acts after the product. A carry of the LSTM is ``(c, h)``, ours ``(h, c)``. Sources:
flax.readthedocs.io, flax.linen and flax.nnx, recurrent; flax/linen/recurrent.py and flax/nnx/nn/recurrent.py.
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
    frozenset({"i", "h"}): "SimpleCell, a plain recurrent network without gates",
    frozenset({"if", "in", "hf", "hn"}): "MGUCell, whose one gate is both of a GRU's",
}


def to_params(module: AnyLayer | AnyCell, *, dtype: torch.dtype | None = None) -> dict[str, dict[str, Any]]:
    """The parameters of ``flax.linen.GRUCell``, or of ``LSTMCell`` and ``OptimizedLSTMCell``.

    They go where ``variables["params"]`` of the cell would be; a ``linen.RNN`` has them under ``cell``.

    Args:
        module: a cell, or a layer of one cell. Without biases, Flax's are zeros: its cells always have them.
        dtype: of the arrays, None for the module's own.

    Raises:
        LossyConversion: several layers or directions (see `gatedcells.interop.cells_of`), a projection, a GRU
            with ``reset_after=False``, or float64 where JAX has it switched off.
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
    """Our cell with linen's parameters; which cell, their names tell. `gatedcells.interop.layer_of` makes
    layers.

    Parameters do not tell a cell's activations: they must be linen's own, sigmoid and tanh.

    Args:
        params: as `to_params` gives them; ``{"params": ...}`` and a ``linen.RNN``'s tree of one cell are
            opened.

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
        what = f"they are those of {known}" if known else f"got {sorted(found)}"
        raise LossyConversion(f"expected the parameters of a GRUCell or of an LSTMCell: {what}")
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
    """A ``flax.nnx.GRUCell`` or ``OptimizedLSTMCell`` with the weights of a cell, or of a layer of one cell.

    Args:
        module, dtype: as of `to_params`.

    Raises:
        LossyConversion: as `to_params`; and a GRU whose ``b_hn`` is not zero.
        ModuleNotFoundError: flax is not installed.
    """
    nnx = library("flax.nnx")
    weights, one = _one(module, dtype)
    target = _ORDERS[weights.cell]
    if weights.cell == "GRU":
        bias, apart = four_biases(one) or (None, None)
        if apart is not None and apart.any():
            raise LossyConversion(
                "flax.nnx.GRUCell has no bias of the candidate's hidden half (b_hn), and this one's is not"
                " zero; linen's has it (to_params)"
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
    """Our cell with the weights of a ``flax.nnx.GRUCell``, ``LSTMCell`` or ``OptimizedLSTMCell``.

    Raises:
        TypeError: another class.
        LossyConversion: other activations than sigmoid and tanh, or a computation in another precision than
            the weights'.
        ModuleNotFoundError: flax is not installed.
    """
    nnx = library("flax.nnx")
    kinds = {nnx.GRUCell: "GRU", nnx.LSTMCell: "LSTM", nnx.OptimizedLSTMCell: "LSTM"}
    if type(cell) not in kinds:
        raise TypeError(f"expected a flax.nnx.GRUCell, LSTMCell or OptimizedLSTMCell, got {kind_of(cell)}")
    for given, ours in ((cell.gate_fn, nnx.sigmoid), (cell.activation_fn, nnx.tanh)):
        if given is not ours:
            name = getattr(given, "__name__", given)
            raise LossyConversion(f"this cell has the activation {name}; ours are sigmoid and tanh")
    computes, holds = (
        library("numpy").dtype(one or cell.param_dtype) for one in (cell.dtype, cell.param_dtype)
    )
    if computes != holds:
        raise LossyConversion(
            f"this cell computes in {computes} with weights in {holds}; ours computes in the precision of its"
            " weights"
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
