"""What a report is about, and the numbers that are counted for it alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gatedcells.forecast.calendar import Calendar, local_starts
from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.evaluate import Result
from gatedcells.forecast.page.gates import TypicalDay
from gatedcells.forecast.policy import gaps, outliers
from gatedcells.forecast.runs import Config
from gatedcells.forecast.windows import Region

HOURS = [f"{hour}:00" for hour in range(24)]
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
MOST_REGIONS = 24  # that get charts of their own
GROUPS = {"hour of the day": HOURS, "weekday": WEEKDAYS, "month": MONTHS}


@dataclass(frozen=True)
class Findings:
    """A run of load that was scored.

    Attributes:
        name: of the run folder.
        config: its settings.
        kind, note: of the data, see `gatedcells.forecast.sources.Source`.
        regions: as prepared.
        results: networks first, then baselines; one without forecasts was scored by an earlier run of this
            folder.
        days: what the gates do.
    """

    name: str
    config: Config
    kind: str
    note: str
    regions: Sequence[Region]
    results: Sequence[Result]
    days: Sequence[TypicalDay] = field(default_factory=list[TypicalDay])

    @property
    def shown(self) -> list[int]:
        """Numbers of the regions that get charts."""
        return shown(self.regions, self.networks[0])

    @property
    def networks(self) -> list[Result]:
        """The results of networks."""
        return [result for result in self.results if result.intervals]

    @property
    def forecast(self) -> list[Result]:
        """The results whose forecasts are known."""
        return [result for result in self.results if result.forecasts_mw]


def shown(regions: Sequence[Region], result: Result) -> list[int]:
    """Numbers of the regions that get charts: all, or of many those with the largest error."""
    order = sorted(range(len(regions)), key=lambda n: -result.by_region[regions[n].name].smape)
    return sorted(order[:MOST_REGIONS])


def profile(forecast_mw: FloatArray, region: Region, group: str) -> FloatArray:
    """Mean sMAPE in % of each hour of the day (0..23), weekday (Monday first) or month (January first) of a
    region's test hours; NaN where there is none."""
    calendar = Calendar.of(local_starts(region.series)[region.test])
    of = {"hour of the day": calendar.hour, "weekday": calendar.weekday, "month": calendar.month - 1}[group]
    actual = region.actual_mw
    known = np.isfinite(actual)
    error = 200 * np.abs(forecast_mw - actual)[known] / (np.abs(forecast_mw) + np.abs(actual))[known]
    size = len(GROUPS[group])
    count = np.bincount(of[known], minlength=size)
    total = np.bincount(of[known], weights=error, minlength=size)
    return np.divide(total, count, out=np.full(size, np.nan), where=count > 0)


def mean_profile(profiles: Sequence[FloatArray]) -> FloatArray:
    """The mean over regions, each counting the same; of a group that some lack, over those that have it."""
    stacked = np.stack(profiles)
    there = np.isfinite(stacked)
    count = there.sum(axis=0)
    total = np.where(there, stacked, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(stacked.shape[1], np.nan), where=count > 0)


@dataclass(frozen=True)
class Miss:
    """An hour that was forecast badly: of region number ``region``, the ``at``-th of its test hours."""

    region: int
    at: int
    error_mw: float
    share: float  # of the mean of forecast and actual


def largest_misses(result: Result, regions: Sequence[Region], count: int) -> list[Miss]:
    """The hours with the largest error in % of all regions, the largest first."""
    found: list[Miss] = []
    for number, (region, forecast) in enumerate(zip(regions, result.forecasts_mw, strict=True)):
        actual = region.actual_mw
        share = 2 * np.abs(forecast - actual) / (np.abs(forecast) + np.abs(actual))
        order = np.argsort(np.where(np.isfinite(share), -share, np.inf), kind="stable")[:count]
        found += [
            Miss(number, int(at), float(forecast[at] - actual[at]), float(share[at]))
            for at in order
            if np.isfinite(share[at])
        ]
    return sorted(found, key=lambda miss: -miss.share)[:count]


def changed_hours(region: Region, repaired: bool) -> IntArray:
    """Positions whose load was made from the hours before: holes, and the spikes that were repaired."""
    spikes = outliers(region.series)
    training = spikes[spikes < region.train_end] if repaired else spikes[:0]
    return np.union1d(gaps(region.series), training)
