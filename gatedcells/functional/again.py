"""Inference calls that were checked before.

Where a module is called again and again on inputs of one shape, as in streaming and serving, the checks
take longer than the arithmetic of a small cell. `Again` keeps what a full check found out: the shapes, the
dtype and the backend that was chosen. A later call is made at once if nothing of that has changed, and is
checked in full if anything has. The numbers come from the same kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from gatedcells import _ops
from gatedcells.backends import requested, resolve

_PLAIN = (Tensor, Parameter)


def _undisturbed() -> bool:
    """Whether nothing is going on that a call would have to know of: no gradient, autocast or transform."""
    return not (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or _ops.sees_every_call()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


class Again:
    """What a module remembers of its last inference call; it is not copied or pickled with the module."""

    __slots__ = ("_addresses", "_asked", "_expected", "_kernel", "_weights")

    def __init__(self) -> None:
        self._kernel: Callable[..., tuple[Tensor, ...]] | None = None
        self._expected: list[tuple[torch.Size, torch.dtype]] = []
        self._weights: tuple[Tensor | None, ...] = ()
        self._addresses: list[int] = []
        self._asked: tuple[str, str] | None = None

    def __reduce__(self) -> tuple[type["Again"], tuple[()]]:
        return Again, ()

    def run(
        self, backend: str, tensors: tuple[Tensor, ...], weights: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...] | None:
        """The kernel's outputs if the call is like the remembered one, else None.

        Args:
            backend: what the module asks for.
            tensors: the input (``[T, B, I]``, or ``[B, I]`` of a step) and the states.
            weights: the module's parameters, in the order of the kernel's arguments.
        """
        kernel = self._kernel
        if kernel is None or not _undisturbed() or len(weights) != len(self._weights):
            return None
        for tensor, (shape, dtype) in zip(tensors, self._expected):  # noqa: B905 (a module has its states)
            if (
                type(tensor) not in _PLAIN
                or tensor.dtype is not dtype
                or tensor.shape != shape
                or not tensor.is_cpu
                or not tensor.is_contiguous()
            ):
                return None
        # new numbers in a weight are no concern here; another weight, or another place for its numbers, is
        for weight, known, address in zip(weights, self._weights, self._addresses):  # noqa: B905 (as above)
            if weight is not known or (weight is not None and weight.data_ptr() != address):
                return None
        if requested(backend) != self._asked:
            return None
        return kernel(*tensors, *weights)

    def remember(
        self,
        cell: str,
        form: str,
        backend: str,
        tensors: tuple[Tensor, ...],
        weights: tuple[Tensor | None, ...],
    ) -> None:
        """Note a call that was checked in full and has run; arguments as for `run`."""
        self._kernel = None
        given = [t for t in (*tensors, *weights) if t is not None]
        if not _undisturbed() or any(type(t) not in _PLAIN or not t.is_contiguous() for t in given):
            return
        input, state = tensors[0], tensors[1]
        kernels: Any = _ops.inference_kernels(resolve(cell, form, (*tensors, *weights), backend).backend)
        if kernels is None or input.numel() == 0 or state.numel() == 0:
            return
        T = input.shape[0] if form == "sequence" else 1
        kind = kernels.GRUInference if cell == "GRU" else kernels.LSTMInference
        self._kernel = kind(T, *input.shape[-2:], state.shape[-1], input.dtype)
        self._expected = [(t.shape, t.dtype) for t in tensors]
        self._weights = weights
        self._addresses = [0 if w is None else w.data_ptr() for w in weights]
        self._asked = requested(backend)
