"""The form that every conversion goes through: a module's weights in torch's gate order.

A conversion either preserves the function that a module computes or raises `LossyConversion` with the reason.
A library with one bias for torch's two gets their sum, which preserves the function up to one rounding; on
the way back the second bias is zero. (Training differs: two biases that act only as their sum move twice as
fast as one.)
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from gatedcells.cells import GRUCell, LSTMCell
from gatedcells.interop.gate_order import OURS, GateOrder, join, split
from gatedcells.layers import GRU, LSTM
from gatedcells.layers.base import RecurrentLayer

Layer: TypeAlias = GRU | LSTM
Cell: TypeAlias = GRUCell | LSTMCell
# what goes out may be torch's as well
AnyLayer: TypeAlias = GRU | LSTM | nn.GRU | nn.LSTM
AnyCell: TypeAlias = GRUCell | LSTMCell | nn.GRUCell | nn.LSTMCell

_FORWARDS = [
    kind.forward for kind in (GRU, LSTM, GRUCell, LSTMCell, nn.GRU, nn.LSTM, nn.GRUCell, nn.LSTMCell)
]


class LossyConversion(ValueError):
    """The conversion would not preserve the function that is computed; the message says why."""


class Direction(NamedTuple):
    """One direction of one layer, in torch's order.

    Attributes:
        weight_ih, weight_hh: ``[GH, I]`` and ``[GH, H]`` (``[GH, P]`` with a projection).
        bias_ih, bias_hh: ``[GH]``, or None.
        weight_hr: ``[P, H]``, or None for no projection.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Tensor | None = None


class Weights(NamedTuple):
    """All weights of a layer or a cell.

    Attributes:
        cell: "GRU" or "LSTM".
        layers: ``L`` times ``D`` directions, forward before reverse.
        reset_after: the GRU's convention, see `gatedcells.reference.gru`; True for the LSTM.
    """

    cell: str
    layers: tuple[tuple[Direction, ...], ...]
    reset_after: bool = True

    @classmethod
    def of(cls, module: nn.Module) -> Weights:
        """The weights of a module of gatedcells or torch, detached. Computed weights (parametrizations,
        pruning) have the values that the next call would use.

        Raises:
            TypeError: the module is neither.
            LossyConversion: in evaluation it computes anything other than the plain cell, learns its initial
                states, has a gate hook, computes in bfloat16 or overrides forward; or it is in training with
                a dropout other than the one between layers.
        """
        if isinstance(module, RecurrentLayer):
            inference = module.options._replace(
                recurrent_dropout=0.0, state_dropout=0.0, input_dropout=0.0, dropconnect=0.0
            )
            beyond = inference.words() + ["learn_h0=True"] * module.learn_h0
            beyond += ["a gate hook"] * bool(module._gate_hooks)
            beyond += ["precision='bf16'"] * (module.precision == "bf16")
            if beyond:
                has = ", ".join(beyond)
                raise LossyConversion(f"this {module.mode} has {has}, which no conversion preserves")
            if module.training and (dropped := module.options.words()):
                raise LossyConversion(
                    f"this {module.mode} is in training with {', '.join(dropped)}, which no conversion"
                    " preserves: call eval() first"
                )
        if isinstance(module, nn.RNNBase) and module.mode in OURS:
            cell, suffixes = module.mode, _suffixes(module.num_layers, module.bidirectional)
        elif isinstance(module, (nn.GRUCell, nn.LSTMCell, GRUCell, LSTMCell)):
            cell, suffixes = "LSTM" if isinstance(module, (nn.LSTMCell, LSTMCell)) else "GRU", (("",),)
        else:
            raise TypeError(f"expected a GRU, LSTM, GRUCell or LSTMCell, got {kind_of(module)}")
        if "forward" in vars(module) or type(module).forward not in _FORWARDS:
            raise LossyConversion(f"{kind_of(module)} overrides forward, which no conversion preserves")
        layers = tuple(tuple(_direction(module, suffix) for suffix in directions) for directions in suffixes)
        return cls(cell, layers, bool(getattr(module, "reset_after", True)))

    @classmethod
    def of_layer(cls, layer: AnyLayer) -> Weights:
        """`of`, for layers only.

        Raises:
            TypeError: not a GRU or LSTM.
        """
        given: Any = layer
        if not isinstance(given, nn.RNNBase):
            raise TypeError(
                f"expected a GRU or LSTM, got {kind_of(layer)}; gatedcells.interop.layer_of joins cells to a"
                " layer"
            )
        return cls.of(layer)

    @property
    def order(self) -> GateOrder:
        """The order of the gates: torch's."""
        return OURS[self.cell]

    @property
    def first(self) -> Direction:
        """The first direction of the first layer; the others have its dtype, device and biases."""
        return self.layers[0][0]

    @property
    def input_size(self) -> int:
        """I."""
        return self.first.weight_ih.shape[1]

    @property
    def hidden_size(self) -> int:
        """H."""
        return len(self.first.weight_ih) // len(self.order.gates)

    def only(self, library: str) -> Direction:
        """The one direction of the one layer, without a projection.

        Raises:
            LossyConversion: there are several, or a projection.
        """
        self.refuse_projection(library)
        L, D = len(self.layers), len(self.layers[0])
        if (L, D) != (1, 1):
            raise LossyConversion(
                f"{library} takes a single cell, got {L} layer(s) of {D} direction(s): split it with"
                " gatedcells.interop.cells_of(layer)"
            )
        return self.first

    def refuse_projection(self, library: str) -> None:
        """Raise LossyConversion if there is a projection."""
        if self.first.weight_hr is not None:
            raise LossyConversion(
                f"{library} has no LSTM with a projection, got proj_size={len(self.first.weight_hr)}"
            )

    def refuse_reset_before(self, library: str) -> None:
        """Raise LossyConversion for a GRU whose reset gate acts before the matrix product."""
        if not self.reset_after:
            raise LossyConversion(
                f"this GRU's reset gate acts before the matrix product (reset_after=False), {library}'s acts"
                " after it"
            )

    def cast(self, dtype: torch.dtype | None) -> Weights:
        """The same in another precision, unchanged if None."""
        if dtype is None:
            return self
        return self._replace(layers=tuple(tuple(_cast(d, dtype) for d in layer) for layer in self.layers))

    def to_layer(self, *, batch_first: bool = False, dropout: float = 0.0) -> Layer:
        """A gatedcells layer with these weights, without drawing random ones."""
        kind: Any = {"GRU": GRU, "LSTM": LSTM}[self.cell]
        options: dict[str, Any] = {} if self.cell == "LSTM" else {"reset_after": self.reset_after}
        return self.fill(kind, batch_first=batch_first, dropout=dropout, **options)

    def to_cell(self) -> Cell:
        """A gatedcells cell with these weights, without drawing random ones."""
        kind: Any = {"GRU": GRUCell, "LSTM": LSTMCell}[self.cell]
        options: dict[str, Any] = {} if self.cell == "LSTM" else {"reset_after": self.reset_after}
        return self.fill(kind, **options)

    def fill(self, kind: type[nn.Module], **options: Any) -> Any:
        """A module of one of the classes of `of` with these weights.

        Raises:
            ValueError: the weights do not fit together.
        """
        first = self.first
        options |= {"bias": first.bias_ih is not None, "device": "meta", "dtype": first.weight_ih.dtype}
        suffixes: tuple[tuple[str, ...], ...] = (("",),)
        if issubclass(kind, nn.RNNBase):
            D = len(self.layers[0])
            options |= {"num_layers": len(self.layers), "bidirectional": D == 2}
            if first.weight_hr is not None:
                options["proj_size"] = len(first.weight_hr)
            suffixes = _suffixes(len(self.layers), D == 2)
        state = {
            name + suffix: tensor
            for directions, suffixed in zip(self.layers, suffixes, strict=True)
            for direction, suffix in zip(directions, suffixed, strict=True)
            for name, tensor in direction._asdict().items()
            if tensor is not None
        }
        make: Any = kind
        module = make(self.input_size, self.hidden_size, **options).to_empty(device=first.weight_ih.device)
        expected, given = ({n: list(t.shape) for n, t in one.items()} for one in (module.state_dict(), state))
        if given != expected:
            wrong = {name: expected.get(name) for name in given if given[name] != expected.get(name)}
            wanted = wrong or {name: expected[name] for name in expected.keys() - given.keys()}
            found = {name: given.get(name) for name in wanted}
            raise ValueError(f"the weights do not fit together: expected shapes {wanted}, got {found}")
        module.load_state_dict(state)
        return module


def _suffixes(L: int, bidirectional: bool) -> tuple[tuple[str, ...], ...]:
    """Of torch's names, for each layer and direction."""
    ends = ("", "_reverse") if bidirectional else ("",)
    return tuple(tuple(f"_l{layer}{end}" for end in ends) for layer in range(L))


def _direction(module: nn.Module, suffix: str) -> Direction:
    found: dict[str, Any] = {name: _now(module, name + suffix) for name in Direction._fields}
    return Direction(**{name: tensor.detach() for name, tensor in found.items() if tensor is not None})


def _now(module: nn.Module, name: str) -> Tensor | None:
    """A weight as the next call would compute it: what a hook makes before a call is that of the last one."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return hook.apply_mask(module)
        if isinstance(hook, WeightNorm) and hook.name == name:
            return hook.compute_weight(module)
        if isinstance(hook, SpectralNorm) and hook.name == name:
            return hook.compute_weight(module, do_power_iteration=False)
    return getattr(module, name, None)


def _cast(direction: Direction, dtype: torch.dtype) -> Direction:
    tensors: Any = (None if tensor is None else tensor.to(dtype) for tensor in direction)
    return Direction(*tensors)


def one_bias(direction: Direction) -> Tensor | None:
    """``b_i + b_h``, ``[GH]``, for the LSTM and for the GRU with the reset gate before the product, where
    only the sum matters."""
    if direction.bias_ih is None or direction.bias_hh is None:
        return None
    return direction.bias_ih + direction.bias_hh


def four_biases(direction: Direction) -> tuple[Tensor, Tensor] | None:
    """For a GRU with the reset gate after the product: ``b_ir + b_hr, b_iz + b_hz, b_in`` as ``[3H]``, and
    ``b_hn`` ``[H]``, which the reset gate multiplies and which is therefore separate."""
    if direction.bias_ih is None or direction.bias_hh is None:
        return None
    order = OURS["GRU"]
    own, hidden = split(direction.bias_ih, order), split(direction.bias_hh, order)
    apart = hidden["candidate"]
    summed = {gate: own[gate] if gate == "candidate" else own[gate] + hidden[gate] for gate in order.gates}
    return join(summed, order), apart


def six_biases(bias: Tensor, bias_hn: Tensor) -> tuple[Tensor, Tensor]:
    """``b_i`` and ``b_h``, ``[3H]`` each, from the result of `four_biases`: ``b_h`` is zero except for
    ``b_hn``."""
    zeros = torch.zeros_like(bias_hn)
    order = OURS["GRU"]
    return bias, join({gate: bias_hn if gate == "candidate" else zeros for gate in order.gates}, order)


def kind_of(thing: object) -> str:
    """An object's class with its module, for a message."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


# by the package that is imported, what to install
_EXTRAS = {"onnx": "onnx", "google": "onnx", "keras": "keras", "jax": "jax", "flax": "jax", "equinox": "jax"}


def library(name: str) -> Any:
    """A library that is imported where it is used.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"this conversion needs {package}: pip install 'gatedcells[{_EXTRAS[package]}]'", name=package
        ) from None
