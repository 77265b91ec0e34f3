"""Calls that were checked before.

Where a module is called again and again on inputs of one shape, as in streaming, serving and much
training, the checks take longer than the arithmetic of a small cell. `Again` keeps what a full check found
out: the shapes, the dtype and the backend that was chosen. A later call is made at once if nothing of that
has changed, and is checked in full if anything has. The numbers come from the same kernel.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gatedcells import _ops
from gatedcells._autograd.again import with_gradients
from gatedcells.backends import requested, resolve

# Asked at every call, without looking them up in modules: together this takes longer than a small step.
_is_grad_enabled = torch.is_grad_enabled
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_address = Tensor.data_ptr


def _undisturbed() -> bool:
    """Whether nothing is going on that a call would have to know of: no autocast or transform, and nobody who
    wants to see operators (`_ops.sees_every_call`; no module asks while it is being compiled)."""
    return not (
        torch.is_autocast_enabled("cpu")
        or _dispatch_modes()
        or _function_modes()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


class _Known(NamedTuple):
    """A call that was checked in full, whole: another thread may remember another one meanwhile.

    Attributes:
        kernel: computes it.
        differentiates: whether gradients were asked for.
        names, identities: of the module's parameters, those it lacks among them.
        weights, addresses: the parameters that it has, and where their numbers lie.
        alike, states_alike: whether input and weights, and each state, are as they were: types, dtypes,
            devices, sizes, strides, and what their operators go through (autocast, transforms, tracing).
        asked: for which backend.
        zeros: initial states for a call that gives none; kernels only read them.
        steps: T, of a step B.
    """

    kernel: Callable[..., tuple[Tensor, ...]]
    differentiates: bool
    names: list[str]
    identities: list[int]
    weights: tuple[Tensor, ...]
    addresses: list[int]
    alike: Callable[..., bool]
    states_alike: tuple[Callable[[Tensor], bool], ...]
    asked: tuple[str, str]
    zeros: tuple[Tensor, ...]
    steps: int


class Again:
    """What a module remembers of its last call without gradients, or of its last with them (a module has one
    for each); it is not copied or pickled with the module."""

    __slots__ = ("_known", "_seen")

    def __init__(self) -> None:
        self._known: _Known | None = None
        self._seen: torch.Size | None = None  # of the last call with gradients

    def __reduce__(self) -> tuple[type["Again"], tuple[()]]:
        return Again, ()

    def run(
        self,
        backend: str,
        input: Tensor,
        states: tuple[Tensor, ...] | None,
        weights: Mapping[str, Tensor | None],
        batch_first: bool = False,
    ) -> tuple[Tensor, ...] | None:
        """The kernel's outputs if the call is like the remembered one, else None.

        Args:
            backend: what the module asks for.
            input, states: as the module was given them; None for states of zeros.
            weights: the module's parameters by name, in the order of the kernel's arguments.
            batch_first: whether the input and the first output are ``[B, T, ...]``.
        """
        known = self._known
        if known is None:
            return None
        kernel, differentiates, names, identities, own, addresses, alike, states_alike, asked, *_ = known
        if (
            _is_grad_enabled() is not differentiates
            or _dispatch_modes()
            or _function_modes()
            or forward_ad._current_level >= 0
            # pruning keeps the parameters under other names, and the weights are what it makes of them
            or [*weights] != names
            or [*map(id, weights.values())] != identities
        ):
            return None
        if batch_first:
            if input.dim() != 3 or input.shape[1] != known.steps:  # it would be copied in vain
                return None
            input = input.transpose(0, 1).contiguous()
        # new numbers in a weight are no concern here; another place or another layout of them is
        if not alike(input, *own) or [*map(_address, own)] != addresses:
            return None
        given = known.zeros if states is None else states
        for state_alike, state in zip(states_alike, given):  # noqa: B905 (a module has its states)
            if not state_alike(state):
                return None
        if requested(backend) != asked:
            return None
        if batch_first:
            output, *last = kernel(input, *given)
            return output.transpose(0, 1), *last
        return kernel(input, *given)

    def remember(
        self,
        cell: str,
        form: str,
        backend: str,
        tensors: tuple[Tensor, ...],
        parameters: Mapping[str, Tensor | None],
        batch_first: bool = False,
    ) -> None:
        """Note a call that was checked in full and has run; one with gradients when its shape comes twice.

        Args:
            cell: "GRU" or "LSTM".
            form: "step" or "sequence".
            backend, tensors, parameters: as for `run`. A step's input is ``[B, I]``, its states ``[B, H]``; a
                sequence's ``[T, B, I]``, whatever ``batch_first``, and ``[1, B, H]``.
        """
        self._known = None
        differentiates = _is_grad_enabled()
        if differentiates:
            # batches of training often differ in length: what comes once is not worth remembering
            seen, self._seen = self._seen, tensors[0].shape
            if form == "step" or tensors[0].shape != seen:
                return
        weights = tuple(parameters.values())
        # each one once, tied or not
        own = tuple({id(weight): weight for weight in weights if weight is not None}.values())
        input, *states = tensors
        if batch_first:
            input = input.contiguous()
        given = [input, *states, *own]
        if differentiates and torch.is_inference_mode_enabled():
            return
        if not _undisturbed() or not all(_ops.is_plain(t) and t.is_contiguous() for t in given):
            return
        chosen = resolve(cell, form, (*tensors, *weights), backend).backend
        kernels: Any = _ops.prepared_kernels(chosen)
        # weights that were computed would be held here with all that they were computed from
        held = any(not weight.is_leaf for weight in own)
        if kernels is None or input.numel() == 0 or states[0].numel() == 0 or held:
            return
        if differentiates:
            if not any(t.requires_grad for t in given):
                return
            kernel = with_gradients(cell, input, states[0].shape[-1], weights, chosen)
        else:
            T = input.shape[0] if form == "sequence" else 1
            kind = kernels.GRUInference if cell == "GRU" else kernels.LSTMInference
            kernel = kind(T, *input.shape[-2:], states[0].shape[-1], weights, form == "sequence")
        zeros = tuple(torch.zeros_like(state) for state in states)
        self._known = _Known(
            kernel, differentiates, [*parameters], [*map(id, weights)], own, [*map(_address, own)],
            _ops.alike(input, *own), tuple(map(_ops.alike, states)), requested(backend), zeros, len(input),
        )  # fmt: skip
