"""From series to training and test targets, and the repaired load that models read.

A target is an hour with a row in the file that has at least ``lookback`` rows before it. The last tenth
of a region's targets, in order of time, is its test part. Windows are never built: a model reads its
inputs from the one array of loads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.data import FloatArray, IntArray, LoadSeries
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.flaws import spike_mask
from gatedcells.forecast.policy import DEFAULT, Policy, check, gaps

LOOKBACK = 90
TEST_SHARE = 0.1
_DAY = 24
_NOWHERE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Region:
    """One series, ready for models.

    Attributes:
        series: as read.
        load_mw: ``[n]`` without holes: what is missing, and in the training part spikes, is filled from
            the hours before it (never from later ones, which a forecast does not have).
        train, test: positions of the targets of each part, in order of time.
        usable: ``[n]`` whether a position was recorded and is no spike of the training part; only usable
            targets are trained on.
        dropped: positions of the targets that the policy leaves out of each part.
    """

    series: LoadSeries
    load_mw: FloatArray
    train: IntArray
    test: IntArray
    usable: npt.NDArray[np.bool_]
    dropped: tuple[IntArray, IntArray] = field(default_factory=lambda: (_NOWHERE, _NOWHERE))

    @property
    def name(self) -> str:
        """The region's name."""
        return self.series.region

    @property
    def train_end(self) -> int:
        """The first position that no training may see: that of the first test target."""
        return int(np.concatenate([self.test[:1], self.dropped[1][:1]]).min())

    @property
    def actual_mw(self) -> FloatArray:
        """``[len(test)]`` the loads to forecast, as recorded; NaN where there is none."""
        return self.series.load_mw[self.test]


def prepare(
    series: Sequence[LoadSeries],
    lookback: int = LOOKBACK,
    policy: Policy = DEFAULT,
    reach_hours: int = LOOKBACK,
) -> list[Region]:
    """Split each series into training and test targets and fill its holes.

    Args:
        series: as read.
        lookback: rows that a target must have before it.
        policy: what is made of holes and spikes.
        reach_hours: how far back the inputs of a forecast reach, for the policy that drops.

    Raises:
        ForecastError: a series is too short to have a test target, the policy refuses it, or leaves
            nothing of a part.
    """
    return [_prepare_one(one, lookback, policy, reach_hours) for one in series]


def count_windows(regions: Sequence[Region]) -> tuple[int, int]:
    """Training and test targets of all regions."""
    return sum(len(r.train) for r in regions), sum(len(r.test) for r in regions)


def _prepare_one(series: LoadSeries, lookback: int, policy: Policy, reach_hours: int) -> Region:
    check(series, policy)
    targets = series.rows[lookback:]
    tests = int(TEST_SHARE * len(targets))
    if tests == 0:
        needed = lookback + int(np.ceil(1 / TEST_SHARE))
        raise ForecastError(
            f"{series.source}: {len(series.rows)} rows; expected at least {needed}: a lookback of"
            f" {lookback} hours and ten targets, of which the last is the test"
        )
    region = prepare_at(series, int(targets[-tests]), lookback, policy, reach_hours)
    for part, left in (("train", region.usable[region.train].any()), ("test", len(region.test))):
        if policy.on_gap == "drop" and not left:
            raise ForecastError(
                f"{series.source}: --on-gap drop leaves no hour to {part} on: each looks back, over"
                f" {max(lookback, reach_hours)} hours, on one of the file's {len(gaps(series))} holes"
            )
    return region


def prepare_at(
    series: LoadSeries,
    first_test: int,
    lookback: int = LOOKBACK,
    policy: Policy = DEFAULT,
    reach_hours: int = LOOKBACK,
) -> Region:
    """Train on the targets before a position, test on those from there on; the rest as for `prepare`, but
    what the policy refuses (`gatedcells.forecast.policy.check`) the caller asks of the whole series."""
    targets = series.rows[lookback:]
    train, test = targets[targets < first_test], targets[targets >= first_test]
    usable = np.isfinite(series.load_mw)
    if policy.on_outlier == "repair":
        # looked for among the training part's own hours: the test part is forecast as recorded
        past_rows = series.rows[: lookback + len(train)]
        usable[past_rows[spike_mask(series.load_mw[past_rows])]] = False
    filled = fill_from_the_past(series.load_mw, usable, series.source)
    if policy.on_gap != "drop":
        return Region(series, filled, train, test, usable)
    left_out = _looking_back_on(gaps(series), len(usable), max(lookback, reach_hours))
    usable &= ~left_out
    dropped = (train[left_out[train]], test[left_out[test]])
    return Region(series, filled, train[~left_out[train]], test[~left_out[test]], usable, dropped)


def _looking_back_on(holes: IntArray, size: int, hours: int) -> npt.NDArray[np.bool_]:
    """``[size]``: which positions have a hole among themselves and the ``hours`` before them."""
    steps = np.zeros(size + 1, dtype=np.int64)
    np.add.at(steps, holes, 1)
    np.add.at(steps, np.minimum(holes + hours + 1, size), -1)
    return np.cumsum(steps[:size]) > 0


def fill_from_the_past(load_mw: FloatArray, usable: npt.NDArray[np.bool_], source: str) -> FloatArray:
    """``[n]`` with every unusable hour replaced by ``y[t-1] · y[t-24] / y[t-25]``: the last value, moved
    as the same hour moved the day before (before there is a day before: the last value alone). From the
    second day of a hole on it is ``y[t-24]``: the move acts once, where day by day it would grow or vanish
    without end.

    Raises:
        ForecastError: nothing is usable.
    """
    if not usable.any():
        raise ForecastError(f"{source}: no positive load in the whole file")
    filled = load_mw.copy()
    first = int(np.argmax(usable))
    filled[:first] = load_mw[first]
    missing = np.flatnonzero(~usable[first:]) + first
    for t, into in zip(missing.tolist(), steps_into_holes(missing).tolist(), strict=True):
        moved = filled[t - _DAY] / filled[t - _DAY - 1] if t > _DAY else 1.0
        filled[t] = filled[t - _DAY] if into >= _DAY else filled[t - 1] * moved
    return filled


def steps_into_holes(missing: IntArray) -> IntArray:
    """How many positions of its hole lie before each of ``missing``, which rise."""
    count = np.arange(len(missing))
    begins = np.diff(missing, prepend=-2) > 1
    return count - np.maximum.accumulate(np.where(begins, count, 0))
