"""Between torch's tensors and numpy's arrays, at the border to other libraries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatedcells.interop.weights import LossyConversion, library

# numpy has no bfloat16; every bfloat16 number is a float32, so the way through it is exact both ways
_THROUGH = {torch.bfloat16: torch.float32}


def to_numpy(tensor: Tensor) -> Any:
    """A numpy array with the same numbers; float32 for bfloat16."""
    return tensor.detach().cpu().to(_THROUGH.get(tensor.dtype, tensor.dtype)).numpy()


def from_numpy(array: Any) -> Tensor:
    """A tensor with the same numbers and dtype, its own memory; ``array`` is what ``numpy.asarray`` takes.

    Raises:
        TypeError: the numbers are not floating point of 16 to 64 bits.
    """
    import numpy

    found = numpy.asarray(array)
    dtype = getattr(torch, found.dtype.name, None)
    if dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"expected weights in float64, float32, float16 or bfloat16, got {found.dtype.name}")
    through = "float32" if dtype == torch.bfloat16 else found.dtype.name
    return torch.from_numpy(numpy.array(found, dtype=through)).to(dtype)


def to_jax(tensor: Tensor) -> Any:
    """A JAX array with the same numbers and dtype, its own memory.

    Raises:
        LossyConversion: JAX has 64-bit numbers switched off and would round float64 to float32.
    """
    jax = library("jax")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise LossyConversion(
            "JAX has 64-bit numbers switched off and would round float64 to float32: ask for that with"
            " dtype=torch.float32, or set jax_enable_x64"
        )
    return jax.numpy.array(to_numpy(tensor), dtype=dtype)  # asarray may share the parameter's memory
