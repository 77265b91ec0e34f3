"""What past errors say of the next hour of a region: those of all regions in the hours before, and its own
at this hour of the day in the weeks before.

Neighbouring regions share weather and industry, so an hour in which one of them drew more than was
forecast is often followed by one in which the others do. And habits drift away from what the network
learnt years ago, each hour of the day in its own way. On top of a network's forecast, each region adds::

    log F'[t, r] = log F[t, r] + usual[r] · (Σ_lag Σ_k W[r, lag, k] · c[t − lag, k]
                                            + lasting[r] · mean_d c[t − 24 d, r])

with ``c = clip((log A − log F) / usual)``, and d the last `DAYS` days. The weights are least absolute
deviations with a ridge (iteratively reweighted least squares, Holland & Welsch 1977), fitted on the last
years of the training part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gatedcells.forecast.data import FloatArray, IntArray

LAGS_HOURS = (1, 2, 3, 24)
DAYS = 56
SAME_HOURS = tuple(24 * day for day in range(1, DAYS + 1))  # before an hour, the same hour of the day
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
        lasting: ``[R]`` the weight of a region's own mean error at the same hour of the day.
    """

    regions: tuple[str, ...]
    usual: FloatArray
    weights: FloatArray
    lasting: FloatArray

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
        weights, lasting = np.zeros((regions, len(LAGS_HOURS), regions)), np.zeros(regions)
        for column in range(regions):
            rows = np.flatnonzero(known[:, column])
            rows = rows[rows >= max(max(LAGS_HOURS), train_ends[column] - FIT_HOURS)]
            if len(rows):
                past = np.stack([clipped[rows - lag] for lag in LAGS_HOURS], axis=1)
                same = _mean_of_days(clipped[:, [column]], rows)
                columns = np.concatenate([past.reshape(len(rows), -1), same], axis=1)
                flat = _least_absolute(columns, clipped[rows, column])
                weights[column], lasting[column] = flat[:-1].reshape(len(LAGS_HOURS), regions), flat[-1]
        return cls(errors.regions, usual, weights, lasting)

    def correction(self, errors: "Errors", rows: IntArray) -> FloatArray:
        """What to add to the logarithms of the forecasts of some hours, ``[len(rows), R]``.

        Args:
            errors: of all regions; rows: of the hours that are forecast.
        """
        same = _mean_of_days(_clipped(errors.log_error, self.usual), rows)
        return self._sum(errors.before(rows), same)

    def correction_after(self, past: FloatArray, same_hours: FloatArray) -> FloatArray:
        """What to add to the logarithms of the forecasts of one hour, ``[R]``.

        Args:
            past: ``[lags, R]`` errors ``log A − log F`` so many hours before, NaN where unknown.
            same_hours: ``[days, R]`` those of `SAME_HOURS` before.
        """
        return self._sum(past, _clipped(same_hours, self.usual).mean(axis=0))

    def _sum(self, past: FloatArray, same: FloatArray) -> FloatArray:
        of_hours = np.einsum("...lk,rlk->...r", _clipped(past, self.usual), self.weights)
        return self.usual * (of_hours + self.lasting * same)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "regions": list(self.regions),
            "lags_hours": list(LAGS_HOURS),
            "usual": self.usual.tolist(),
            "weights": self.weights.tolist(),
            "days": DAYS,
            "lasting": self.lasting.tolist(),
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
        # runs of before the errors of days were added have none
        lasting = np.asarray(content.get("lasting", [0.0] * len(regions)), dtype=np.float64)
        shape = (len(regions), len(LAGS_HOURS), len(regions))
        if content.get("days", DAYS) != DAYS or lasting.shape != usual.shape:
            raise ValueError(f"expected errors of {DAYS} days, and a weight of them for each region")
        if content["lags_hours"] != list(LAGS_HOURS) or usual.shape != shape[:1] or weights.shape != shape:
            raise ValueError(f"expected lags {list(LAGS_HOURS)} and weights of shape {shape}")
        if not (all(np.isfinite(one).all() for one in (usual, weights, lasting)) and (usual > 0).all()):
            raise ValueError("expected finite weights and usual errors above 0")
        return cls(regions, usual, weights, lasting)


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


def _mean_of_days(clipped: FloatArray, rows: IntArray) -> FloatArray:
    """``[len(rows), C]``: the mean of the errors ``[hours, C]`` at the same hour of the days before; a day
    before the first counts as one without error."""
    total = np.zeros((len(rows), clipped.shape[1]))
    for back in SAME_HOURS:
        total += np.where((rows >= back)[:, None], clipped[np.maximum(rows - back, 0)], 0.0)
    return total / DAYS


def _least_absolute(past: FloatArray, target: FloatArray) -> FloatArray:
    """``[C]`` weights of ``past [n, C]`` with the least mean absolute deviation from ``target [n]``."""
    weights, trust = np.zeros(past.shape[1]), np.ones(len(past))
    for _ in range(_ROUNDS):
        trusted = past * trust[:, None]
        weights = np.linalg.solve(trusted.T @ past + _RIDGE * np.eye(past.shape[1]), trusted.T @ target)
        trust = 1 / np.maximum(np.abs(target - past @ weights), _SMALLEST)
    return weights
