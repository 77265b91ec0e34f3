"""What the last hours' errors of all regions say of the next hour of one.

Neighbouring regions share weather and industry, so an hour in which one of them drew more than was
forecast is often followed by one in which the others do. On top of a network's forecast, each region adds
a weighted sum of the errors that all regions made in the hours before::

    log F'[t, r] = log F[t, r] + usual[r] · Σ_lag Σ_k W[r, lag, k] · clip(e[t − lag, k] / usual[k])

with ``e = log A − log F``. The weights are least absolute deviations with a ridge (iteratively reweighted
least squares, Holland & Welsch 1977), fitted on the last years of the training part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gatedcells.forecast.data import FloatArray, IntArray

LAGS_HOURS = (1, 2, 3, 24)
FIT_HOURS = 3 * 8766  # of the training part's end, of each region
_FARTHEST = 6.0  # usual errors; beyond it an error counts as so much
_RIDGE = 50.0  # hours' worth of "no weight"
_ROUNDS = 8
_SMALLEST = 0.1  # usual errors; smaller ones weigh no more than these
_HOUR = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class Neighbours:
    """The weights, by region.

    Attributes:
        regions: R names, in order.
        usual: ``[R]`` the median of each one's ``|e|``.
        weights: ``[R, lags, R]``: of the region that is forecast, the lag, the region that erred.
    """

    regions: tuple[str, ...]
    usual: FloatArray
    weights: FloatArray

    @classmethod
    def fit(cls, errors: "Errors", train_ends: Sequence[int]) -> "Neighbours":
        """Fit on errors within the training parts.

        Args:
            errors: of all regions; whatever lies after a region's training part is not looked at.
            train_ends: the row of the errors at which each region's training part has ended.
        """
        table = errors.log_error.copy()
        for column, end in enumerate(train_ends):
            table[end:, column] = np.nan
        known = np.isfinite(table)
        usual = np.array([_median(np.abs(e[there])) for e, there in zip(table.T, known.T, strict=True)])
        clipped = _clipped(table, usual)
        regions = len(usual)
        weights = np.zeros((regions, len(LAGS_HOURS), regions))
        for column in range(regions):
            rows = np.flatnonzero(known[:, column])
            rows = rows[rows >= max(max(LAGS_HOURS), train_ends[column] - FIT_HOURS)]
            if len(rows):
                past = np.stack([clipped[rows - lag] for lag in LAGS_HOURS], axis=1)
                flat = _least_absolute(past.reshape(len(rows), -1), clipped[rows, column])
                weights[column] = flat.reshape(len(LAGS_HOURS), regions)
        return cls(errors.regions, usual, weights)

    def correction(self, past: FloatArray) -> FloatArray:
        """What to add to the logarithms of the forecasts, ``[..., R]``.

        Args:
            past: ``[..., lags, R]`` errors ``log A − log F`` so many hours before, NaN where unknown.
        """
        return self.usual * np.einsum("...lk,rlk->...r", _clipped(past, self.usual), self.weights)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "regions": list(self.regions),
            "lags_hours": list(LAGS_HOURS),
            "usual": self.usual.tolist(),
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_json(cls, content: Any) -> "Neighbours":
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        regions = tuple(str(name) for name in content["regions"])
        usual = np.asarray(content["usual"], dtype=np.float64)
        weights = np.asarray(content["weights"], dtype=np.float64)
        shape = (len(regions), len(LAGS_HOURS), len(regions))
        if content["lags_hours"] != list(LAGS_HOURS) or usual.shape != shape[:1] or weights.shape != shape:
            raise ValueError(f"expected lags {list(LAGS_HOURS)} and weights of shape {shape}")
        if not (np.isfinite(usual).all() and np.isfinite(weights).all() and (usual > 0).all()):
            raise ValueError("expected finite weights and usual errors above 0")
        return cls(regions, usual, weights)


@dataclass(frozen=True)
class Errors:
    """Errors of all regions on one grid of hours.

    Attributes:
        regions: R names.
        first_hour: UTC start of the first row.
        log_error: ``[hours, R]``, ``log A − log F``, NaN where there is no load or no forecast.
    """

    regions: tuple[str, ...]
    first_hour: pd.Timestamp
    log_error: FloatArray

    @classmethod
    def join(cls, errors: dict[str, tuple[pd.Timestamp, FloatArray]]) -> "Errors":
        """Put each region's errors, with the hour of its first, on the common grid."""
        first = min(start for start, _ in errors.values())
        rows = {name: round((start - first) / _HOUR) for name, (start, _) in errors.items()}
        hours = max(rows[name] + len(e) for name, (_, e) in errors.items())
        table = np.full((hours, len(errors)), np.nan)
        for column, (name, (_, e)) in enumerate(errors.items()):
            table[rows[name] : rows[name] + len(e), column] = e
        return cls(tuple(errors), first, table)

    def row(self, hour: pd.Timestamp) -> int:
        """The row of a UTC hour."""
        return round((hour - self.first_hour) / _HOUR)

    def before(self, rows: IntArray) -> FloatArray:
        """``[len(rows), lags, R]`` errors so many hours before each row, NaN before the first."""
        found = [
            np.where((rows >= lag)[:, None], self.log_error[np.maximum(rows - lag, 0)], np.nan)
            for lag in LAGS_HOURS
        ]
        return np.stack(found, axis=1)


def _median(errors: FloatArray) -> float:
    """Above 0 also where no error is known, or none is made."""
    return float(np.median(errors)) or 1.0 if len(errors) else 1.0


def _clipped(errors: FloatArray, usual: FloatArray) -> FloatArray:
    return np.nan_to_num(np.clip(errors / usual, -_FARTHEST, _FARTHEST))


def _least_absolute(past: FloatArray, target: FloatArray) -> FloatArray:
    """``[C]`` weights of ``past [n, C]`` with the least mean absolute deviation from ``target [n]``."""
    weights, trust = np.zeros(past.shape[1]), np.ones(len(past))
    for _ in range(_ROUNDS):
        trusted = past * trust[:, None]
        weights = np.linalg.solve(trusted.T @ past + _RIDGE * np.eye(past.shape[1]), trusted.T @ target)
        trust = 1 / np.maximum(np.abs(target - past @ weights), _SMALLEST)
    return weights
