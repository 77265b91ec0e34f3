"""The logistic function, tanh and rounding to tf32 of Triton's kernels."""

import numpy as np
import pytest
import torch

from tests.support.triton_device import device as device

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
activations = pytest.importorskip("gatedcells_kernels.triton.activations")
tf32 = pytest.importorskip("gatedcells_kernels.triton.tf32")
ULPS = 4


@triton.jit
def _apply(x, y, count, WHICH: tl.constexpr, APPROXIMATE: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    number = activations.load(x + at, at < count)
    if WHICH == "tanh":
        activations.store(y + at, activations.tanh(number, APPROXIMATE), at < count)
    else:
        activations.store(y + at, activations.sigmoid(number, APPROXIMATE), at < count)


def size_on(device):
    """Numbers that a program takes: the interpreter is slow by the program, a compiler by the number."""
    return 1 << 16 if device == "cpu" else 1 << 10


def computed(which, x, device, approximate=False):
    x = x.to(device)
    y = torch.full_like(x, torch.nan)
    size = size_on(device)
    grid = (triton.cdiv(len(x), size),)
    with np.errstate(all="ignore"):  # of what is computed for all numbers, and used for some
        _apply[grid](x, y, len(x), WHICH=which, APPROXIMATE=approximate, SIZE=size)
    return y.cpu()


def test_a_gate_that_is_nearly_open_or_closed_is_right_in_reduced_precision_too(device):
    """Of a cell state f^T is left after T steps: the digits of 1 - f count."""
    x = torch.linspace(-80, 12, 40001)
    exact, found = torch.sigmoid(x.double()), computed("sigmoid", x, device, approximate=True).double()
    # the rounding of the exponent's argument, two units each of a GPU's exponential and division, and a sum
    bound = (x.double().abs() + 5) * 2.0**-23
    assert ((found - exact).abs() <= bound * exact).all()
    left = 1 - exact  # float32 itself has no more digits of it
    assert ((1 - found - left).abs() <= bound * left + 2.0**-22).all()
    limits = torch.tensor([-torch.inf, torch.inf, 0.0, torch.nan, -1e30, 1e30])
    assert computed("sigmoid", limits, device, approximate=True).nan_to_num(9).tolist() == [
        0,
        1,
        0.5,
        9,
        0,
        1,
    ]


@pytest.mark.parametrize("which", ["sigmoid", "tanh"])
def test_float32_is_within_four_ulps_over_the_whole_range(device, which):
    bits = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    x = x[torch.isfinite(x)]
    exact = getattr(torch, which)(x.double())
    normal = exact.abs() >= torch.finfo(torch.float32).tiny  # a GPU makes zero of what is smaller
    ulp = torch.from_numpy(np.spacing(exact.abs().float().numpy())).double()
    error = (computed(which, x, device).double() - exact).abs()
    assert float((error / ulp)[normal].max()) <= ULPS
    assert float(error[~normal].max()) <= torch.finfo(torch.float32).tiny


def test_limits_are_exact_and_nan_stays_nan(device):
    inf = float("inf")
    x = torch.tensor([-inf, inf, 0.0, float("nan"), -1e30, 1e30])
    assert computed("sigmoid", x, device).nan_to_num(9).tolist() == [0, 1, 0.5, 9, 0, 1]
    assert computed("tanh", x, device).nan_to_num(9).tolist() == [-1, 1, 0, 9, -1, 1]


def test_rounding_to_tf32_is_to_the_nearest_and_keeps_nan_and_infinity(device):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, generator=generator) * 10.0 ** torch.randint(-30, 30, (5000,), generator=generator)
    found = tf32.rounded_to_tf32(x.to(device)).cpu()
    digits = found.view(torch.int32) & 0x1FFF
    assert int(digits.count_nonzero()) == 0
    # half of the last of ten digits
    assert float(((found.double() - x.double()) / x.double()).abs().max()) <= 2**-11
    special = torch.tensor([float("inf"), -float("inf"), 0.0])
    assert torch.equal(tf32.rounded_to_tf32(special.to(device)).cpu(), special)
    every_bit = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    assert torch.isnan(tf32.rounded_to_tf32(every_bit.to(device))).all()


@triton.jit
def _copy(x, y, count, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    activations.store(y + at, activations.load(x + at, at < count), at < count)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_stored_in_half_precision_is_rounded_as_torch_rounds(device, dtype):
    """In Triton's interpreter, too, which by itself cuts bfloat16's digits off."""
    bits = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64)
    ties = torch.arange(0x3F000000, 0x40000000, 0x8000, dtype=torch.int64)  # between two bfloat16, and they
    x = torch.cat([bits, ties, ties + 1, ties - 1]).to(torch.int32).view(torch.float32).to(device)
    x = x[(x.abs() >= torch.finfo(dtype).tiny) | (x == 0) | torch.isnan(x)]  # what is smaller may become zero
    y = torch.full_like(x, torch.nan, dtype=dtype)
    with np.errstate(all="ignore"):
        _copy[(triton.cdiv(len(x), size_on(device)),)](x, y, len(x), SIZE=size_on(device))
    expected = x.to(dtype)
    assert torch.equal(torch.isnan(y), torch.isnan(expected))
    assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))
