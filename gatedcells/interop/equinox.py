"""To and from Equinox's ``eqx.nn.GRUCell`` and ``LSTMCell``.

Equinox has torch's shapes and gate order but fewer biases. Its GRU has ``bias`` ``[3H]`` and ``bias_n``
``[H]``::

    r = σ(W_r x + U_r h + bias_r)      n = tanh(W_n x + bias_n' + r ⊙ (U_n h + bias_n))

so ``bias`` is ``b_ir + b_hr, b_iz + b_hz, b_in`` and ``bias_n`` is ``b_hn``; its LSTM's ``bias`` ``[4H]`` is
``b_i + b_h``. The reset gate acts after the product. A cell computes one step of one sequence, ``[I]`` and
``[H]``; ``jax.vmap`` and ``jax.lax.scan`` add batch and time. Sources: docs.kidger.site/equinox/api/nn/rnn
and equinox/nn/_rnn.py in github.com/patrick-kidger/equinox; on the biases, its issue 1003.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatedcells.interop.arrays import from_numpy, to_jax
from gatedcells.interop.gate_order import EQUINOX_GRU, EQUINOX_LSTM, OURS, reorder
from gatedcells.interop.weights import (
    AnyCell,
    AnyLayer,
    Cell,
    Direction,
    Weights,
    four_biases,
    kind_of,
    library,
    one_bias,
    six_biases,
)

_ORDERS = {"GRU": EQUINOX_GRU, "LSTM": EQUINOX_LSTM}


def to_cell(module: AnyLayer | AnyCell, *, dtype: torch.dtype | None = None) -> Any:
    """Make an ``equinox.nn.GRUCell`` or ``LSTMCell`` with a module's weights.

    Args:
        module: a cell, or a layer with ``num_layers=1`` and one direction, of gatedcells or torch.
        dtype: of the Equinox cell, None for the module's own.

    Raises:
        TypeError: ``module`` is none of these.
        LossyConversion: several layers or directions (see `gatedcells.interop.cells_of`), a projection, a GRU
            with ``reset_after=False``, or float64 while JAX's ``jax_enable_x64`` is off.
        ModuleNotFoundError: equinox is not installed.
    """
    eqx, jax = library("equinox"), library("jax")
    weights = Weights.of(module).cast(dtype)
    weights.refuse_reset_before("Equinox")
    one = weights.only("Equinox")
    tensors = {"weight_ih": one.weight_ih, "weight_hh": one.weight_hh}
    apart: Tensor | None = None
    if weights.cell == "LSTM":
        bias = one_bias(one)
    else:
        bias, apart = four_biases(one) or (None, None)
    if bias is not None:
        tensors["bias"] = bias
    target = _ORDERS[weights.cell]
    arrays = {name: to_jax(reorder(tensor, weights.order, target)) for name, tensor in tensors.items()}
    if apart is not None:
        arrays["bias_n"] = to_jax(apart)
    kind = getattr(eqx.nn, f"{weights.cell}Cell")
    # its shapes alone: numbers drawn now would only be written over
    cell = eqx.filter_eval_shape(
        lambda: kind(
            weights.input_size, weights.hidden_size, use_bias="bias" in arrays,
            dtype=arrays["weight_ih"].dtype, key=jax.random.PRNGKey(0),
        )
    )  # fmt: skip
    names = list(arrays)
    return eqx.tree_at(lambda c: [getattr(c, name) for name in names], cell, [arrays[name] for name in names])


def from_cell(cell: Any) -> Cell:
    """Make a `gatedcells.GRUCell` or `gatedcells.LSTMCell` with the weights of Equinox's.

    `gatedcells.interop.layer_of` joins cells to a layer.

    Raises:
        TypeError: ``cell`` is not an ``equinox.nn.GRUCell`` or ``LSTMCell``.
        ModuleNotFoundError: equinox is not installed.
    """
    eqx = library("equinox")
    kinds = {eqx.nn.GRUCell: "GRU", eqx.nn.LSTMCell: "LSTM"}
    if type(cell) not in kinds:
        raise TypeError(f"expected an equinox.nn.GRUCell or LSTMCell, got {kind_of(cell)}")
    kind = kinds[type(cell)]
    source, target = _ORDERS[kind], OURS[kind]
    weight_ih, weight_hh = (reorder(from_numpy(w), source, target) for w in (cell.weight_ih, cell.weight_hh))
    if not cell.use_bias:
        return Weights(kind, ((Direction(weight_ih, weight_hh),),)).to_cell()
    bias = reorder(from_numpy(cell.bias), source, target)
    biases = six_biases(bias, from_numpy(cell.bias_n)) if kind == "GRU" else (bias, torch.zeros_like(bias))
    return Weights(kind, ((Direction(weight_ih, weight_hh, *biases),),)).to_cell()
