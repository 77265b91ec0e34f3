"""The numbers that a direct network reads of a panel, made for a batch at a time.

Step ``p`` of a series knows its values before ``p`` and forecasts those at ``p``, ``p+1``, ... ``p+H−1``. Of
the steps to come it may know the calendar and the covariates that are known in advance, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from gatedcells.forecast.calendar import Calendar, holiday_flags
from gatedcells.forecast.covariates import Covariates
from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.features import level_columns
from gatedcells.forecast.grid import DAY_S, HOUR_S, Grid
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.scaling import SeriesScales
from gatedcells.forecast.windows import steps_into_holes

_WEEK_S, _YEAR_S = 7 * DAY_S, 364 * DAY_S  # 52 weeks: the same weekday
_MULTIPLES = 6  # of the shorter season that a step looks back
_LONGEST_LOOKBACK = 336
_BLOCK = 1 << 18  # steps whose calendar is made together, which on the way takes more memory than it does


def seasons_of(grid: Grid) -> tuple[int, ...]:
    """The seasons that series with such steps usually have: a day and a week, a week and a year, or a
    year."""
    pairs = (DAY_S, _WEEK_S) if grid.step_s < DAY_S else (_WEEK_S, _YEAR_S)
    found = [grid.per(season) for season in pairs]
    return tuple(season for season in found if season is not None and season > 1) or (1,)


def lags_of(seasons: Sequence[int]) -> tuple[int, ...]:
    """How far back, besides the last value, a step sees directly: the last steps, half a season, some
    seasons."""
    short, long = seasons[0], seasons[-1]
    lags = {2, short // 2, *(short * k for k in range(1, _MULTIPLES + 1)), long, 2 * long}
    return tuple(sorted(lag for lag in lags if lag > 1))


def usual_lookback(grid: Grid | None, horizon: int) -> int:
    """Twice the shorter season, or four horizons if that is more, 336 at most."""
    season = 1 if grid is None else seasons_of(grid)[0]
    return min(max(2 * season, 4 * horizon), _LONGEST_LOOKBACK)


def fill_gaps(x: FloatArray, offsets: IntArray, season: int) -> FloatArray:
    """Values of series without holes: what is missing is the value before it, moved as the series moved a
    season ago (``x[t-1] + x[t-m] − x[t-m-1]``), and from the second season of a hole on the value a season
    before; in logarithms what `windows.fill_from_the_past` does."""
    filled = x.copy()
    missing = np.flatnonzero(np.isnan(x))
    begins = offsets[np.searchsorted(offsets, missing, side="right") - 1]
    into = np.minimum(steps_into_holes(missing), missing - begins)
    for at, begin, steps in zip(missing.tolist(), begins.tolist(), into.tolist(), strict=True):
        moved = filled[at - season] - filled[at - season - 1] if at - season - 1 >= begin else 0.0
        filled[at] = filled[at - season] if steps >= season else filled[at - 1] + moved
    return filled


def calendar_inputs(
    grid: Grid, positions: IntArray, country: str, season: bool = True
) -> npt.NDArray[np.float32]:
    """``[n, F]``: within the day (where steps are shorter than one) the hour and, below an hour, the time on
    its circle; the weekday; the season, zero if it is not known; of days the place in the month; public
    holidays."""
    found = np.empty((len(positions), calendar_size(grid)), dtype=np.float32)
    for begin in range(0, len(positions), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        found[block] = _calendar_of(grid, positions[block], country, season)
    return found


def _calendar_of(grid: Grid, positions: IntArray, country: str, season: bool) -> npt.NDArray[np.float32]:
    starts = grid.local_starts(positions)
    calendar = Calendar.of(starts)
    parts: list[Any] = [np.eye(7, dtype=np.float32)[calendar.weekday], calendar.season(season)]
    if grid.step_s < DAY_S:
        parts.insert(0, np.eye(24, dtype=np.float32)[calendar.hour])
    else:
        parts.append(_circle((starts.day - 1) / starts.days_in_month, 1))
    if grid.step_s < HOUR_S:
        seconds = np.asarray((starts - starts.normalize()) / pd.Timedelta(seconds=DAY_S))
        parts.append(_circle(seconds, 2))
    parts.append(holiday_flags(starts, country))
    return np.concatenate(parts, axis=1)


def _circle(share: Any, harmonics: int) -> npt.NDArray[np.float32]:
    angles = 2 * np.pi * np.asarray(share, dtype=np.float64)[:, None] * np.arange(1, harmonics + 1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def calendar_size(grid: Grid) -> int:
    """F of `calendar_inputs`."""
    return _calendar_of(grid, np.zeros(1, dtype=np.int64), "none", False).shape[1]


@dataclass(frozen=True)
class Batch:
    """What the network reads of B stretches of T steps, forecasting at the last T' of them.

    Attributes:
        x: ``[T, B, I]`` for the recurrent layer.
        series: ``[B]`` numbers of the series.
        ahead: ``[T' + H − 1, B, F]`` calendar and known covariates of the forecast steps.
        lags: ``[T', B, H, L]`` where each forecast step's seasons before it lay.
    """

    x: Tensor
    series: Tensor
    ahead: Tensor
    lags: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(*(part.to(device) for part in (self.x, self.series, self.ahead, self.lags)))


class PanelInputs:
    """A panel with what turns its values into inputs.

    Args:
        panel: series; ``panel.ahead`` steps of known covariates beyond the end, the last one standing for
            later.
        x: ``[N]`` its values without holes, in logarithms if the scales are.
        scales: of its series.
        numbers: ``[S]`` the number of each series in the network.
        covariates: as fitted.
        country: whose holidays, or ``"none"``; season: whether the day of the year is an input.
        horizon: H.
        reach: how many steps before a series' first value a stretch may begin.
    """

    def __init__(
        self, panel: Panel, x: FloatArray, scales: SeriesScales, numbers: IntArray, covariates: Covariates,
        *, country: str, season: bool, horizon: int, reach: int,
    ) -> None:  # fmt: skip
        self.panel, self.x, self.scales, self.horizon = panel, x, scales, horizon
        self.seasons = seasons_of(panel.grid)
        self._lags = lags_of(self.seasons)
        self._numbers = numbers
        self._first = int(panel.first.min()) - reach
        # a stretch may run on behind a series that is shorter than it
        end = int((panel.first + np.maximum(panel.sizes, reach)).max()) + horizon
        self._calendar = calendar_inputs(panel.grid, np.arange(self._first, end), country, season)
        known = panel.known.shape[1]
        self._known = covariates.scaled(panel.known, 0)
        self._past = covariates.scaled(panel.past, known)
        self._static = covariates.static_inputs(panel)
        ahead = np.arange(1, horizon + 1)
        back = [season * -(-ahead // season) + more for season in self.seasons for more in (0, season)]
        self._back = np.stack(back, axis=1) - ahead[:, None]  # [H, lags], steps before the last known one

    def batch(self, series: IntArray, steps: IntArray, forecasts: int) -> Batch:
        """Inputs of some stretches.

        Args:
            series: ``[B]``.
            steps: ``[T, B]`` local positions, each one after the one above.
            forecasts: T', the last of them that forecast.
        """
        late = steps[-forecasts:]
        further = np.concatenate([late, late[-1] + np.arange(1, self.horizon)[:, None]])
        known, shared = self._of_step(series, steps), self._static[series]
        past = self._past[self._flat(series, steps - 1)]
        parts = [
            self._levels(series, steps), known, past,
            np.broadcast_to(shared, (*steps.shape, shared.shape[1])),
        ]  # fmt: skip
        return Batch(
            torch.from_numpy(np.concatenate(parts, axis=-1)),
            torch.from_numpy(self._numbers[series]),
            torch.from_numpy(self._of_step(series, further)),
            torch.from_numpy(self._lagged(series, late)),
        )

    def last(self, series: IntArray, steps: IntArray) -> FloatArray:
        """The last value that each step knows."""
        return self.x[self._flat(series, steps - 1)]

    def targets(self, series: IntArray, steps: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """``[*steps.shape, H]``: the values that steps forecast, less the last that they know, in spreads;
        and which of them are known."""
        every = steps[..., None] + np.arange(self.horizon)
        flat = self._flat(series[:, None], every)
        move = (self.x[flat] - self.last(series, steps)[..., None]) / self.scales.spread[series][:, None]
        return move, (every < self.panel.sizes[series][:, None]) & np.isfinite(self.panel.y[flat])

    def _flat(self, series: IntArray, local: IntArray) -> IntArray:
        """Where values lie; outside of a series its first or last one."""
        return self.panel.offsets[series] + np.clip(local, 0, self.panel.sizes[series] - 1)

    def _of_step(self, series: IntArray, steps: IntArray) -> npt.NDArray[np.float32]:
        """``[*steps.shape, F]``: calendar and known covariates."""
        calendar = self._calendar[self.panel.first[series] + steps - self._first]
        longest = self.panel.sizes[series] + self.panel.ahead
        begins = self.panel.offsets[series] + series * self.panel.ahead
        known = self._known[begins + np.clip(steps, 0, longest - 1)]
        return np.concatenate([calendar, known], axis=-1)

    def _levels(self, series: IntArray, steps: IntArray) -> npt.NDArray[np.float32]:
        own = np.broadcast_to(series, steps.shape).ravel()
        local = steps.ravel()[:, None]
        columns = level_columns(
            lambda back: self.x[self._flat(own[:, None], local - back)],
            lambda back: local >= back,
            self._lags,
            level=self.scales.level[own],
            spread=self.scales.spread[own],
            change=self.scales.change[own],
        )
        return columns.reshape(*steps.shape, -1)

    def _lagged(self, series: IntArray, steps: IntArray) -> npt.NDArray[np.float32]:
        """``[T', B, H, L]``: one and two of each season before a forecast step, less the last known value,
        and
        less the value that long before it: where the series stood, and how it moved."""
        last = steps[..., None, None] - 1
        own = series[:, None, None]
        then = last - self._back
        ahead = np.arange(1, self.horizon + 1)[:, None]
        spread = self.scales.spread[own]
        value = self.x[self._flat(own, then)]
        level = np.where(then >= 0, (value - self.x[self._flat(own, last)]) / spread, 0.0)
        before = then - ahead
        move = np.where(before >= 0, (value - self.x[self._flat(own, before)]) / spread, 0.0)
        return np.concatenate([level, move], axis=-1).astype(np.float32)


def input_sizes(grid: Grid, covariates: Covariates, known: int, past: int) -> tuple[int, int, int]:
    """I of the recurrent layer, F of a forecast step, L of its lags."""
    seasons = seasons_of(grid)
    ahead = calendar_size(grid) + known
    return 2 + 2 * len(lags_of(seasons)) + ahead + past + covariates.static_size, ahead, 4 * len(seasons)


def reach_back(grid: Grid, lookback: int, horizon: int) -> int:
    """How many values before its end a forecast may depend on."""
    seasons = seasons_of(grid)
    furthest = max(season * (-(-horizon // season) + 1) for season in seasons)
    return lookback + max(*lags_of(seasons), furthest, 2) + 2
