"""A user's cell over time as one operator for torch's compiler: the graph holds no step, whatever T.

The cell is a Python object: the operator takes a number that stands for it, and every tensor that it holds.
The forward pass keeps nothing; the backward pass runs the steps again with autograd. (torch's scan is no way:
in torch 2.13 inductor gets gradients of what its step closes over wrong.)
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.torch_version import TorchVersion

from gatedcells import _ops, _shapes
from gatedcells._autograd.recompute import only
from gatedcells._autograd.rules import run_again
from gatedcells.reference.time import unroll_states

States = tuple[Tensor, ...]


class Steps(Protocol):
    """What this module needs of a cell."""

    def advance(self, x_t: Tensor, state: States) -> States:
        """One step."""
        ...


torch.library.define(
    "gatedcells::cell_sequence",
    "(Tensor input, Tensor[] state, Tensor[] tensors, Tensor? lengths, Tensor? resets, bool reverse,"
    " bool autocast, int cell, str names) -> (Tensor states, Tensor[] last)",
)
torch.library.define(
    "gatedcells::cell_sequence_backward",
    "(Tensor d_states, Tensor[] d_last, Tensor input, Tensor[] state, Tensor[] tensors, Tensor? lengths,"
    " Tensor? resets, bool reverse, bool autocast, int cell, str names, bool[] needed) -> Tensor[]",
)

_cells: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_numbers = itertools.count()
# torch's compiler before does not go through the attributes of a module
_VARS_ARE_TRACED = TorchVersion(torch.__version__) >= TorchVersion("2.13")


def enter(cell: nn.Module) -> int:
    """The number that stands for a cell while it lives."""
    number = next(_numbers)
    _cells[number] = cell
    return number


def tensors_of(cell: nn.Module, number: int) -> dict[str, Tensor]:
    """A cell's parameters, buffers, and tensors that are plain attributes, such as what an attention reads:
    the compiler changes an attribute only after the graph has run. ``number`` stands for the cell.

    Raises:
        RuntimeError: an attribute is a list, tuple or dict with a tensor.
    """
    plain: dict[str, Tensor] = {}
    for path, name, value in _attributes(cell, number):
        if isinstance(value, Tensor):
            plain[f"{path}.{name}" if path else name] = value
        elif isinstance(value, (list, tuple, dict)) and name not in ("_parameters", "_buffers"):
            members: Any = value.values() if isinstance(value, dict) else value
            if any(isinstance(m, Tensor) and not isinstance(m, nn.Parameter) for m in members):
                holder = type(cell.get_submodule(path)).__name__
                raise RuntimeError(
                    "a compiled cell must hold each tensor as a separate attribute, got a"
                    f" {type(value).__name__} of tensors: {holder}.{name}"
                )
    return {**_registered(cell), **plain}


def _attributes(cell: nn.Module, number: int) -> list[tuple[str, str, Any]]:
    """What the cell and the modules in it hold in their own dictionaries: path of the module, name, value."""
    if _VARS_ARE_TRACED or not torch.compiler.is_compiling():
        return [(path, *item) for path, module in cell.named_modules() for item in vars(module).items()]
    modules = dict(cell.named_modules())
    places = [line.split(" ") for line in _places(number).splitlines()]
    return [(path, name, getattr(modules[path], name)) for path, name in places]


def _places(number: int) -> str:
    """Where a cell holds what: lines of a path, a blank and a name."""
    own = vars(nn.Module())
    modules = _cells[number].named_modules()
    return "\n".join(f"{path} {name}" for path, module in modules for name in vars(module) if name not in own)


# that the names are those of when it is compiled is what torch.compiler.assume_constant_result says
_places._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _registered(cell: nn.Module) -> dict[str, Tensor]:
    return {**dict(cell.named_parameters()), **dict(cell.named_buffers())}


@contextmanager
def _holding(module: nn.Module, tensors: Mapping[str, Tensor]) -> Generator[None]:
    """The module with these as plain attributes for a while."""
    places = [(path, name) for path, _, name in (full.rpartition(".") for full in tensors)]
    held = [(vars(module.get_submodule(path)), name) for path, name in places]
    before = [dict(attributes) for attributes, _ in held]
    for (attributes, name), tensor in zip(held, tensors.values(), strict=True):
        attributes[name] = tensor
    try:
        yield
    finally:
        for (attributes, name), old in zip(held, before, strict=True):
            if name in old:
                attributes[name] = old[name]
            else:
                del attributes[name]


class _Walk(nn.Module):
    """A cell over time, as a module, so that its parameters can be replaced for a call."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(
        self, input: Tensor, state: States, lengths: Tensor | None, resets: Tensor | None, reverse: bool
    ) -> tuple[Tensor, ...]:
        cell: Any = self.cell
        return walk(cell, input, state, lengths, resets, reverse)


def walk(
    cell: Steps,
    input: Tensor,
    state: States,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """The first state after each step ``[T, B, ...]``, then all states after the last step visited."""
    found = unroll_states(
        lambda t, before: cell.advance(input[t], before),
        len(input),
        state,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
    )
    outputs = [now[0] for now in found]
    return torch.stack(outputs[::-1] if reverse else outputs), *found[-1]


def _run(
    input: Tensor,
    state: Sequence[Tensor],
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    autocast: bool,
    cell: int,
    names: str,
) -> tuple[Tensor, ...]:
    module = _cells[cell]
    given = dict(zip(names.split(","), tensors, strict=True)) if tensors else {}
    registered = _registered(module)
    named = {f"cell.{name}": tensor for name, tensor in given.items() if name in registered}
    plain = {name: tensor for name, tensor in given.items() if name not in registered}
    kind = input.device.type
    with _holding(module, plain), torch.autocast(kind, input.dtype if autocast else None, enabled=autocast):
        return functional_call(_Walk(module), named, (input, tuple(state), lengths, resets, reverse))


def _forward(input: Tensor, state: Sequence[Tensor], *rest: Any) -> tuple[Tensor, list[Tensor]]:
    states, *last = _run(input, state, *rest)
    return states, [part.clone() for part in last]  # an operator's outputs share memory with nothing


def _forward_fake(input: Tensor, state: Sequence[Tensor], *_: Any) -> tuple[Tensor, list[Tensor]]:
    T, first = input.shape[0], state[0]
    return first.new_empty(T, *first.shape), [torch.empty_like(part) for part in state]


def _backward(
    d_states: Tensor,
    d_last: Sequence[Tensor],
    input: Tensor,
    state: Sequence[Tensor],
    tensors: Sequence[Tensor],
    *rest: Any,
) -> list[Tensor]:
    *options, needed = rest
    count = 1 + len(state)

    def run(leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        before = _random_state(input)
        found = _run(leaves[0], leaves[1:count], leaves[count:], *options)
        if not torch.equal(before, _random_state(input)):
            *_, cell, _ = options
            raise RuntimeError(
                f"{type(_cells[cell]).__name__}.step draws random numbers; when compiled, the backward pass"
                " runs the steps again and would draw different ones: draw them beforehand and pass them with"
                " the input, or do not compile for training"
            )
        return found

    return run_again(run, [input, *state, *tensors], needed, (d_states, *d_last))


def _random_state(input: Tensor) -> Tensor:
    """Of the generator that a step draws from unasked. That of a GPU cannot be read while a graph is
    captured; the calls before have said what there is to say."""
    if input.is_cuda and not torch.cuda.is_current_stream_capturing():
        return torch.cuda.get_rng_state(input.device)
    return torch.get_rng_state()


def _backward_fake(
    d_states: Tensor,
    d_last: Sequence[Tensor],
    input: Tensor,
    state: Sequence[Tensor],
    tensors: Sequence[Tensor],
    *rest: Any,
) -> list[Tensor]:
    return _shapes.gradients([input, *state, *tensors], rest[-1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    input, state, tensors, lengths, resets, *options = inputs
    ctx.options = options
    ctx.counts = len(state), len(tensors)
    ctx.save_for_backward(input, *state, *tensors, lengths, resets)


def _rule(ctx: Any, d_states: Tensor, d_last: Sequence[Tensor]) -> tuple[Any, ...]:
    input, *rest, lengths, resets = ctx.saved_tensors
    of_state, _ = ctx.counts
    state, tensors = rest[:of_state], rest[of_state:]
    wants_input, wants_state, wants_tensors, *_ = ctx.needs_input_grad
    needed = [wants_input, *wants_state, *wants_tensors]
    grads = torch.ops.gatedcells.cell_sequence_backward(
        d_states, d_last, input, state, tensors, lengths, resets, *ctx.options, needed
    )
    found = only(grads, needed)
    return found[0], found[1 : 1 + of_state], found[1 + of_state :], None, None, None, None, None, None


_ops.register("cell_sequence", _forward, _forward_fake)
_ops.register("cell_sequence_backward", _backward, _backward_fake)
torch.library.register_autograd("gatedcells::cell_sequence", _rule, setup_context=_setup)
