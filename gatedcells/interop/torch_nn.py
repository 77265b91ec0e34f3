"""To and from ``torch.nn``'s modules and state dicts: the equations, names and gate order are the same.

These functions create a separate module with copies of the weights and without hooks or parametrizations;
`gatedcells.convert` converts the modules of a model in place and keeps both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, overload

from torch import Tensor, nn

from gatedcells import counterparts
from gatedcells.cells import GRUCell, LSTMCell
from gatedcells.interop.gate_order import OURS
from gatedcells.interop.weights import (
    Cell,
    Direction,
    Layer,
    LossyConversion,
    Weights,
    kind_of,
)
from gatedcells.layers import GRU, LSTM

_BEYOND = re.compile(r"(norm_\w+|peephole\w*|h_0|c_0)")
_COMPUTED = re.compile(r"(parametrizations\.)?(weight|bias)_(ih|hh|hr)\w*(_orig|_g|_v|\.original\d*)")
_NAME = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?:_l(\d+)(_reverse)?)?")


@overload
def from_module(module: nn.GRU) -> GRU: ...
@overload
def from_module(module: nn.LSTM) -> LSTM: ...
@overload
def from_module(module: nn.GRUCell) -> GRUCell: ...
@overload
def from_module(module: nn.LSTMCell) -> LSTMCell: ...
def from_module(module: Any) -> Layer | Cell:
    """Make a gatedcells module from one of torch's: weights (copied), options, dtype, device and mode.

    Weights under a parametrization (``weight_norm`` and the like) are copied with their present values.

    Args:
        module: a ``torch.nn.GRU``, ``LSTM``, ``GRUCell`` or ``LSTMCell``.

    Raises:
        TypeError: ``module`` is none of these, or its ``forward`` is overridden.
    """
    return _copy(module, counterparts.OURS, "torch.nn")


@overload
def to_module(module: GRU) -> nn.GRU: ...
@overload
def to_module(module: LSTM) -> nn.LSTM: ...
@overload
def to_module(module: GRUCell) -> nn.GRUCell: ...
@overload
def to_module(module: LSTMCell) -> nn.LSTMCell: ...
def to_module(module: Any) -> nn.Module:
    """Make a ``torch.nn`` module from a gatedcells one: weights (copied), options, dtype, device and mode.

    ``backend`` and ``recompute`` do not change the result and are dropped.

    Args:
        module: a `gatedcells.GRU`, `gatedcells.LSTM`, `gatedcells.GRUCell` or `gatedcells.LSTMCell`.

    Raises:
        TypeError: ``module`` is none of these, or its ``forward`` is overridden.
        LossyConversion: the module uses something that torch does not have: ``reset_after=False``,
            ``allow_empty=True``, or what no conversion preserves (see `gatedcells.interop`).
    """
    return _copy(module, counterparts.TORCHS, "gatedcells")


def from_state_dict(
    state: Mapping[str, Tensor],
    *,
    prefix: str = "",
    batch_first: bool = False,
    dropout: float = 0.0,
    reset_after: bool = True,
) -> Layer | Cell:
    """Make a layer or cell from a checkpoint; its type, sizes and directions follow from names and shapes.

    Args:
        state: tensors by torch's names, ``weight_ih_l0`` and so on (a cell's without ``_l0``).
        prefix: what precedes these names in the checkpoint, for example ``"encoder.rnn."``; other names are
            ignored.
        batch_first, dropout: of a layer; a state dict does not contain them.
        reset_after: of a GRU; a state dict does not contain it.

    Raises:
        ValueError: the names or shapes are not those of a GRU or LSTM, or weights are pruned or parametrized.
        LossyConversion: there are parameters that a plain GRU or LSTM does not have.
    """
    own = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    if beyond := [name for name in own if _BEYOND.fullmatch(name)]:
        raise LossyConversion(
            f"expected the parameters of a plain GRU or LSTM, got {', '.join(beyond[:8])} besides"
        )
    if computed := [name for name in own if _COMPUTED.fullmatch(name)]:
        raise ValueError(
            f"the weights are computed from {', '.join(computed[:8])}: make the pruning or parametrization"
            " permanent before state_dict(), or pass the module itself to from_module"
        )
    rows: dict[tuple[int, bool], dict[str, Tensor]] = {}
    is_layer: set[bool] = set()
    for name, tensor in state.items():
        if name.startswith(prefix) and (match := _NAME.fullmatch(name.removeprefix(prefix))):
            kind, number, reverse = match.groups()
            rows.setdefault((int(number or 0), bool(reverse)), {})[kind] = tensor.detach()
            is_layer.add(number is not None)
    found = sorted(rows)
    D = 2 if any(reverse for _, reverse in found) else 1
    if not found or len(is_layer) != 1 or found != [(k // D, k % D == 1) for k in range(len(found))]:
        raise ValueError(
            f"expected the names of one GRU or LSTM after the prefix {prefix!r} (weight_ih_l0, ...),"
            f" got {sorted(state)[:8]}"
        )
    directions = [_direction(rows[key]) for key in found]
    cell = _cell_of(directions[0])
    layers = tuple(tuple(directions[k : k + D]) for k in range(0, len(directions), D))
    weights = Weights(cell, layers, reset_after or cell == "LSTM")
    if is_layer == {True}:
        return weights.to_layer(batch_first=batch_first, dropout=dropout)
    return weights.to_cell()


def _direction(tensors: dict[str, Tensor]) -> Direction:
    missing = {"weight_ih", "weight_hh"} - set(tensors)
    if missing or ("bias_ih" in tensors) != ("bias_hh" in tensors):
        raise ValueError(f"expected weight_ih, weight_hh and both biases or none, got {sorted(tensors)}")
    return Direction(**tensors)


def _cell_of(direction: Direction) -> str:
    """By the number of gates: rows of the weights for each hidden unit."""
    narrow = direction.weight_hr if direction.weight_hr is not None else direction.weight_hh
    rows, H = len(direction.weight_hh), narrow.shape[1]
    for cell, order in OURS.items():
        if rows == len(order.gates) * H:
            return cell
    raise ValueError(
        f"weight_hh must have 3 rows (GRU) or 4 (LSTM) per hidden unit, got {rows} rows for {H} units"
    )


def _copy(module: nn.Module, kinds: dict[type[nn.Module], type[nn.Module]], whose: str) -> Any:
    replaced = "forward" in vars(module)  # on the object
    for source in kinds:
        if isinstance(module, source) and type(module).forward is source.forward and not replaced:
            break
    else:
        own = " with an overridden forward" if replaced else ""
        raise TypeError(f"expected a GRU, LSTM, GRUCell or LSTMCell of {whose}, got {kind_of(module)}{own}")
    weights = Weights.of(module)
    if kinds is counterparts.TORCHS:
        weights.refuse_reset_before("torch")
        if getattr(module, "allow_empty", False):
            raise LossyConversion(
                "torch's layers refuse sequences of length 0, this one has allow_empty=True"
            )
    options: dict[str, Any] = {}
    if isinstance(module, nn.RNNBase):
        options = {"batch_first": module.batch_first, "dropout": module.dropout}
    return weights.fill(kinds[source], **options).train(module.training)
