"""The cases that are measured, and who measures what.

A case is one direction of one layer: ``op`` (GRU, LSTM) in a ``mode``, over T steps of a batch B with I
features into H hidden units. Modes: ``inference`` (no gradient), ``training`` (forward, backward, every
gradient), ``step`` (one step of the cell, as in streaming; T is 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

OPS = ("gru", "lstm")
MODES = ("inference", "training", "step")
DTYPES = ("float32", "bfloat16")

# T, B, I, H: latency, medium and large batches, long hidden states, and sizes that fit no tile.
SHAPES = (
    (1, 1, 64, 256),
    (90, 1, 5, 64),
    (90, 1, 5, 256),
    (90, 4, 64, 128),
    (90, 32, 5, 64),
    (90, 32, 64, 128),
    (96, 96, 60, 64),
    (90, 128, 128, 256),
    (90, 256, 64, 256),
    (90, 1, 256, 1024),
    (90, 64, 512, 512),
    (16, 16, 1024, 1024),
    (48, 3, 40, 96),
    (60, 64, 50, 100),
    (33, 7, 13, 37),
)
# Of the shapes above, those that have bfloat16 rows too.
BFLOAT16_SHAPES = (
    (90, 1, 5, 256),
    (90, 32, 64, 128),
    (90, 256, 64, 256),
    (90, 1, 256, 1024),
    (90, 64, 512, 512),
    (60, 64, 50, 100),
)
STEP_SHAPES = ((1, 1, 5, 64), (1, 1, 64, 128), (1, 1, 64, 256), (1, 1, 256, 512), (1, 8, 64, 128))


class Case(NamedTuple):
    """One thing to time, and the numbers to time it with."""

    op: str
    mode: str
    T: int
    B: int
    I: int
    H: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.op} {self.mode} {self.dtype} T={self.T} B={self.B} I={self.I} H={self.H}"

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def gates(self) -> int:
        return 3 if self.op == "gru" else 4

    def operations(self) -> int:
        """Floating-point operations of the matrix products; a backward pass has twice the forward's."""
        forward = 2 * self.T * self.B * self.gates * self.H * (self.I + self.H)
        return forward * (3 if self.mode == "training" else 1)

    def weight_bytes(self) -> int:
        """Bytes of the weights that the case reads at least: W_x once, W_h once a step."""
        return self.torch_dtype.itemsize * self.gates * self.H * (self.I + self.T * self.H)

    def module(self) -> nn.Module:
        """torch's layer or cell with this case's weights, the same every time."""
        torch.manual_seed(0)
        name = self.op.upper() + ("Cell" if self.mode == "step" else "")
        return getattr(nn, name)(self.I, self.H).to(self.torch_dtype)

    def input(self) -> Tensor:
        """The case's input, ``[T, B, I]``, or ``[B, I]`` for a step."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.T, self.B, self.I, generator=generator).to(self.torch_dtype)
        return x[0] if self.mode == "step" else x

    def state(self) -> tuple[Tensor, ...]:
        """Initial states for a step, ``[B, H]`` each."""
        generator = torch.Generator().manual_seed(2)
        states = (torch.randn(self.B, self.H, generator=generator) for _ in range(self.gates - 2))
        return tuple(state.to(self.torch_dtype) for state in states)


def cases(ops: tuple[str, ...], modes: tuple[str, ...], dtypes: tuple[str, ...]) -> list[Case]:
    """All cases of these ops, modes and dtypes; steps are measured in float32 alone."""
    return [
        Case(op, mode, *shape, dtype=dtype)
        for dtype in dtypes
        for op in ops
        for mode in modes
        for shape in _shapes(mode, dtype)
    ]


def _shapes(mode: str, dtype: str) -> tuple[tuple[int, int, int, int], ...]:
    if dtype == "bfloat16":
        return () if mode == "step" else BFLOAT16_SHAPES
    return STEP_SHAPES if mode == "step" else SHAPES


class Run(NamedTuple):
    """A peer's way to run a case: ``call()`` once, and the numbers that it yields, for the gate."""

    call: Callable[[], object]
    numbers: Callable[[], list[Tensor]]
    backend: str


class Unsupported(Exception):
    """A peer does not do this case; the message says why."""
