"""Rolling-origin evaluation: train on what was known at a date, forecast what followed, move the date on.

All series share the dates, so no network has seen an hour of any region that another one is tested on.
Tashman 2000, "Out-of-sample tests of forecasting accuracy".
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gatedcells.forecast.data import LoadSeries
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.metrics import UndefinedScore, naive_mae
from gatedcells.forecast.policy import DEFAULT, Policy, check
from gatedcells.forecast.windows import LOOKBACK, Region, prepare_at

_LEAST_TO_TRAIN_ON = 24 * 28


@dataclass(frozen=True)
class Plan:
    """Which dates.

    Attributes:
        folds: how many origins.
        span_hours: tested after each of them; the origins are as far apart.
        window_hours: trained on before an origin; None for everything (an expanding window).
        end: where the last span ends, UTC; None for the last hour of any series.
        refit: train anew at every origin, or at the first one alone.
    """

    folds: int = 4
    span_hours: int = 24 * 90
    window_hours: int | None = None
    end: pd.Timestamp | None = None
    refit: bool = True

    def origins(self, series: Sequence[LoadSeries]) -> list[pd.Timestamp]:
        """The first hours of the spans, UTC, in order."""
        end = self.end or max(ends_of(series))
        return [end - pd.Timedelta(hours=self.span_hours * k) for k in range(self.folds, 0, -1)]


@dataclass(frozen=True)
class Fold:
    """One origin.

    Attributes:
        origin: the first hour that is forecast, UTC.
        regions: those with hours to train on and to test on, split there, and all scores defined; where the
            first origin's network forecasts all, those that it knows.
        left_out: the others, and why.
    """

    origin: pd.Timestamp
    regions: list[Region]
    left_out: dict[str, str]


def ends_of(series: Sequence[LoadSeries]) -> list[pd.Timestamp]:
    """The hour after the last one of each series, UTC."""
    return [one.first_hour + pd.Timedelta(hours=len(one.load_mw)) for one in series]


def folds(
    series: Sequence[LoadSeries], plan: Plan, policy: Policy = DEFAULT, reach_hours: int = LOOKBACK
) -> list[Fold]:
    """Cut and split the series at each origin; ``policy`` and ``reach_hours`` as for
    `gatedcells.forecast.windows.prepare`.

    Raises:
        ForecastError: no region has hours on both sides of an origin, or the policy refuses a series.
    """
    for one in series:
        check(one, policy)
    found: list[Fold] = []
    known: set[str] = set()  # to the network of the first origin
    for origin in plan.origins(series):
        regions: list[Region] = []
        left_out: dict[str, str] = {}
        for one in series:
            cut = _cut(one, origin, plan)
            first_test = _hours(cut, origin)
            recorded = int(np.isfinite(cut.load_mw[: max(first_test, 0)]).sum())
            after = cut.rows[cut.rows >= first_test]
            if recorded < _LEAST_TO_TRAIN_ON:
                left_out[one.region] = f"{recorded} hours before it, {_LEAST_TO_TRAIN_ON} are needed"
            elif not len(after):
                left_out[one.region] = "no hour after it"
            elif not np.isfinite(cut.load_mw[after]).any():
                left_out[one.region] = "no load above zero in any hour after it"
            elif found and not plan.refit and one.region not in known:
                left_out[one.region] = "the network of the first date does not know it"
            else:
                region = prepare_at(cut, first_test, LOOKBACK, policy, reach_hours)
                if not len(region.test) or not region.usable[region.train].any():
                    left_out[one.region] = f"--on-gap {policy.on_gap} leaves no hour on one side of it"
                elif not _has_naive_error(region):
                    left_out[one.region] = "its load before it is that of a day before in every hour: no MASE"
                else:
                    regions.append(region)
        if not regions:
            reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
            raise ForecastError(f"nothing to test at {origin:%Y-%m-%d %H:%M} UTC: {reasons}")
        known = known or {region.name for region in regions}
        found.append(Fold(origin, regions, left_out))
    return found


def _has_naive_error(region: Region) -> bool:
    """Whether MASE, which divides by the error of "as yesterday" in the training part, is defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedScore)  # what it is left out for is said
        return naive_mae(region.series.load_mw[: region.train_end]) > 0


def _hours(series: LoadSeries, moment: pd.Timestamp) -> int:
    """The position of the hour of a series' grid in which a moment lies."""
    # not in the nanoseconds of pandas before 3, whose differences end at 292 years
    apart = moment.as_unit("us") - series.first_hour.as_unit("us")
    return math.floor(apart.total_seconds() / 3600)


def _cut(series: LoadSeries, origin: pd.Timestamp, plan: Plan) -> LoadSeries:
    """What of a series a fold may know: from the window's beginning to the span's end."""
    size = len(series.load_mw)
    at = _hours(series, origin)
    end = min(max(at + plan.span_hours, 0), size)
    first = 0 if plan.window_hours is None else min(max(at - plan.window_hours, 0), end)
    inside = (series.rows >= first) & (series.rows < end)
    return replace(
        series,
        first_hour=series.first_hour + pd.Timedelta(hours=first),
        load_mw=series.load_mw[first:end],
        rows=series.rows[inside] - first,
        not_positive={at - first: load for at, load in series.not_positive.items() if first <= at < end},
    )
