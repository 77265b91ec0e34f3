"""Scales fitted on the training part and undone on the output."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gatedcells.forecast.data import FloatArray


@dataclass(frozen=True)
class MinMax:
    """``(x − low) / (high − low)``, a column at a time.

    Attributes:
        low, high: the extremes of what it was fitted on, one for each column. A constant column scales to 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        spans = zip(self.low, self.high, strict=True)
        if not all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in spans):
            raise ValueError(
                f"low is {self.low}, high {self.high}; expected numbers, low no larger than high"
            )

    @classmethod
    def fit(cls, columns: FloatArray) -> "MinMax":
        """Fit on ``[n, columns]``."""
        return cls(tuple(columns.min(axis=0).tolist()), tuple(columns.max(axis=0).tolist()))

    def scale(self, columns: FloatArray) -> FloatArray:
        """``[n, columns]`` to the unit interval, as far as it lies within what was fitted."""
        low, span = np.asarray(self.low), np.asarray(self.high) - np.asarray(self.low)
        return (columns - low) / np.where(span > 0, span, 1.0)

    def unscale(self, values: FloatArray, column: int) -> FloatArray:
        """Undo `scale` for values of one column."""
        return values * (self.high[column] - self.low[column]) + self.low[column]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class LogScale:
    """Logarithm of the load, centred and divided by its spread; changes divided by theirs.

    Attributes:
        level: mean of log load; spread: its standard deviation; change: that of its hourly changes.
    """

    level: float
    spread: float
    change: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and 0 < self.spread < math.inf and 0 < self.change < math.inf):
            raise ValueError(f"{self}: expected numbers, spread and change above 0")

    @classmethod
    def fit(cls, load_mw: FloatArray) -> "LogScale":
        """Fit on ``[n]`` positive loads; a constant series gets spreads of 1."""
        logs = np.log(load_mw)
        spread, change = float(logs.std()), float(np.diff(logs).std()) if len(logs) > 1 else 0.0
        return cls(float(logs.mean()), spread or 1.0, change or 1.0)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)
