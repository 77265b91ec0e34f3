"""The kernels' logistic function and tanh, over all of float32 and across float64."""

import ctypes

import numpy as np
import pytest
import torch

from gatedcells_kernels.cpu.library import DTYPES

FUNCTIONS = {"sigmoid": (0, torch.sigmoid), "tanh": (1, torch.tanh)}
ULPS = 4


def computed(native, which, x, dtype=None):
    """The function of ``x`` as layers of ``dtype`` compute it; those of bfloat16 do so in float32."""
    y = torch.full_like(x, torch.nan)
    native.c.gatedcells_activation(
        native.level, which, DTYPES[dtype or x.dtype], ctypes.c_int64(len(x)),
        ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()),
    )  # fmt: skip
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_is_within_four_ulps_over_the_whole_range(native, level, name):
    which, exactly = FUNCTIONS[name]
    bits = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    x = x[torch.isfinite(x)]
    assert len(x) > 10**6
    exact = exactly(x.double())
    ulp = torch.from_numpy(np.spacing(exact.abs().float().numpy())).double()
    assert float(((computed(native, which, x).double() - exact).abs() / ulp).max()) <= ULPS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_for_bfloat16_seventeen_bits_are_right_over_the_whole_range(native, level, name):
    which, exactly = FUNCTIONS[name]
    bits = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    x = x[torch.isfinite(x)]
    exact = exactly(x.double())
    smallest = float(np.finfo(np.float32).smallest_subnormal)
    error = (computed(native, which, x, torch.bfloat16).double() - exact).abs()
    assert float((error / (2**-17 * exact.abs() + smallest)).max()) <= 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_within_four_ulps(native, level, name):
    mpmath = pytest.importorskip("mpmath")
    which, _ = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(0)
    magnitudes = torch.logspace(-30, 2.8, 400, dtype=torch.float64)
    x = torch.cat([magnitudes, -magnitudes, 3 * torch.randn(400, generator=generator, dtype=torch.float64)])
    with mpmath.workdps(50):
        f = mpmath.tanh if name == "tanh" else lambda v: 1 / (1 + mpmath.exp(-v))
        for given, found in zip(x.tolist(), computed(native, which, x).tolist(), strict=True):
            exact = f(mpmath.mpf(given))
            assert abs(mpmath.mpf(found) - exact) <= ULPS * np.spacing(abs(float(exact))), given


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_limits_are_exact_and_nan_stays_nan(native, level, dtype):
    inf = float("inf")
    given = torch.float32 if dtype == torch.bfloat16 else dtype
    x = torch.tensor([-inf, inf, 0.0, -0.0, float("nan"), -1e30, 1e30], dtype=given)
    assert computed(native, 0, x, dtype).nan_to_num(9).tolist() == [0, 1, 0.5, 0.5, 9, 0, 1]
    tanh = computed(native, 1, x, dtype)
    assert tanh.nan_to_num(9).tolist() == [-1, 1, 0, 0, 9, -1, 1]
    assert torch.signbit(tanh[3])
