"""Tensors to and from the arrays of numpy and JAX."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatedcells.interop.weights import LossyConversion, library

# numpy has no bfloat16; every bfloat16 number is a float32, so the way through it is exact both ways
_THROUGH = {torch.bfloat16: torch.float32}


def to_numpy(tensor: Tensor) -> Any:
    """A numpy array with the same values; bfloat16 becomes float32, which represents it exactly."""
    return tensor.detach().cpu().to(_THROUGH.get(tensor.dtype, tensor.dtype)).numpy()


def from_numpy(array: Any) -> Tensor:
    """A copy of ``array``, which is anything that ``numpy.asarray`` takes, with the same values and dtype.

    Raises:
        TypeError: the dtype is not float64, float32, float16 or bfloat16.
    """
    import numpy

    found = numpy.asarray(array)
    dtype = getattr(torch, found.dtype.name, None)
    if dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"expected weights in float64, float32, float16 or bfloat16, got {found.dtype.name}")
    through = "float32" if dtype == torch.bfloat16 else found.dtype.name
    return torch.from_numpy(numpy.array(found, dtype=through)).to(dtype)


def to_jax(tensor: Tensor) -> Any:
    """A JAX array with a copy of the values, in the same dtype.

    Raises:
        LossyConversion: the tensor is float64 and JAX's ``jax_enable_x64`` is off, so JAX would round it.
    """
    jax = library("jax")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise LossyConversion(
            "JAX would round float64 to float32, because jax_enable_x64 is off: set it, or pass"
            " dtype=torch.float32 to round"
        )
    return jax.numpy.array(to_numpy(tensor), dtype=dtype)  # asarray may share the parameter's memory
