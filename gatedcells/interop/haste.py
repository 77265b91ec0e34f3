"""To and from the state dicts of Haste's GRU and LSTM (``haste_pytorch``).

====================== ================= ===========================================================
parameter              shape             in torch's names
====================== ================= ===========================================================
``kernel``             ``[I, GH]``       ``weight_ih`` transposed, gates z, r, h or i, g, f, o
``recurrent_kernel``   ``[H, GH]``       ``weight_hh`` likewise
``bias``               ``[GH]``          GRU: ``bias_ih``; LSTM: ``bias_ih + bias_hh``
``recurrent_bias``     ``[3H]``          GRU: ``bias_hh``
====================== ================= ===========================================================

Its GRU has the reset gate after the product (arXiv:1406.1078v1), as torch's. Zoneout and DropConnect are
arguments of its layers and not part of the state dict. Sources: docs/pytorch/haste_pytorch.md and
frameworks/pytorch/{gru,lstm}.py in github.com/lmnt-com/haste.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gatedcells.interop.gate_order import HASTE_GRU, HASTE_LSTM, OURS, GateOrder, reorder
from gatedcells.interop.weights import (
    AnyCell,
    AnyLayer,
    Direction,
    Layer,
    LossyConversion,
    Weights,
    one_bias,
)

_ORDERS = {"GRU": HASTE_GRU, "LSTM": HASTE_LSTM}
_LSTM_NAMES = {"kernel", "recurrent_kernel", "bias"}
_GRU_NAMES = _LSTM_NAMES | {"recurrent_bias"}


def to_state_dict(module: AnyLayer | AnyCell) -> dict[str, Tensor]:
    """Make a state dict for ``haste_pytorch.GRU`` or ``LSTM``.

    Args:
        module: a cell, or a layer with ``num_layers=1`` and one direction, of gatedcells or torch. Haste
            always has biases; they are zeros if the module has none.

    Raises:
        TypeError: ``module`` is none of these.
        LossyConversion: several layers or directions (see `gatedcells.interop.cells_of`), a projection, or a
            GRU with ``reset_after=False``.
    """
    weights = Weights.of(module)
    weights.refuse_reset_before("Haste")
    one, target = weights.only("Haste"), _ORDERS[weights.cell]
    zeros = torch.zeros_like(one.weight_ih[:, 0])
    if weights.cell == "GRU":
        biases = {"bias": one.bias_ih, "recurrent_bias": one.bias_hh}
    else:
        biases = {"bias": one_bias(one)}
    return {
        "kernel": reorder(one.weight_ih, weights.order, target).T.contiguous(),
        "recurrent_kernel": reorder(one.weight_hh, weights.order, target).T.contiguous(),
        **{
            name: reorder(zeros if bias is None else bias, weights.order, target)
            for name, bias in biases.items()
        },
    }


def from_state_dict(state: Mapping[str, Tensor], *, batch_first: bool = False) -> Layer:
    """Make a layer from the ``state_dict()`` of a ``haste_pytorch.GRU`` or ``LSTM``.

    The parameters' names tell which of the two it is.

    Args:
        state: by Haste's names, see above.
        batch_first: of the layer.

    Raises:
        LossyConversion: the names are those of another Haste layer (LayerNormGRU, IndRNN, ...).
        ValueError: the shapes are not those of a GRU or LSTM.
    """
    if set(state) == _GRU_NAMES:
        cell = "GRU"
    elif set(state) == _LSTM_NAMES:
        cell = "LSTM"
    else:
        raise LossyConversion(
            f"expected the parameters {sorted(_GRU_NAMES)} of Haste's GRU or {sorted(_LSTM_NAMES)} of its"
            f" LSTM, got {sorted(state)}"
        )
    source, target = _ORDERS[cell], OURS[cell]
    kernel, recurrent = state["kernel"].detach(), state["recurrent_kernel"].detach()
    rows = len(target.gates) * len(recurrent)
    if recurrent.shape[1] != rows or kernel.shape[1] != rows:
        raise ValueError(
            f"kernel and recurrent_kernel of Haste's {cell} must be [I, {rows}] and [{len(recurrent)},"
            f" {rows}], got {list(kernel.shape)} and {list(recurrent.shape)}"
        )
    bias = reorder(state["bias"].detach(), source, target)
    hidden = state["recurrent_bias"].detach() if cell == "GRU" else None
    one = Direction(
        _transposed(kernel, source, target),
        _transposed(recurrent, source, target),
        bias,
        torch.zeros_like(bias) if hidden is None else reorder(hidden, source, target),
    )
    return Weights(cell, ((one,),)).to_layer(batch_first=batch_first)


def _transposed(kernel: Tensor, source: GateOrder, target: GateOrder) -> Tensor:
    return reorder(kernel, source, target, dim=1).T.contiguous()
