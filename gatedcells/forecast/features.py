"""The numbers that the fast recipe's network reads, step by step.

Step ``p`` forecasts hour ``p``. It may know the load of the hours before ``p`` and the calendar of hour
``p`` itself. The numbers of all regions are kept in one small table; one-hot columns are made for a batch
at a time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gatedcells.forecast.calendar import Calendar, holiday_flags, local_starts
from gatedcells.forecast.data import FloatArray, IntArray, LoadSeries
from gatedcells.forecast.scaling import LogScale

_CODES = (24, 7)  # hour of the day, day of the week


def input_size(lags_hours: Sequence[int], regions: int) -> int:
    """How many inputs a step has."""
    return 2 + 2 * len(lags_hours) + 2 + 3 + sum(_CODES) + regions


def input_names(lags_hours: Sequence[int], regions: Sequence[str]) -> tuple[str, ...]:
    """What each input is, in order."""
    return (
        "change of the last hour", "level",
        *(name for lag in lags_hours for name in (f"change {lag} h before", f"level {lag + 1} h before")),
        "season (sine)", "season (cosine)", "holiday", "holiday the day before", "holiday the day after",
        *(f"{hour}:00" for hour in range(24)), *("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), *regions,
    )  # fmt: skip


@dataclass(frozen=True)
class FeatureTable:
    """Inputs of the steps of some regions, one region after the other.

    Attributes:
        numbers: ``[N, C]`` float32: the last change and level; for each lag the change that this hour made
            then, and the level before it less the level now; the season; holiday flags.
        codes: ``[N, 2]`` uint8: hour of the day and day of the week.
        region: ``[N]`` int16: the region's number.
        regions: how many regions the network knows.
        offsets: the row at which each region's steps start.
    """

    numbers: Tensor
    codes: Tensor
    region: Tensor
    regions: int
    offsets: tuple[int, ...]

    @classmethod
    def join(cls, tables: Iterable["FeatureTable"], rows: int) -> "FeatureTable":
        """Put regions behind one another, each as it is made: all of them twice would be most of the memory.

        Args:
            tables: at least one; rows: of all together.
        """
        joined: FeatureTable | None = None
        end, offsets = 0, list[int]()
        for table in tables:
            if joined is None:
                numbers, codes, region = (part.new_empty(rows, *part.shape[1:]) for part in table._parts)
                joined = cls(numbers, codes, region, table.regions, ())
            offsets.append(end)
            for whole, part in zip(joined._parts, table._parts, strict=True):
                whole[end : end + len(part)] = part
            end += len(table.numbers)
        if joined is None or end != rows:
            raise ValueError(f"{end} rows of tables, expected {rows}")
        return replace(joined, offsets=tuple(offsets))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.numbers, self.codes, self.region

    def to(self, device: torch.device) -> "FeatureTable":
        """The same on a device."""
        numbers, codes, region = (part.to(device) for part in self._parts)
        return replace(self, numbers=numbers, codes=codes, region=region)

    def inputs(self, rows: Tensor) -> Tensor:
        """``rows`` of any shape to inputs ``[*rows.shape, input_size]``."""
        codes = self.codes[rows].long()
        parts = [self.numbers[rows]]
        parts += [one_hot(codes[..., i], size).float() for i, size in enumerate(_CODES)]
        parts.append(one_hot(self.region[rows].long(), self.regions).float())
        return torch.cat(parts, dim=-1)


def feature_table(
    series: LoadSeries,
    load_mw: FloatArray,
    scale: LogScale,
    steps: IntArray,
    *,
    lags_hours: Sequence[int],
    country: str,
    season: bool,
    region: int,
    regions: int,
) -> FeatureTable:
    """Inputs of some steps of one series.

    Args:
        series: gives the calendar, also of hours beyond its end.
        load_mw: ``[n]`` without holes, every hour before the last step.
        scale: of the region.
        steps: positions to forecast, in order, each at most ``n``.
        lags_hours: how far back a step sees directly.
        country: whose holidays; season: whether the day of the year is an input.
        region, regions: this region's number, and how many there are.
    """
    beyond = max(int(steps[-1]) + 1 - len(series.load_mw), 0)
    starts = local_starts(series, beyond)[steps]
    calendar = Calendar.of(starts)
    numbers = np.concatenate(
        [
            _levels(np.log(load_mw), scale, steps, lags_hours),
            calendar.season(season),
            holiday_flags(starts, country),
        ],
        axis=1,
    )
    return FeatureTable(
        torch.from_numpy(numbers),
        torch.from_numpy(np.stack([calendar.hour, calendar.weekday], axis=1).astype(np.uint8)),
        torch.full((len(steps),), region, dtype=torch.int16),
        regions,
        (0,),
    )


def _levels(
    logs: FloatArray, scale: LogScale, steps: IntArray, lags_hours: Sequence[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """``[len(steps), 2 + 2·lags]``: what is read from the load of one series."""
    return level_columns(
        lambda hours_back: logs[np.maximum(steps[:, None] - hours_back, 0)],
        lambda hours_back: steps[:, None] >= hours_back,
        lags_hours,
        level=scale.level,
        spread=scale.spread,
        change=scale.change,
    )


def level_columns(
    log_at: Callable[[IntArray], FloatArray],
    reaches: Callable[[IntArray], npt.NDArray[np.bool_]],
    lags_hours: Sequence[int],
    *,
    level: FloatArray | float,
    spread: FloatArray | float,
    change: FloatArray | float,
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """``[n, 2 + 2·lags]``: what is read from the load, of n steps of one series or one step of n series; 0
    where a series starts later.

    Args:
        log_at: from ``[k]`` hours back to the ``[n, k]`` log loads so long before the steps; reaches: whether
            there are any.
        lags_hours: how far back a step sees directly.
        level, spread, change: of the scale, for all or for each.
    """
    level, spread, change = (np.reshape(number, (-1, 1)) for number in (level, spread, change))
    first, lags = np.array([1, 2]), np.asarray(lags_hours, dtype=np.int64)
    (last, before), there = log_at(first).T[:, :, None], reaches(first)
    columns = [
        np.where(there[:, 1:], (last - before) / change, 0.0),
        np.where(there[:, :1], (last - level) / spread, 0.0),
    ]
    there, then, before = reaches(lags + 1), log_at(lags), log_at(lags + 1)
    of_lags = np.stack(
        [np.where(there, (then - before) / change, 0.0), np.where(there, (before - last) / spread, 0.0)],
        axis=2,
    )
    columns.append(of_lags.reshape(len(of_lags), -1))
    return np.concatenate(columns, axis=1).astype(np.float32)
