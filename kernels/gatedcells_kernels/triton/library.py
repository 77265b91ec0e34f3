"""Whether Triton can be used here, and how: on a GPU, or in its interpreter on the CPU.

With ``TRITON_INTERPRET=1`` in the environment before Triton is first imported, the kernels run line by line
in Python on CPU tensors, so that one can stop in them and look.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from pathlib import Path

import torch

LEAST = (3, 6)
INTERPRET_VARIABLE = "TRITON_INTERPRET"
CAPABILITY = (8, 0)  # bfloat16 on tensor cores, cp.async


@functools.cache
def interprets() -> bool:
    """Whether the kernels run in Triton's interpreter; settled when it is first asked."""
    return os.environ.get(INTERPRET_VARIABLE, "").lower() in ("1", "true", "on", "yes", "y")


def version() -> str | None:
    """Triton's version, None without Triton; "unknown" if its source does not say.

    Read, not imported, which takes long; nor asked of the distribution, which has several names.
    """
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:  # a folder of that name is no Triton
        return None
    source = Path(spec.origin).read_text(encoding="utf-8")
    said = re.search(r"^__version__\s*=\s*['\"](.+?)['\"]", source, re.MULTILINE)
    return said[1] if said else "unknown"


@functools.cache
def why_not(index: int | None = None) -> str | None:
    """Why the kernels cannot run here, None if they can: on the GPU of this ``index``, without one on any."""
    found = version()
    if found is None:
        return "Triton is not installed (`pip install gatedcells[triton]`)"
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:2])
    if numbers < LEAST:
        return f"needs Triton {'.'.join(map(str, LEAST))} or newer, got {found}"
    if not interprets() and not torch.cuda.is_available():
        return f"no GPU here, and {INTERPRET_VARIABLE}=1 is not set, which runs the kernels on CPU tensors"
    if interprets() or torch.version.hip is not None:
        return None
    asked = range(torch.cuda.device_count()) if index is None else [index]
    highest = max(map(torch.cuda.get_device_capability, asked))
    if highest < CAPABILITY:
        least, got = (".".join(map(str, c)) for c in (CAPABILITY, highest))
        return f"needs compute capability {least} or higher, got {got}"
    return None


def device_type() -> str:
    """The device whose tensors the kernels take: "cpu" in the interpreter, else "cuda"."""
    return "cpu" if interprets() else "cuda"
