"""Tolerances derived from the error of an established implementation.

A result in low precision is compared with what an established implementation (the rival) achieves in the
same precision on the same inputs. Both errors are measured against the exact result in float64::

    max|actual − exact|  ≤  2 · (max|rival − exact| + one rounding)

One rounding is ``eps(dtype) · max|exact|``.
"""

import torch
from torch import Tensor

FLOAT64_TOLERANCE = 1e-12


def budget(exact: Tensor, rival: Tensor) -> float:
    """The largest absolute error that a result in ``rival``'s dtype may have.

    Args:
        exact: the result in float64 (complex128 for complex results).
        rival: an established implementation's result, of the same shape.
    """
    scale = _largest(exact)
    rounding = torch.finfo(rival.dtype).eps * scale
    return 2 * (_largest(rival.to(exact.dtype) - exact) + rounding)


def assert_within_budget(actual: Tensor, *, exact: Tensor, rival: Tensor, name: str = "result") -> None:
    """Check that ``actual`` deviates from ``exact`` by no more than `budget` allows.

    Args:
        actual: the result to check, in ``rival``'s dtype and shape.
        exact: the result in float64 (complex128 for complex results).
        rival: an established implementation's result.
        name: the result's name in the message.

    Raises:
        AssertionError: the error is larger than the budget, shape, dtype or device differ, or a value is not
            finite.
    """
    _assert_comparable(actual, exact, name)
    if actual.dtype != rival.dtype:
        raise AssertionError(f"{name}: dtype {actual.dtype}, expected the rival's {rival.dtype}")
    error, allowed = _largest(actual.to(exact.dtype) - exact), budget(exact, rival)
    if not error <= allowed:
        raise AssertionError(f"{name}: error {error:.3e}, allowed {allowed:.3e}")


def assert_close_in_float64(actual: Tensor, exact: Tensor, name: str = "result") -> None:
    """Check that two float64 (or complex128) results agree to 1e-12 of the largest exact value, or of 1 if
    that is larger.

    Raises:
        AssertionError: they do not, shape, dtype or device differ, or a value is not finite.
    """
    _assert_comparable(actual, exact, name)
    if actual.dtype not in (torch.float64, torch.complex128):
        raise AssertionError(f"{name}: dtype {actual.dtype}, expected double precision")
    error, allowed = _largest(actual - exact), FLOAT64_TOLERANCE * max(_largest(exact), 1.0)
    if not error <= allowed:
        raise AssertionError(f"{name}: error {error:.3e}, allowed {allowed:.3e}")


def _assert_comparable(actual: Tensor, exact: Tensor, name: str) -> None:
    if actual.shape != exact.shape:
        raise AssertionError(f"{name}: shape {list(actual.shape)}, expected {list(exact.shape)}")
    if actual.device != exact.device:
        raise AssertionError(f"{name}: on {actual.device}, expected on {exact.device}")
    if not torch.isfinite(actual).all():
        raise AssertionError(f"{name}: has NaN or infinite values")


def _largest(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0
