"""Scales fitted on the training part and undone on the output."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gatedcells.forecast.data import FloatArray, IntArray

_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations


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
        return cls(float(logs.mean()), _deviation(logs) or 1.0, _deviation(np.diff(logs)) or 1.0)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class SeriesScales:
    """Robust standardisation of many series, each by its own numbers.

    Attributes:
        log: whether values are scaled in logarithms.
        level: ``[S]`` medians; spread: ``[S]`` interquartile ranges over 1.349; change: the same of the
            changes from one step to the next. A spread of hardly anything, as of a series that mostly stands
            still, is its standard deviation instead, and that of a constant 1.
    """

    log: bool
    level: FloatArray
    spread: FloatArray
    change: FloatArray

    @classmethod
    def fit(cls, x: FloatArray, offsets: IntArray, log: bool) -> "SeriesScales":
        """Fit on series without holes that lie behind one another in ``x``, already in logarithms if
        ``log``."""
        numbers = [
            (np.median(own), _spread(own), _spread(np.diff(own)))
            for own in (x[start:end] for start, end in pairwise(offsets.tolist()))
        ]
        level, spread, change = np.array(numbers, dtype=np.float64).reshape(-1, 3).T
        return cls(log, level, spread, change)

    @classmethod
    def joined(cls, scales: Sequence["SeriesScales"]) -> "SeriesScales":
        """Behind one another."""
        every = [
            np.concatenate([getattr(one, name) for one in scales]) for name in ("level", "spread", "change")
        ]
        return cls(scales[0].log, *every)

    def take(self, series: IntArray) -> "SeriesScales":
        """Those of some series."""
        return SeriesScales(self.log, self.level[series], self.spread[series], self.change[series])


def _deviation(values: FloatArray) -> float:
    """The standard deviation; of equal values 0, where their mean is rounded as well."""
    return float(values.std()) if len(values) and np.ptp(values) > 0 else 0.0


def _spread(values: FloatArray) -> float:
    if len(values) < 2:
        return 1.0
    low, high = np.percentile(values, [25, 75])
    deviation = _deviation(values)
    robust = float(high - low) / _IQR
    return (robust if robust > 0.1 * deviation else deviation) or 1.0
