"""Which backend computes a call: the table of backends, the choice among them, and the reasons for it.

A backend is requested, in order of precedence: by the module (``GRU(..., backend="cpu")``) or the function
(``gru_sequence(..., backend="cpu")``); by ``with use_backend("cpu"):``; by the environment variable
``GATEDCELLS_BACKEND``. A requested backend runs or raises `BackendUnavailable`. Without a request, or with
``"auto"``, the first backend in the table that can run the call is chosen; `explain_backend` says why.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gatedcells import precision as _precision
from gatedcells.reference.scan import AVAILABLE as SCAN_AVAILABLE
from gatedcells.reference.variants import GATE_HOOK
from gatedcells.validation import is_autocast_enabled

AUTO = "auto"
ENVIRONMENT_VARIABLE = "GATEDCELLS_BACKEND"
EXPORT = "torch.export"
Tensors = tuple[Tensor | None, ...]


class BackendUnavailable(RuntimeError):
    """The requested backend cannot run this call; the message says why, and which backends can."""


class Request(NamedTuple):
    """What a backend is asked to compute."""

    cell: str  # "GRU" or "LSTM"
    form: str  # "sequence" or "step"
    device: str  # "cpu", "cuda", ...
    dtype: torch.dtype
    transform: str | None  # what only plain torch serves: a torch.func transform, forward mode, export
    needs: str = ""  # what only the reference computes: return_gates, layer_norm, ...
    precision: str | None = None  # of float32's products, see `gatedcells.precision`
    device_index: int | None = None  # which of the devices, where there are several

    def __str__(self) -> str:
        """The request in words."""
        asked = [self.needs] * bool(self.needs)
        asked += [f"precision={self.precision!r}"] * bool(self.precision)
        what = f"{self.cell} {self.form}" + (f" with {', '.join(asked)}" if asked else "")
        return f"{what} on {self.device}, {_short(self.dtype)}"


class Backend(NamedTuple):
    """One row of the table."""

    name: str
    summary: str
    refuses: Callable[[Request], str | None]  # why it cannot run a request, None if it can
    only_if_asked: Callable[[Request], str | None]  # why "auto" skips it although it can


class Choice(NamedTuple):
    """The outcome of `resolve`."""

    backend: str
    # "operator": all steps in one, with its own backward; "again": all steps in one, run again for the
    # backward; "plain", "scan": torch's own operations
    route: str


# Where the kernels live. A module with a `library` says itself whether it can be used here.
_MODULES = {"triton": "gatedcells_kernels.triton", "cpu": "gatedcells_kernels.cpu"}


def _why_unusable(name: str, index: int | None) -> str | None:
    module = _MODULES[name]
    if importlib.util.find_spec(module) is None:
        return f"its kernels ({module}) are not part of this installation"
    return importlib.import_module(f"{module}.library").why_not(index)


# What is installed does not change while a process runs, and a compiled graph may hold a constant. This is
# what torch.compiler.assume_constant_result does; calling that would import the compiler.
_why_unusable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _triton_device() -> str:
    """The device whose tensors Triton's kernels take."""
    if importlib.util.find_spec(_MODULES["triton"]) is None:
        return "cuda"
    return importlib.import_module(f"{_MODULES['triton']}.library").device_type()


_triton_device._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _kernels_refuse(name: str, device: str, dtypes: tuple[torch.dtype, ...], request: Request) -> str | None:
    if request.device != device:
        return f"needs a tensor on {device}, got {request.device}"
    reason = _why_unusable(name, request.device_index)
    if reason is not None:
        return reason
    if request.transform is not None:
        return f"{request.transform} needs plain torch"
    reason = _precision.why_not(name, request.device, request.dtype, request.precision)
    if reason is not None:
        return reason
    if request.needs:
        return f"its kernels do not support {request.needs}"
    if request.dtype not in dtypes:
        return f"has kernels for {', '.join(map(_short, dtypes))}, got {_short(request.dtype)}"
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _triton_refuses(request: Request) -> str | None:
    dtypes = torch.float32, torch.bfloat16, torch.float16
    return _kernels_refuse("triton", _triton_device(), dtypes, request)


def _triton_only_if_asked(request: Request) -> str | None:
    if request.device == "cpu":
        return "Triton's interpreter executes it line by line"
    return "its kernels were tested without a GPU and have not been timed on one"


def _cpu_refuses(request: Request) -> str | None:
    return _kernels_refuse("cpu", "cpu", (torch.float32, torch.float64, torch.bfloat16), request)


def _never(_: Request) -> str | None:
    return None


def _reference_refuses(request: Request) -> str | None:
    return _precision.why_not("reference", request.device, request.dtype, request.precision)


# In the order in which "auto" asks.
BACKENDS = (
    Backend("triton", "fused GPU kernels", _triton_refuses, _triton_only_if_asked),
    Backend("cpu", "fused native CPU kernels", _cpu_refuses, _never),
    Backend("reference", "the equations in plain torch, on any device", _reference_refuses, _never),
)
NAMES = tuple(backend.name for backend in BACKENDS)


class _Selection:
    """The backend of the innermost `use_backend`; one for the process, like torch.backends' flags,
    because torch's compiler guards on it (it cannot on a ContextVar)."""

    name: str | None = None


_selection = _Selection()


def check_name(name: str, source: str = "backend") -> str:
    """Return ``name`` if it is ``"auto"`` or in the table, else raise ValueError naming its ``source``."""
    if name != AUTO and name not in NAMES:
        known = ", ".join(repr(known) for known in (AUTO, *NAMES))
        raise ValueError(f"{source} must be one of {known}, got {name!r}")
    return name


@contextmanager
def use_backend(name: str) -> Generator[None]:
    """Context manager: within the block, calls that do not request a backend themselves use ``name``.

    The setting is global to the process (like the flags of ``torch.backends``): do not set it in two
    threads at once. A compiled function is recompiled when the backend changes.

    Raises:
        ValueError: there is no such backend.
    """
    check_name(name)
    previous = _selection.name
    _selection.name = name
    try:
        yield
    finally:
        _selection.name = previous


# The mapping inside os.environ: that itself encodes the name and raises to say that there is none.
_environment: Any = getattr(os.environ, "_data", os.environ)
_KEY: Any = ENVIRONMENT_VARIABLE if _environment is os.environ else os.environ.encodekey(ENVIRONMENT_VARIABLE)


def requested(own: str = AUTO) -> tuple[str, str]:
    """The backend requested and the source of the request, for a call that itself says ``own``."""
    if own != AUTO:
        return check_name(own), "backend"
    if _selection.name is not None:
        return _selection.name, "use_backend"
    if _KEY in _environment:
        named = os.environ[ENVIRONMENT_VARIABLE]
        if named:
            return check_name(named, ENVIRONMENT_VARIABLE), ENVIRONMENT_VARIABLE
    return AUTO, AUTO


def _transform(tensors: Tensors) -> str | None:
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform (vmap, grad, jvp)"
    if forward_ad._current_level >= 0 and any(
        tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    ):
        return "forward-mode differentiation"
    if SCAN_AVAILABLE and torch.compiler.is_exporting():
        return EXPORT
    return None


def _request(cell: str, form: str, tensors: Tensors, needs: str, precision: str | None) -> Request:
    input, transform = tensors[0], _transform(tensors)
    assert input is not None
    device, dtype = input.device, input.dtype
    return Request(cell, form, device.type, dtype, transform, needs, precision, device.index)


def resolve(
    cell: str,
    form: str,
    tensors: Tensors,
    backend: str = AUTO,
    needs: str = "",
    precision: str | None = None,
) -> Choice:
    """Choose who computes a call with these tensors (the input first) that also ``needs`` something, its
    products perhaps in a ``precision``.

    Raises:
        BackendUnavailable: an explicit backend cannot run the call, or none can in this precision.
        ValueError: no such backend.
    """
    request = _request(cell, form, tensors, needs, precision)
    name, source = requested(backend)
    if precision is not None or torch.compiler.is_compiling():  # torch's flags may change
        return _choose(request, name, source)
    choice = _chosen.get((request, name))
    if choice is None:
        choice = _chosen[request, name] = _choose(request, name, source)
    return choice


# What was chosen before: the outcome depends on nothing else, and asking takes longer than a small step.
_chosen: dict[tuple[Request, str], Choice] = {}


def _choose(request: Request, name: str, source: str) -> Choice:
    for row in BACKENDS:
        if name in (AUTO, row.name):
            refusal = row.refuses(request)
            if refusal is None and name == AUTO and row.only_if_asked(request) is not None:
                continue
            if refusal is None:
                return Choice(row.name, _route(row.name, request)[0])
            if name == row.name:
                usable = ", ".join(repr(row.name) for row in BACKENDS if row.refuses(request) is None)
                raise BackendUnavailable(
                    f"{source}={name!r} cannot run this {request}: {refusal}; usable here: {usable}"
                )
    reasons = "; ".join(
        f"{row.name!r}: {row.refuses(request) or 'only on request, ' + str(row.only_if_asked(request))}"
        for row in BACKENDS
    )
    raise BackendUnavailable(f"no backend can be chosen for this {request}: {reasons}")


def explain(
    cell: str,
    form: str,
    tensors: Tensors,
    backend: str = AUTO,
    needs: str = "",
    precision: str | None = None,
) -> str:
    """What `resolve` would choose and why, one backend a line; an explicit one that cannot run is said
    to, not raised."""
    request = _request(cell, form, tensors, needs, precision)
    name, source = requested(backend)
    chosen = False
    lines = [f"{request}; {'no backend was requested' if source == AUTO else f'{source}={name!r}'}"]
    for row in BACKENDS:
        refusal = row.refuses(request)
        shy = row.only_if_asked(request)
        if refusal is not None:
            verdict = f"cannot run: {refusal}"
        elif name == AUTO and shy is not None:
            verdict = f"could run on request: {shy}"
        elif chosen or name not in (AUTO, row.name):
            verdict = "could run"
        else:
            chosen = True
            verdict = f"CHOSEN: {row.summary}; {_route(row.name, request)[1]}"
        lines.append(f"  {row.name:<10} {verdict}")
    return "\n".join(lines)


def _is_one_operator(request: Request) -> bool:
    """Whether a cell beyond its plain equations is compiled as one operator: a hook is a Python function, and
    autocast has its own mind about the operations within."""
    return (
        bool(request.needs)
        and torch.compiler.is_compiling()
        and request.form == "sequence"
        and request.transform is None
        and GATE_HOOK not in request.needs
        and not request.dtype.is_complex
        and not is_autocast_enabled(request.device)
    )


def _route(name: str, request: Request) -> tuple[str, str]:
    if name == "reference" and request.form == "step":
        return "plain", "plain torch operations, backward by autograd"
    if request.transform == EXPORT:
        return "scan", "exported as a single loop over time"
    if _is_one_operator(request):
        return "again", "one operator for the whole sequence, whose backward recomputes the steps"
    if request.transform is not None or request.dtype.is_complex or request.needs:
        return "plain", "plain torch operations step by step, backward by autograd"
    return "operator", "one operator for the whole sequence, with a custom backward"
