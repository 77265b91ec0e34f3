"""Prediction intervals around a forecast, calibrated on the errors that were made before it.

Split conformal prediction with scores normalised by the usual error of the hour of the day, the level
adapted to the coverage so far: Vovk et al. 2005; Gibbs & Candès 2021, arXiv:2106.00170.
Nothing of an hour, nor of any later one, enters its interval.
"""

import bisect
import math
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.metrics import UndefinedScore, coverage, defined, pinball_loss

LEVELS = (0.80, 0.95)
_MEMORY = 24 * 60  # hours whose scores are ranked
_ADAPTS = 0.005  # of the level, an hour
_FORGETS = 1 / 60  # of the usual error of an hour of the day, a day
_FURTHEST = math.log(1000)  # a meter that fails shall not widen intervals without end
_ROUNDING = 1e-12  # of a logarithm: less is no error
_HOURS = 24
_MOST_LEVELS, _MOST_DAYS, _FURTHEST_MISS = 100, 10**9, 1e6  # of what is read


@dataclass(frozen=True)
class Intervals:
    """Intervals of n hours.

    Attributes:
        levels: nominal coverages, as fractions.
        lower, upper: ``[len(levels), n]``, megawatts.
    """

    levels: tuple[float, ...]
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class IntervalScores:
    """How good intervals were.

    Attributes:
        coverage: share of the hours that lay inside, by level.
        width: mean width over the mean load, by level.
        pinball: mean pinball loss of all bounds, MW: ``(A − F) τ`` above a bound F of quantile τ, and
            ``(F − A) (1 − τ)`` below it.
    """

    coverage: tuple[float, ...]
    width: tuple[float, ...]
    pinball: float

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, None for NaN."""
        return {
            name: [defined(one) for one in value] if isinstance(value, tuple) else defined(value)
            for name, value in asdict(self).items()
        }


def conformal_rank(scores: int, miss: float) -> int:
    """Which of n scores, counted from 1 in order of size, a new one exceeds with probability ``miss`` at
    most: the ``⌈(n+1)(1−miss)⌉``-th, beyond the last one the last (Vovk et al. 2005)."""
    return min(math.ceil((scores + 1) * (1 - miss)), scores)


class Calibrator:
    """Follows the errors of one series' forecasts hour by hour.

    Args:
        levels: nominal coverages.
    """

    def __init__(self, levels: Sequence[float] = LEVELS) -> None:
        if not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels must lie between 0 and 1, got {list(levels)}")
        self.levels = tuple(levels)
        self._misses = np.array([1 - level for level in levels])  # as adapted
        self._usual = np.zeros(_HOURS)  # mean error by hour of the day
        self._days = np.zeros(_HOURS, dtype=np.int64)  # seen of each
        self._scores: deque[float] = deque()  # the latest, in order of time
        self._ranked: list[float] = []  # the same, in order of size

    def factors(self, hour: int) -> FloatArray:
        """How far, in log load, an interval of each level reaches either way at an hour of the day; NaN
        before a day has been seen."""
        n = len(self._ranked)
        if n == 0:
            return np.full(len(self.levels), np.nan)
        ranks = [conformal_rank(n, miss) for miss in self._misses]
        reach = np.array([self._ranked[rank - 1] if rank > 0 else 0.0 for rank in ranks])
        with np.errstate(over="ignore"):  # beyond the furthest, however far
            return np.minimum(reach * self._usual_at(hour), _FURTHEST)

    def see(self, forecast_mw: float, actual_mw: float, hour: int) -> None:
        """Learn what an hour was; NaN teaches nothing. The error of a forecast of zero or less counts as the
        furthest."""
        if not np.isfinite(actual_mw) or actual_mw <= 0:
            return
        # a forecast that no load can have has no logarithm
        ratio = actual_mw / forecast_mw if forecast_mw > 0 else 0.0
        error = min(abs(math.log(ratio)), _FURTHEST) if ratio > 0 else _FURTHEST
        if self._ranked:
            missed = error > self.factors(hour)
            self._misses = self._misses + _ADAPTS * ((1 - np.array(self.levels)) - missed)
        if self._days.sum() >= _HOURS:
            if len(self._scores) == _MEMORY:
                del self._ranked[bisect.bisect_left(self._ranked, self._scores.popleft())]
            score = error / self._usual_at(hour)
            self._scores.append(score)
            bisect.insort(self._ranked, score)
        # a mean at first, then one that forgets
        self._days[hour] += 1
        self._usual[hour] += max(1 / self._days[hour], _FORGETS) * (error - self._usual[hour])

    def _usual_at(self, hour: int) -> float:
        """The usual error at an hour of the day, no less than a tenth of that of all hours."""
        everywhere = float(self._usual[self._days > 0].mean())
        least = max(0.1 * everywhere, _ROUNDING)
        return max(float(self._usual[hour]), least) if self._days[hour] else max(everywhere, least)

    def to_json(self) -> dict[str, Any]:
        """What it has learnt, as plain numbers."""
        return {
            "levels": list(self.levels),
            "misses": self._misses.tolist(),
            "usual": self._usual.tolist(),
            "days": self._days.tolist(),
            "scores": list(self._scores),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Calibrator":
        """Go on from `to_json`.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: it is something else.
        """
        if not 0 < len(content["levels"]) <= _MOST_LEVELS or len(content["scores"]) > _MEMORY:
            raise ValueError("not what a calibrator has learnt")
        made = cls([float(level) for level in content["levels"]])
        made._misses = np.array([float(miss) for miss in content["misses"]])
        made._usual = np.array([float(value) for value in content["usual"]])
        made._days = np.array([int(value) for value in content["days"]])
        made._scores = deque(float(score) for score in content["scores"])
        made._ranked = sorted(made._scores)
        sizes = (len(made._misses), len(made._usual), len(made._days))
        learnt = np.concatenate([made._usual, np.array(made._scores)])
        if (
            sizes != (len(made.levels), _HOURS, _HOURS)
            or not (np.abs(made._misses) <= _FURTHEST_MISS).all()
            or not ((learnt >= 0) & (learnt < np.inf)).all()
            or not ((made._days >= 0) & (made._days <= _MOST_DAYS)).all()
            or (made._ranked and not made._days.any())
        ):
            raise ValueError("not what a calibrator has learnt")
        return made


def intervals(
    calibrator: Calibrator, forecast_mw: FloatArray, actual_mw: FloatArray, hours: npt.NDArray[np.int64]
) -> Intervals:
    """Intervals of ``[n]`` forecasts, each calibrated on the hours before it; without a day before them there
    is none (NaN).

    Args:
        calibrator: goes on to learn from these hours.
        forecast_mw, actual_mw: ``[n]`` in order of time; an actual load that is not known is NaN.
        hours: ``[n]`` hours of the day, 0..23.
    """
    reach = np.empty((len(calibrator.levels), len(forecast_mw)))
    for t, (forecast, actual, hour) in enumerate(zip(forecast_mw, actual_mw, hours, strict=True)):
        reach[:, t] = calibrator.factors(int(hour))
        calibrator.see(float(forecast), float(actual), int(hour))
    return Intervals(calibrator.levels, *around(forecast_mw, reach))


def around(forecast_mw: Any, reach: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The lower and the upper bounds of forecasts, MW, by `Calibrator.factors`; those of a forecast below
    zero have its sign."""
    ends = forecast_mw * np.exp(-reach), forecast_mw * np.exp(reach)
    return np.minimum(*ends), np.maximum(*ends)


def score_intervals(found: Intervals, actual_mw: FloatArray) -> IntervalScores:
    """Score intervals of hours with a known load and a known interval; without any, scores are NaN, with a
    warning."""
    known = np.isfinite(actual_mw) & np.isfinite(found.lower).all(axis=0)
    if not known.any():
        warnings.warn("intervals of no hours have no scores: NaN", UndefinedScore, stacklevel=2)
        undefined = (math.nan,) * len(found.levels)
        return IntervalScores(undefined, undefined, math.nan)
    actual, lower, upper = actual_mw[known], found.lower[:, known], found.upper[:, known]
    bounds = [
        (quantile, bound)
        for level, low, high in zip(found.levels, lower, upper, strict=True)
        for quantile, bound in (((1 - level) / 2, low), ((1 + level) / 2, high))
    ]
    return IntervalScores(
        coverage=tuple(coverage(low, high, actual) for low, high in zip(lower, upper, strict=True)),
        width=tuple(float(width) for width in (upper - lower).mean(axis=1) / actual.mean()),
        pinball=float(np.mean([pinball_loss(bound, actual, quantile) for quantile, bound in bounds])),
    )
