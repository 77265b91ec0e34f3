"""`convert` and `revert`: switch a model's recurrent modules from torch.nn to gatedcells and back, in place.

Each module stays the same object; only its class changes, as in torch's own parametrizations. Everything
attached to it is therefore kept: parameters and the optimizer that updates them, tied weights, hooks,
training mode, names, other attributes, and every reference to the module.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gatedcells.backends import AUTO, check_name
from gatedcells.cells.base import RecurrentCell
from gatedcells.counterparts import OURS, TORCHS
from gatedcells.explain import explain_backend
from gatedcells.functional.again import Again
from gatedcells.layers import GRU, LSTM
from gatedcells.layers.base import RecurrentLayer
from gatedcells.layers.options import CellOptions

_NAMES = {theirs.__name__ for theirs in OURS}
# Settings of ours that change who computes and with how much memory, not what comes out.
_MANNER = ("backend", "recompute", "init", "t_max")


class Swapped(NamedTuple):
    """A module whose class was changed.

    Attributes:
        names: every name that the model has for it.
        what: its class and settings, as in its repr.
        backend: the backend that computes it now; None if none can, if it is torch's again or has no
            weights yet.
        explanation: the lines of `explain_backend`; empty if it is torch's again or has no weights yet.
    """

    names: tuple[str, ...]
    what: str
    backend: str | None
    explanation: str

    def __str__(self) -> str:
        """One line."""
        if not self.explanation:
            return self.what
        if self.backend is not None:
            return f"{self.what} on the {self.backend} backend"
        asked, *verdicts = self.explanation.splitlines()
        refusal = next(line.split() for line in verdicts if f"'{line.split()[0]}'" in asked)
        return f"{self.what}, which {' '.join(refusal)}"


class Left(NamedTuple):
    """A recurrent module that was left as it was.

    Attributes:
        names: every name that the model has for it.
        what: its class.
        why: the reason.
    """

    names: tuple[str, ...]
    what: str
    why: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.what} not converted: {self.why}"


class Conversion(NamedTuple):
    """What `convert` or `revert` did to a model; printed as a table of names.

    Attributes:
        model: the class of the model.
        library: the library of the swapped modules now, "gatedcells" or "torch.nn".
        swapped, left: the recurrent modules that were converted, and those that were left as they were.
    """

    model: str
    library: str
    swapped: tuple[Swapped, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        """A line for each recurrent module."""
        found = len(self.swapped) + len(self.left)
        head = f"{self.model}: {len(self.swapped)} of {found} recurrent modules now run on {self.library}"
        rows = [*self.swapped, *self.left]
        names = [", ".join(name or "(itself)" for name in row.names) for row in rows]
        width = max(map(len, names), default=0)
        return "\n".join([head, *(f"  {n:<{width}}  {row}" for n, row in zip(names, rows, strict=True))])


Report = Callable[[Conversion], object]


def convert(
    model: nn.Module,
    *,
    backend: str = AUTO,
    recompute: bool = False,
    inplace: bool = True,
    report: Report | None = print,
) -> nn.Module:
    """Convert every ``nn.GRU``, ``nn.LSTM``, ``nn.GRUCell`` and ``nn.LSTMCell`` of a model to gatedcells.

    Each module stays the same object and only its class changes, so an optimizer goes on with the very same
    parameters; shared modules, tied weights, hooks (forward, backward, state_dict), parametrizations and
    pruning, training mode, ``requires_grad``, device, dtype and every other attribute are kept, and so are
    the keys of ``state_dict``. `revert` undoes the conversion.

    Not converted, with the reason in the report: subclasses (what they add would be lost), modules whose
    ``forward`` was replaced on the instance, quantized and scripted modules, modules sharded by
    ``fully_shard`` (convert before sharding), and the plain ``nn.RNN``.

    Args:
        model: any module, possibly itself an ``nn.GRU``.
        backend: ``"auto"``, or the backend that must compute the modules (see `gatedcells.backends`).
        recompute: for the layers: use less memory and more time in training (see `gatedcells.GRU`).
        inplace: if False, convert a deep copy with parameters of its own and leave ``model`` unchanged.
        report: called once with the `Conversion`, e.g. to print or log it; None: no report.

    Returns:
        ``model``, or its converted copy.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: there is no such backend; nothing was changed.
    """
    check_name(backend)
    model = _checked(model, inplace)
    swapped: list[Swapped] = []
    left: list[Left] = []
    for module, names in _modules(model):
        why = _why_not_ours(module)
        if why is not None:
            left.append(Left(names, _kind(module), why))
        elif (target := OURS.get(_plain_class(module))) is not None:
            given = {"backend": backend} | ({"recompute": recompute} if target in (GRU, LSTM) else {})
            _become(module, target, _additions(target, **given))
            swapped.append(_explained(module, names))
    if report is not None:
        report(Conversion(type(model).__name__, "gatedcells", tuple(swapped), tuple(left)))
    return model


def revert(model: nn.Module, *, inplace: bool = True, report: Report | None = print) -> nn.Module:
    """Undo `convert`: turn every `GRU`, `LSTM`, `GRUCell` and `LSTMCell` of a model into torch.nn's.

    Modules created as gatedcells modules are reverted too, unless they compute what torch's do not
    (``reset_after=False``, ``allow_empty=True``, ``zoneout=0.1``, ...) or are of a subclass: those are left
    as they are, with the reason in the report. ``backend``, ``recompute`` and ``init`` are dropped: they do
    not change what a module computes.

    Args:
        model, inplace, report: as for `convert`.

    Returns:
        ``model``, or its copy.

    Raises:
        TypeError: ``model`` is not a module.
    """
    model = _checked(model, inplace)
    swapped: list[Swapped] = []
    left: list[Left] = []
    for module, names in _modules(model):
        if not isinstance(module, (RecurrentLayer, RecurrentCell)):
            continue
        why = _why_not_torchs(module)
        if why is not None:
            left.append(Left(names, _kind(module), why))
            continue
        theirs = TORCHS[_plain_class(module)]
        _become(module, theirs, {})
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
        swapped.append(Swapped(names, _described(module), None, ""))
    if report is not None:
        report(Conversion(type(model).__name__, "torch.nn", tuple(swapped), tuple(left)))
    return model


def _checked(model: Any, inplace: bool) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model if inplace else copy.deepcopy(model)


def _modules(model: nn.Module) -> list[tuple[nn.Module, tuple[str, ...]]]:
    """Every module once, with all its names."""
    found: dict[int, tuple[nn.Module, list[str]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), (module, []))[1].append(name)
    return [(module, tuple(names)) for module, names in found.values()]


def _plain_class(module: nn.Module) -> type[nn.Module]:
    """Its class; under a parametrization the one that torch derived a class of its own from."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def _kind(module: nn.Module) -> str:
    """The name of its class; of a scripted module the one that it was scripted from."""
    return str(getattr(module, "original_name", type(module).__name__))


def _why_not_either_way(module: nn.Module) -> str | None:
    if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
        return "it was sharded by fully_shard: convert or revert before sharding"
    if "forward" in vars(module):
        return "its forward was replaced on the instance, and what the replacement computes is unknown"
    return None


def _computes_with_others(layer: Any) -> bool:
    """Whether somebody put tensors of their own in the list that torch's layers read (LoRA for LSTMs)."""
    held = zip(layer._flat_weights_names, layer._flat_weights)  # noqa: B905 (some empty it)
    # a parameter replaced since is one that torch notices itself
    return not layer._weights_have_changed() and any(
        layer._parameters.get(name) is not None and weight is not layer._parameters[name]
        for name, weight in held
    )


def _why_not_ours(module: nn.Module) -> str | None:
    """Why a recurrent module is not swapped; None if it is, or if it is no recurrent module."""
    kind, plain = type(module), _plain_class(module)
    if plain in OURS:
        held = isinstance(module, nn.RNNBase) and _computes_with_others(module)
        others = "its _flat_weights holds tensors other than its parameters, and it computes with those"
        return _why_not_either_way(module) or (others if held else None)
    if isinstance(module, (RecurrentLayer, RecurrentCell)):
        return f"it is already a gatedcells module, with backend={module.backend!r}"
    if isinstance(module, torch.jit.ScriptModule):
        return "it was compiled by torch.jit: convert before that" if _kind(module) in _NAMES else None
    for theirs in OURS:
        if isinstance(module, theirs):
            other = f"it is a subclass of torch.nn.{theirs.__name__}, and what it adds would be lost"
            return _why_not_either_way(module) or other
    if kind.__module__.startswith("torch.ao.") and kind.__name__ in _NAMES:
        return "it is quantized or prepared for quantization"
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return "gatedcells implements gated cells only"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "it is not one of torch.nn's own modules"
    return None


def _why_not_torchs(module: nn.Module) -> str | None:
    why, plain = _why_not_either_way(module), _plain_class(module)
    if why is not None or plain not in TORCHS:
        return why or "torch.nn has no counterpart of its class"
    for name, usual in _additions(plain).items():
        value = vars(module).get(name, usual)
        if name not in _MANNER and not isinstance(value, Again) and value != usual:
            said = ", ".join(value.words()) if isinstance(value, CellOptions) else f"{name}={value!r}"
            return f"torch has no counterpart of {said}"
    return None


def _additions(ours: type[nn.Module], **given: Any) -> dict[str, Any]:
    """The attributes that one of our modules has and its counterpart in torch has not."""
    example: Any = ours
    counterpart: Any = TORCHS[ours]
    known = vars(counterpart(1, 1, device="meta"))
    return {name: v for name, v in vars(example(1, 1, device="meta", **given)).items() if name not in known}


def _become(module: nn.Module, target: type[nn.Module], additions: dict[str, Any]) -> None:
    """Change a module's class and the attributes that go with it; nothing else."""
    plain = _plain_class(module)
    ours = target if target in TORCHS else plain
    # torch keeps a list of the weights beside them; ours reads the parameters themselves
    gone = {"_flat_weights", *_additions(ours)}
    state = vars(module)
    for name in gone & state.keys():
        del state[name]
    state.update(additions)
    if is_parametrized(module):
        own = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        target = type(f"Parametrized{target.__name__}", (target,), own)
    module.__class__ = target


def _described(module: nn.Module) -> str:
    return f"{_plain_class(module).__name__}({module.extra_repr()})"


def _explained(module: nn.Module, names: tuple[str, ...]) -> Swapped:
    # by its name: a weight that was frozen as a buffer is no parameter
    name = "weight_ih_l0" if isinstance(module, RecurrentLayer) else "weight_ih"
    # what computes a weight before each call may not have done so yet
    weight: Any = getattr(module, name, next(module.parameters(), None))
    if weight is None:
        return Swapped(names, _described(module), None, "")
    size: Any = module.input_size
    example = weight.new_empty((1, 1, size) if isinstance(module, RecurrentLayer) else (1, size))
    explanation = explain_backend(module, example)
    chosen = [line.split()[0] for line in explanation.splitlines() if "CHOSEN" in line]
    return Swapped(names, _described(module), chosen[0] if chosen else None, explanation)
