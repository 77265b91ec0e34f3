"""What the tests of exchange share: the same bits, layers of golden vectors, configurations."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatedcells
from gatedcells import interop
from tests.support.inputs import exactly_representable

GENERATOR_SEED = 3


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """Raise AssertionError unless two modules have one class, one configuration and the same bits."""
    assert type(found) is type(expected)
    assert repr(found) == repr(expected)
    left, right = found.state_dict(), expected.state_dict()
    assert list(left) == list(right)
    for name, tensor in right.items():
        assert left[name].dtype == tensor.dtype, name
        assert torch.equal(left[name], tensor), name


def randomised(module: nn.Module) -> nn.Module:
    """The module with parameters that every dtype has exactly, none of them zero on purpose."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(exactly_representable(generator, *parameter.shape) / 2)
    return module


def golden_layer(case: Any, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Our layer with a golden case's weights."""
    return interop.torch_nn.from_state_dict(case.weights, reset_after=case.reset_after).to(dtype)


def run_golden(case: Any, layer: nn.Module) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Our layer on a golden case's inputs, in the layer's dtype: outputs and last states."""
    dtype = layer.weight_ih_l0.dtype
    x = case.input.to(dtype)
    state = None if case.initial is None else tuple(part.to(dtype) for part in case.initial)
    hx = None if state is None else state[0] if case.cell == "GRU" else state
    if case.lengths is None:
        output, last = layer(x, hx)
    else:
        output, last = layer(pack_padded_sequence(x, case.lengths), hx)
        output, _ = pad_packed_sequence(output, total_length=len(x))
    return output, (last,) if isinstance(last, torch.Tensor) else tuple(last)


@st.composite
def layers(
    draw: st.DrawFn,
    *,
    depth: int = 3,
    bidirectional: bool = True,
    projections: bool = True,
    reset_before: bool = True,
) -> nn.Module:
    """One of our layers with random weights, float32 or float64, over its whole configuration."""
    name = draw(st.sampled_from(["GRU", "LSTM"]))
    I, H = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    L = draw(st.integers(1, depth))
    options: dict[str, Any] = {
        "num_layers": L,
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": bidirectional and draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.25])) if L > 1 else 0.0,
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
    }
    if name == "LSTM" and projections and H > 1 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, H - 1))
    if name == "GRU" and reset_before:
        options["reset_after"] = draw(st.booleans())
    return randomised(getattr(gatedcells, name)(I, H, **options)).eval()
