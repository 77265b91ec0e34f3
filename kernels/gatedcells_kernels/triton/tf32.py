"""Weights rounded to tf32, once for all the steps that multiply by them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gatedcells_kernels.triton.activations import to_tf32

SIZE = 1024


@triton.jit(do_not_specialize=["count"])
def _round(given, rounded, count, SIZE: tl.constexpr):
    number = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    x = tl.load(given + number, mask=number < count, other=0.0)
    tl.store(rounded + number, to_tf32(x), mask=number < count)


def rounded_to_tf32(weight: Tensor) -> Tensor:
    """A contiguous copy of a float32 tensor, each number the nearest that tf32 has."""
    weight = weight.contiguous()
    rounded = torch.empty_like(weight)
    grid = (triton.cdiv(weight.numel(), SIZE),)
    with torch.cuda.device_of(weight):  # as in calls.py
        _round[grid](given=weight, rounded=rounded, count=weight.numel(), SIZE=SIZE)
    return rounded
