"""Small frames of made-up series for tests of the forecaster for one's own data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gatedcells.forecast import Forecaster

SMALL = {
    "horizon": 3, "lookback": 8, "hidden_size": 4, "steps": 3, "batch_size": 4, "threads": 1,
    "calibration": 0.3,
}  # fmt: skip


def small(**changed) -> Forecaster:
    """A forecaster that is trained in no time."""
    return Forecaster(**{**SMALL, **changed})


def made_up(sizes=(90, 70), freq="h", start="2024-01-01", seed=0, level=0.0) -> pd.DataFrame:
    """A long frame of series a, b, ... that cross zero, unless ``level`` lifts them."""
    parts = []
    for number, size in enumerate(sizes):
        generator = np.random.default_rng(seed + number)
        t = np.arange(size)
        y = level + (number + 1) * np.sin(2 * np.pi * t / 24) + generator.normal(0, 0.2, size)
        stamps = pd.date_range(start, periods=size, freq=freq)
        parts.append(pd.DataFrame({"unique_id": "abcdef"[number], "ds": stamps, "y": y}))
    return pd.concat(parts, ignore_index=True)
