"""torch has two generations of flags for float32 products; either may have been set."""

import subprocess
import sys

import torch

SET = {
    "nothing": ("", "ieee"),
    "old": ("torch.backends.cuda.matmul.allow_tf32 = True", "tf32"),
    "by name": ("torch.set_float32_matmul_precision('high')", "tf32"),
    "new": ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "tf32"),
    "new, then refused": (
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
        "torch.backends.cuda.matmul.fp32_precision = 'ieee'",
        "ieee",
    ),
}


def test_the_flag_is_read_whichever_way_it_was_set():
    cases = {
        name: one
        for name, one in SET.items()
        if "fp32" not in one[0] or hasattr(torch.backends, "fp32_precision")
    }
    # the flags belong to the process: each case in a fork of one that has set nothing
    program = f"""
import os, torch
from gatedcells_kernels.flags import float32_on_cuda
for name, (code, expected) in {cases!r}.items():
    if (child := os.fork()) == 0:
        exec(code)
        os._exit(0 if float32_on_cuda() == expected else 1)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
