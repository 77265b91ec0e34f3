"""The local calendar of each hour: what a forecast knows of hours to come."""

from dataclasses import dataclass

import holidays
import numpy as np
import numpy.typing as npt
import pandas as pd

from gatedcells.forecast.data import LoadSeries
from gatedcells.forecast.errors import ForecastError

_HOUR = pd.Timedelta(hours=1)
_DAY = pd.Timedelta(days=1)
_YEAR_DAYS = 365.25
SEASON_HOURS = 365 * 24  # to learn what a season does takes all of a year


@dataclass(frozen=True)
class Calendar:
    """Calendar of ``n`` hours of one region, each ``[n]``.

    Attributes:
        hour: 0..23; weekday: 0 (Monday)..6; month: 1..12; day_of_year: 1..366.
    """

    hour: npt.NDArray[np.int64]
    weekday: npt.NDArray[np.int64]
    month: npt.NDArray[np.int64]
    day_of_year: npt.NDArray[np.int64]

    @classmethod
    def of(cls, stamps: pd.DatetimeIndex) -> "Calendar":
        """Read off local stamps."""
        return cls(
            np.asarray(stamps.hour, dtype=np.int64),
            np.asarray(stamps.day_of_week, dtype=np.int64),
            np.asarray(stamps.month, dtype=np.int64),
            np.asarray(stamps.day_of_year, dtype=np.int64),
        )

    def season(self, known: bool = True) -> npt.NDArray[np.float32]:
        """``[n, 2]``: sine and cosine of the day of the year; zeros where it is not ``known``, as less than a
        year was trained on: what a network makes of days that it never saw is no season."""
        if not known:
            return np.zeros((len(self.day_of_year), 2), dtype=np.float32)
        angle = 2 * np.pi * (self.day_of_year - 1) / _YEAR_DAYS
        return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def local_starts(series: LoadSeries, extra_hours: int = 0) -> pd.DatetimeIndex:
    """The local start of every hour, and of ``extra_hours`` beyond the end: the day an hour belongs to is
    that in which it starts, whichever way the file stamps it."""
    stamps = series.local_stamps(extra_hours)
    return stamps - _HOUR if series.clock.stamp == "ending" else stamps


def check_country(country: str) -> str:
    """Return ``country`` if its holidays are known, or ``"none"``.

    Raises:
        ForecastError: unknown country.
    """
    if country != "none" and country not in holidays.list_supported_countries():
        raise ForecastError(
            f"holidays of {country!r} are not known; expected a country such as 'US', or 'none'"
        )
    return country


def holiday_flags(starts: pd.DatetimeIndex, country: str) -> npt.NDArray[np.float32]:
    """``[n, 3]``: whether the hour's day, the day before and the day after are public holidays."""
    if country == "none" or len(starts) == 0:
        return np.zeros((len(starts), 3), dtype=np.float32)
    years = range(starts[0].year - 1, starts[-1].year + 2)
    days = pd.DatetimeIndex(sorted(holidays.country_holidays(country, years=years)))
    day = starts.normalize()
    near = [day, day - _DAY, day + _DAY]
    return np.stack([np.asarray(d.isin(days)) for d in near], axis=1).astype(np.float32)
