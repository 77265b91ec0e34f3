"""Whether Triton can be used here, and how: on a GPU, or in its interpreter on the CPU.

With ``TRITON_INTERPRET=1`` in the environment before Triton is first imported, the kernels run line by line
in Python on CPU tensors, so that one can stop in them and look.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re

import torch

LEAST = (3, 6)
INTERPRET_VARIABLE = "TRITON_INTERPRET"
CAPABILITY = (8, 0)  # bfloat16 on tensor cores, cp.async


@functools.cache
def interprets() -> bool:
    """Whether the kernels run in Triton's interpreter; settled when it is first asked."""
    return os.environ.get(INTERPRET_VARIABLE, "").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def why_not() -> str | None:
    """Why the kernels cannot run in this installation, None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (`pip install gatedcells[triton]`)"
    found = importlib.metadata.version("triton")
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:2])
    if numbers < LEAST:
        return f"needs Triton {'.'.join(map(str, LEAST))} or newer, got {found}"
    if not interprets() and not torch.cuda.is_available():
        return f"no GPU here, and {INTERPRET_VARIABLE}=1 is not set, which runs the kernels on CPU tensors"
    if not interprets() and torch.version.hip is None and torch.cuda.get_device_capability() < CAPABILITY:
        least, got = (".".join(map(str, c)) for c in (CAPABILITY, torch.cuda.get_device_capability()))
        return f"needs compute capability {least} or higher, got {got}"
    return None


def device_type() -> str:
    """The device whose tensors the kernels take: "cpu" in the interpreter, else "cuda"."""
    return "cpu" if interprets() else "cuda"
