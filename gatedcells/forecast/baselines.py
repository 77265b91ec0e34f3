"""What a network has to beat. Each forecasts the next hour from the hours before it.

All read `Region.load_mw`, which is filled from the past only, so a baseline is never told an hour that it
could not have known.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from gatedcells.forecast.calendar import Calendar, holiday_flags, local_starts
from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.windows import Region

_DAY, _WEEK = 24, 168


class Baseline(Protocol):
    """A forecaster of the next hour."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def forecast(self, region: Region) -> FloatArray:
        """``[len(region.test)]`` forecasts of the test targets, MW; fitted on the training part if at all."""
        ...


class Persistence:
    """``y[t-1]``: the next hour is like the last."""

    name = "persistence"

    def forecast(self, region: Region) -> FloatArray:
        """As the class says."""
        return region.load_mw[region.test - 1]


class SeasonalNaive:
    """``y[t-period]``: as yesterday, or last week, at this hour."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.name = {_DAY: "same hour yesterday", _WEEK: "same hour last week"}.get(period, f"{period} h ago")

    def forecast(self, region: Region) -> FloatArray:
        """As the class says; the first hour on record where the series starts later."""
        return region.load_mw[np.maximum(region.test - self.period, 0)]


class DayWeekRatio:
    """``y[t-1] · mean(y[t-24]/y[t-25], y[t-168]/y[t-169])``: the last hour, moved as this hour moved
    yesterday and a week ago. No training at all."""

    name = "day-and-week ratio"

    def forecast(self, region: Region) -> FloatArray:
        """As the class says; the last hour alone where the series is shorter than the lags."""
        return self._at(region.load_mw, region.test)

    def usual_error(self, region: Region) -> float:
        """The mean ``|log F − log A|`` of the training targets: how hard a region is to forecast."""
        targets = region.train[region.usable[region.train]]
        return float(np.abs(np.log(self._at(region.load_mw, targets) / region.load_mw[targets])).mean())

    def _at(self, y: FloatArray, t: IntArray) -> FloatArray:
        moves = [self._move(y, t, lag) for lag in (_DAY, _WEEK)]
        return y[t - 1] * np.mean(moves, axis=0)

    @staticmethod
    def _move(y: FloatArray, t: IntArray, lag: int) -> FloatArray:
        reachable = t > lag
        then = np.where(reachable, t - lag, 1)
        return np.where(reachable, y[then] / y[then - 1], 1.0)


class Ridge:
    """Ridge regression of the change in log load on 168 lags and the calendar.

    ``log y[t] − log y[t-1] = w · (log y[t-k] − log y[t-1], k = 2..168) + hour of week + month × hour +
    holiday × hour``, one set of weights a region, penalty ``λ |w|²``. Fitted in closed form on the
    training part, in float64.
    """

    name = "ridge, 168 lags"

    def __init__(self, lags: int = _WEEK, penalty: float = 1.0, country: str = "US") -> None:
        self.lags, self.penalty, self.country = lags, penalty, country

    def forecast(self, region: Region) -> FloatArray:
        """Fit on the training targets that are usable and have all lags, then forecast the test targets."""
        logs = torch.from_numpy(np.log(region.load_mw))
        codes = self._codes(region)
        train = region.train[region.usable[region.train] & (region.train >= self.lags)]
        if len(train) == 0:
            return Persistence().forecast(region)
        weights, effects = self._fit(logs, codes, torch.from_numpy(train))
        test = torch.from_numpy(np.maximum(region.test, self.lags))
        change = self._lagged(logs, test) @ weights + effects[codes[test]].sum(1)
        return np.exp((logs[test - 1] + change).numpy())

    def _codes(self, region: Region) -> torch.Tensor:
        """``[n, 3]``: which effect of each calendar group applies to an hour."""
        starts = local_starts(region.series)
        calendar = Calendar.of(starts)
        week = calendar.weekday * 24 + calendar.hour
        season = 168 + (calendar.month - 1) * 24 + calendar.hour
        holiday = 168 + 288 + np.where(holiday_flags(starts, self.country)[:, 0] > 0, calendar.hour, 24)
        return torch.from_numpy(np.stack([week, season, holiday], axis=1))

    def _lagged(self, logs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """``[len(targets), lags - 1]``: log loads k = lags..2 hours before, less that of one hour before."""
        windows = logs.unfold(0, self.lags, 1)[targets - self.lags]
        return windows[:, :-1] - windows[:, -1:]

    def _fit(
        self, logs: torch.Tensor, codes: torch.Tensor, train: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve the normal equations; calendar effects enter as counts and sums, never as one-hot columns."""
        lags, groups = self.lags - 1, 168 + 288 + 25
        gram = torch.zeros(lags + groups, lags + groups, dtype=torch.float64)
        right = torch.zeros(lags + groups, dtype=torch.float64)
        for part in train.split(16384):
            x = self._lagged(logs, part)
            y = logs[part] - logs[part - 1]
            gram[:lags, :lags].addmm_(x.T, x)
            right[:lags].addmv_(x.T, y)
            for group in codes[part].T:
                gram[lags:, :lags].index_add_(0, group, x)
                right[lags:].index_add_(0, group, y)
                for other in codes[part].T:
                    counts = torch.bincount(group * groups + other, minlength=groups * groups)
                    gram[lags:, lags:] += counts.view(groups, groups)
        gram[:lags, lags:] = gram[lags:, :lags].T
        gram.diagonal().add_(self.penalty)
        solution = torch.linalg.solve(gram, right)
        return solution[:lags], solution[lags:]


def baselines(country: str = "US") -> Sequence[Baseline]:
    """All of them, in the table's order."""
    return (
        Persistence(),
        SeasonalNaive(_DAY),
        SeasonalNaive(_WEEK),
        DayWeekRatio(),
        Ridge(country=country),
    )
