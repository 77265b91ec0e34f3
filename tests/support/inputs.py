"""Modules in pairs, ours and torch's, with the same weights, and inputs for them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

import gatedcells

OURS = {name: getattr(gatedcells, name) for name in ("GRU", "LSTM", "GRUCell", "LSTMCell")}
TORCHS = {name: getattr(nn, name) for name in OURS}


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    """Our module and torch's, with the same weights."""
    theirs = TORCHS[name](*args, **kwargs)
    ours = OURS[name](*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def as_double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double()


def exactly_representable(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Random float64 numbers that are the same in every dtype, so that errors are those of computing."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).bfloat16().double()


@dataclass
class Case:
    """A layer's configuration and the shape of its input."""

    name: str
    T: int
    B: int
    I: int
    H: int
    options: dict[str, Any] = field(default_factory=dict)
    batched: bool = True
    with_state: bool = True
    lengths: list[int] | None = None
    seed: int = 0

    def modules(self, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(self.seed)
        return pair(self.name, self.I, self.H, dtype=dtype, **self.options)

    def input(self, dtype: torch.dtype) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.T, self.B, self.I) if self.batched else (self.T, self.I)
        x = exactly_representable(generator, *shape).to(dtype)
        if self.batched and self.options.get("batch_first"):
            x = x.transpose(0, 1).contiguous()
        return x

    def state(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...] | None:
        if not self.with_state:
            return None
        generator = torch.Generator().manual_seed(self.seed + 2)
        rows = self.options.get("num_layers", 1) * (2 if self.options.get("bidirectional") else 1)
        widths = [self.options.get("proj_size") or self.H] + ([self.H] if self.name == "LSTM" else [])
        batch = (self.B,) if self.batched else ()
        return tuple(exactly_representable(generator, rows, *batch, width).to(dtype) for width in widths)


sizes = st.integers(1, 9)


@st.composite
def layer_cases(draw: st.DrawFn, names: tuple[str, ...] = ("GRU", "LSTM")) -> Case:
    """Configurations of GRU and LSTM over the whole of torch's contract."""
    name = draw(st.sampled_from(names))
    T, B, I, H = draw(sizes), draw(sizes), draw(sizes), draw(st.integers(1, 11))
    layers = draw(st.integers(1, 3))
    options: dict[str, Any] = {
        "num_layers": layers,
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.3, 1.0])) if layers > 1 else 0.0,
    }
    if name == "LSTM" and H > 1 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, H - 1))
    kind = draw(st.sampled_from(["batched", "unbatched", "packed"]))
    lengths = draw(st.lists(st.integers(1, T), min_size=B, max_size=B)) if kind == "packed" else None
    return Case(
        name, T, B, I, H, options,
        batched=kind != "unbatched",
        with_state=draw(st.booleans()),
        lengths=lengths,
        seed=draw(st.integers(0, 2**16)),
    )  # fmt: skip
