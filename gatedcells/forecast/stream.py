"""Following the load: each hour's new numbers carry the state on by one step, for all series together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from gatedcells.forecast.calendar import Calendar, holiday_flags, local_starts
from gatedcells.forecast.data import FloatArray, IntArray, LoadSeries
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import WARMUP_HOURS, FastForecaster, table_of
from gatedcells.forecast.features import FeatureTable, level_columns
from gatedcells.forecast.neighbours import LAGS_HOURS, SAME_HOURS
from gatedcells.forecast.windows import fill_from_the_past

_CALENDAR_HOURS = 24 * 28  # made at once; a block of it costs as much as a single hour


class Stream:
    """A trained network of the fast recipe with the state in which the last hour left it.

    ``update`` takes one new hour of every series and forecasts the next: one step of the network, where a
    window would cost as many as it is long. What the regions' errors of the last hours say of one another
    (`gatedcells.forecast.neighbours`) is added if the network was trained with it and all of its regions are
    followed.

    Args:
        forecaster: the network.
        series: what is known so far; of each a series of a region that the network was trained on, all of
            them up to the same hour.

    Attributes:
        regions: in the order of ``series``.
        next_hour: UTC start of the hour that is forecast.
        neighbours: what is added to the network's forecasts; None if nothing is.

    Raises:
        ForecastError: a region is unknown, a series is too short, or they end at different hours.
    """

    def __init__(self, forecaster: FastForecaster, series: Sequence[LoadSeries]) -> None:
        self._forecaster, self._series = forecaster, list(series)
        self.regions = tuple(one.region for one in series)
        known = list(forecaster.scales)
        if not series:
            raise ForecastError("there is nothing to follow: expected at least one series")
        if len(set(self.regions)) < len(self.regions):
            raise ForecastError(f"expected each region once, got {', '.join(self.regions)}")
        for one in series:
            if one.region not in known:
                raise ForecastError(f"{one.source}: region {one.region} is not one of {', '.join(known)}")
            if len(one.load_mw) < forecaster.hours_needed:
                raise ForecastError(
                    f"{one.source}: {len(one.load_mw)} hours; expected at least {forecaster.hours_needed},"
                    " as far as the model looks back"
                )
        ends = [one.first_hour + pd.Timedelta(hours=len(one.load_mw)) for one in series]
        if len(set(ends)) > 1:
            first, last = min(ends), max(ends)
            raise ForecastError(
                f"series end at different hours: {self.regions[ends.index(first)]} at"
                f" {first:%Y-%m-%d %H:%M} UTC, {self.regions[ends.index(last)]} at {last:%Y-%m-%d %H:%M} UTC"
            )
        self.next_hour: pd.Timestamp = ends[0]
        scales = [forecaster.scales[name] for name in self.regions]
        names = ("level", "spread", "change")
        self._scale = {name: np.array([getattr(scale, name) for scale in scales]) for name in names}
        self._region = torch.tensor([known.index(name) for name in self.regions], dtype=torch.int16)
        neighbours = forecaster.neighbours
        followed = neighbours is not None and set(neighbours.regions) == set(self.regions)
        self.neighbours = neighbours if followed else None
        self._made = 0  # hours since the series' ends
        # hours of the hole with which each series ends
        self._unknown = np.array([int(np.isfinite(one.load_mw[::-1]).argmax()) for one in series])
        self._calendar_from, self._calendar = 0, self._calendars(0)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Read the history: the logarithms that later steps look back to, and the state."""
        recipe, scales = self._forecaster.recipe, self._forecaster.scales
        network = self._forecaster.network.eval()
        many = len(self._series)
        logs = np.zeros((many, max(24, *recipe.lags_hours) + 2))
        told = 0 if self.neighbours is None else max(*LAGS_HOURS, *SAME_HOURS)
        errors = np.full((many, max(told, 1)), np.nan)
        changes: list[torch.Tensor] = []
        states: list[Any] = []
        for row, one in enumerate(self._series):
            load = fill_from_the_past(one.load_mw, np.isfinite(one.load_mw), one.source)
            last = np.log(load[-logs.shape[1] :])
            logs[row, -len(last) :] = last
            first = max(len(load) - WARMUP_HOURS - told, 0)
            table = table_of(recipe, scales, one, load, first, len(load) + 1)
            change, state = network(table.inputs(torch.arange(len(load) + 1 - first)[:, None]))
            changes.append(change[-1])
            known = min(max(len(load) - WARMUP_HOURS, 0), told)
            if known:
                expected = change[-1 - known : -1, 0].double().numpy() * scales[one.region].change
                error = np.diff(np.log(load[-known - 1 :])) - expected
                errors[row, -known:] = np.where(np.isfinite(one.load_mw[-known:]), error, np.nan)
            states.append(state)
        self._logs, self._errors = _Recent(logs), _Recent(errors)
        self._change = torch.cat(changes)
        self._state = _joined(states)

    @property
    def forecast_mw(self) -> dict[str, float]:
        """The forecast of `next_hour`, by region."""
        found = np.exp(self._log_forecast() + self._correction())
        return dict(zip(self.regions, found.tolist(), strict=True))

    @torch.no_grad()
    def update(self, load_mw: Mapping[str, float]) -> dict[str, float]:
        """Take the load of `next_hour`, go on by an hour, and forecast the following one.

        Args:
            load_mw: megawatts by region, of every region; NaN where it is not known, and then it is filled
                from the hours before.

        Returns:
            the forecast of the hour after, by region.

        Raises:
            ForecastError: a region is missing or unknown, or a load is not above 0; nothing is changed.
        """
        if set(load_mw) != set(self.regions):
            odd = ", ".join(sorted(set(load_mw) ^ set(self.regions)))
            raise ForecastError(
                f"expected a load of each of {', '.join(self.regions)}; missing or unknown: {odd}"
            )
        loads = np.array([float(load_mw[name]) for name in self.regions])
        if (loads <= 0).any() or np.isinf(loads).any():
            name = self.regions[int(np.argmax((loads <= 0) | np.isinf(loads)))]
            raise ForecastError(
                f"the load of {name} is {load_mw[name]}; expected a number greater than 0, or NaN"
            )
        unknown = np.isnan(loads)
        if unknown.any():
            # as a hole in a file: y[t-1] · y[t-24] / y[t-25], from its second day on y[t-24]
            last, same, before = self._logs.back(np.array([1, 24, 25])).T
            guess = np.exp(np.where(self._unknown >= 24, same, last + same - before))
            loads = np.where(unknown, guess, loads)
        self._unknown = np.where(unknown, self._unknown + 1, 0)
        self._errors.push(np.where(unknown, np.nan, np.log(loads) - self._log_forecast()))
        self._logs.push(np.log(loads))
        self._made += 1
        self.next_hour = self.next_hour + pd.Timedelta(hours=1)
        x = self._inputs()
        network = self._forecaster.network
        self._change, self._state = network.step(x, self._state)
        return self.forecast_mw

    def _log_forecast(self) -> FloatArray:
        """The network's own, ``[R]``."""
        return self._logs.back(np.array([1]))[:, 0] + self._change.double().numpy() * self._scale["change"]

    def _correction(self) -> FloatArray | float:
        """What the errors of the last hours add to it, ``[R]``."""
        if self.neighbours is None:
            return 0.0
        theirs = [self.regions.index(name) for name in self.neighbours.regions]
        past, same = (self._errors.back(np.array(hours))[theirs].T for hours in (LAGS_HOURS, SAME_HOURS))
        found = np.empty(len(self.regions))
        found[theirs] = self.neighbours.correction_after(past, same)
        return found

    def _inputs(self) -> torch.Tensor:
        """Inputs of the step that forecasts `next_hour`, ``[R, I]``."""
        hour = self._made - self._calendar_from
        if hour >= _CALENDAR_HOURS:
            self._calendar_from, hour = self._made, 0
            self._calendar = self._calendars(self._made)
        levels = level_columns(self._logs.back, self._all, self._forecaster.recipe.lags_hours, **self._scale)
        return torch.cat([torch.from_numpy(levels), self._calendar[hour]], dim=-1)

    def _all(self, hours_back: IntArray) -> npt.NDArray[np.bool_]:
        """A stream has as many hours behind it as a step looks back."""
        return np.ones((1, len(hours_back)), dtype=bool)

    def _calendars(self, first: int) -> torch.Tensor:
        """``[hours, R, ...]``: the inputs that do not depend on the load, of the hours from ``first`` after
        the series' ends."""
        blocks: list[torch.Tensor] = []
        for row, one in enumerate(self._series):
            starts = local_starts(one, first + _CALENDAR_HOURS)[len(one.load_mw) + first :]
            calendar = Calendar.of(starts)
            recipe = self._forecaster.recipe
            flags = holiday_flags(starts, recipe.holidays)
            table = FeatureTable(
                torch.from_numpy(np.concatenate([calendar.season(recipe.season), flags], axis=1)),
                torch.from_numpy(np.stack([calendar.hour, calendar.weekday], axis=1).astype(np.uint8)),
                self._region[row].expand(len(starts)),
                len(self._forecaster.scales),
                (0,),
            )
            blocks.append(table.inputs(torch.arange(len(starts))))
        return torch.stack(blocks, dim=1)


class _Recent:
    """The numbers of the last hours, of each series: a ring that holds each twice, so that any hour back is
    one column.

    Args:
        last: ``[R, hours]``, the newest last.
    """

    def __init__(self, last: FloatArray) -> None:
        self.hours = last.shape[1]
        self._twice = np.concatenate([last, last], axis=1)
        self._at = self.hours  # one past the newest, from hours to 2 · hours

    def push(self, numbers: FloatArray) -> None:
        """Take the next hour's, ``[R]``."""
        if self._at == 2 * self.hours:
            self._at = self.hours
        self._twice[:, self._at] = numbers
        self._twice[:, self._at - self.hours] = numbers
        self._at += 1

    def back(self, hours: IntArray) -> FloatArray:
        """``[R, k]``: those of ``[k]`` hours back, 1 the newest."""
        return self._twice[:, self._at - hours]


def _joined(states: Sequence[Any]) -> Any:
    """States of a row each as one of all rows; each a tensor ``[1, 1, H]``, or a tuple or list of such."""
    if isinstance(states[0], torch.Tensor):
        return torch.cat(list(states), dim=1)
    parts = [_joined(part) for part in zip(*states, strict=True)]
    return parts if isinstance(states[0], list) else tuple(parts)
