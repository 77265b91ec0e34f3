"""Whether a class of layers can do what `transforms` and its neighbours ask of it."""

from __future__ import annotations

import torch

from tests.support.inputs import OURS, TORCHS

# The columns of docs/transforms.md.
COLUMNS = {
    f"{library}.{name}": classes[name]
    for library, classes in (("gatedcells", OURS), ("torch.nn", TORCHS))
    for name in ("GRU", "LSTM")
}


# Derivatives against central differences of step 1e-5, and lower precisions; all else to 1e-12.
TOLERANCE = {
    "jvp": 1e-8,
    "dual_numbers": 1e-8,
    "jvp_in_float32": 2e-3,
    "per_sample_gradients_in_float32": 1e-5,
    "compile_under_autocast": 2**-7,
    "autocast_to_bfloat16": 2**-7,
    "autocast_to_float16": 2**-10,
}


def holds(transform, cls) -> None:
    """Raise whatever the library raises, or AssertionError if it computes something else."""
    found, expected = transform(cls)
    assert len(found) == len(expected) > 0
    tolerance = TOLERANCE.get(transform.__name__, 1e-12)
    for actual, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, exact, rtol=tolerance, atol=tolerance)


def outcome(transform, cls) -> str:
    """``"yes"``, ``"no"`` where it computes something else, or ``"no"`` with the error that it raises."""
    try:
        holds(transform, cls)
    except AssertionError:
        return "no"
    except Exception as error:
        return f"no (`{type(error).__name__}`)"
    return "yes"
