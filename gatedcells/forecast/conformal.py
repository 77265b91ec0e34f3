"""Intervals between quantiles, moved until they would have covered what they say (conformalized quantile
regression: Romano, Patterson & Candès 2019, arXiv:1905.03222).

For each level and step of the horizon: how far actual values of windows held out of training lay outside of
the interval (inside: less than zero), in spreads of their series; the interval is widened, or narrowed, by
the rank that would have covered the asked share. Windows of one series overlap, so the coverage is what it
is promised to be only as far as the errors to come are like those held out.

They seldom stay so for years. As windows come true, `Margins.follow` makes the intervals of their series
wider or narrower until as many values lie outside as should (proportional control: Gibbs & Candès 2021,
arXiv:2106.00170; Angelopoulos, Candès & Tibshirani 2023, arXiv:2307.16895). Over n horizons of a series the
share outside is the asked one to within ``|log width| / (n · ADAPTS)``, whatever the errors are, as long as
the width stays within `WIDEST`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.intervals import conformal_rank

ADAPTS = 0.05  # of the logarithm of a width, for a horizon of which every value lies outside
WIDEST = 100.0  # times; a meter that fails shall not widen intervals without end


def level_pairs(levels: Sequence[float], quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """For each level in % which quantiles bound it.

    Raises:
        ForecastError: they are not among those forecast.
    """
    found: list[tuple[int, int]] = []
    for level in levels:
        wanted = ((100 - level) / 200, (100 + level) / 200)
        near = [[at for at, q in enumerate(quantiles) if abs(q - want) < 1e-9] for want in wanted]
        if not near[0] or not near[1]:
            raise ForecastError(
                f"a level of {level:g} lies between the quantiles {wanted[0]:g} and {wanted[1]:g};"
                f" expected both among quantiles={tuple(quantiles)}"
            )
        found.append((near[0][0], near[1][0]))
    return found


@dataclass(frozen=True)
class Margins:
    """How far intervals are moved.

    Attributes:
        pooled: ``[levels, H]`` from the windows of all series, in spreads.
        own: ``[S, levels, H]`` of each series; where it had too few windows of its own, the pooled ones.
        windows: how many were held out.
        widths: ``[S, levels]`` times that intervals are as wide as these make them, by what came since.
    """

    pooled: FloatArray
    own: FloatArray
    windows: int
    widths: FloatArray

    @classmethod
    def none(cls, series: int, levels: int, horizon: int) -> "Margins":
        """Intervals as the network gives them."""
        return cls(
            np.zeros((levels, horizon)), np.zeros((series, levels, horizon)), 0, np.ones((series, levels))
        )

    @classmethod
    def fit(
        cls, quantiles: FloatArray, actual: FloatArray, series: IntArray, many: int,
        levels: Sequence[float], pairs: Sequence[tuple[int, int]],
    ) -> "Margins":  # fmt: skip
        """Fit on held-out windows.

        Args:
            quantiles: ``[W, H, Q]``; actual: ``[W, H]``, NaN where not known; both in spreads.
            series: ``[W]`` numbers of the series; many: how many series there are.
            levels: in %; pairs: as `level_pairs` gives them.
        """
        # a series needs twenty misses of its own to be calibrated by them alone
        enough = 20 / min((1 - level / 100 for level in levels), default=1.0)
        pooled = np.zeros((len(pairs), actual.shape[1]))
        own = np.zeros((many, len(pairs), actual.shape[1]))
        order = np.argsort(series, kind="stable")
        bounds = np.searchsorted(series[order], np.arange(many + 1))
        for at, (level, (low, high)) in enumerate(zip(levels, pairs, strict=True)):
            outside = np.maximum(quantiles[..., low] - actual, actual - quantiles[..., high])
            pooled[at] = _rank(outside, 1 - level / 100)
            own[:, at] = pooled[at]
            for one in np.flatnonzero(np.diff(bounds) >= enough):
                own[one, at] = _rank(outside[order[bounds[one] : bounds[one + 1]]], 1 - level / 100)
        return cls(pooled, own, len(actual), np.ones((many, len(pairs))))

    def move(
        self, quantiles: FloatArray, series: IntArray, pairs: Sequence[tuple[int, int]], median: int
    ) -> FloatArray:
        """``[W, H, Q]`` with the bounds of every level moved; a bound stays on its side of the median and of
        the bounds of smaller levels. ``series`` of -1 is one that was not there in training."""
        return self._moved(quantiles, series, pairs, median, self._widths(series))

    def follow(
        self, quantiles: FloatArray, actual: FloatArray, series: IntArray, origins: IntArray,
        came: IntArray, levels: Sequence[float], pairs: Sequence[tuple[int, int]], median: int,
    ) -> tuple[FloatArray, "Margins"]:  # fmt: skip
        """Move the bounds of windows, each by what the windows of its series that had ended by then came to.

        Args:
            quantiles: ``[W, H, Q]``; actual: ``[W, H]``, NaN where not known; both in spreads.
            series: ``[W]``, not -1; origins: ``[W]`` position of each window's first value.
            came: ``[W]`` values since the window before: windows that overlap say the same more than once.
            levels, pairs: as of `fit`; median: the number of its quantile.

        Returns:
            ``[W, H, Q]``, and margins with the widths after all of these windows.
        """
        horizon = actual.shape[1]
        widths, used = self.widths.copy(), np.ones((len(series), len(pairs)))
        asked = np.array([1 - level / 100 for level in levels])
        order = np.lexsort((origins, series))
        bounds = np.flatnonzero(np.diff(series[order], prepend=-1, append=-1))
        for own in (order[start:end] for start, end in pairwise(bounds)):
            at, ended = series[own[0]], 0
            for number in range(len(own) + 1):
                now = origins[own[number]] if number < len(own) else math.inf
                while ended < len(own) and origins[own[ended]] + horizon <= now:
                    one = own[ended : ended + 1]
                    given = self._moved(quantiles[one], series[one], pairs, median, used[one])
                    rate = ADAPTS * min(came[own[ended]] / horizon, 1.0)
                    missed = _outside(given[0], actual[own[ended]], pairs, asked)
                    widths[at] = np.clip(widths[at] * np.exp(rate * (missed - asked)), 1 / WIDEST, WIDEST)
                    ended += 1
                if number < len(own):
                    used[own[number]] = widths[at]
        return self._moved(quantiles, series, pairs, median, used), replace(self, widths=widths)

    def _widths(self, series: IntArray) -> FloatArray:
        return np.where((series >= 0)[:, None], self.widths[np.maximum(series, 0)], 1.0)

    def _moved(
        self, quantiles: FloatArray, series: IntArray, pairs: Sequence[tuple[int, int]], median: int,
        widths: FloatArray,
    ) -> FloatArray:  # fmt: skip
        moved = quantiles.copy()
        own = np.where((series >= 0)[:, None, None], self.own[np.maximum(series, 0)], self.pooled)
        middle = moved[..., median]
        inner_low = inner_high = middle
        # from the inner levels out
        for at in sorted(range(len(pairs)), key=lambda at: -pairs[at][0]):
            (low, high), width = pairs[at], widths[:, at, None]
            below = np.maximum(middle - (moved[..., low] - own[:, at]), 0.0) * width
            above = np.maximum(moved[..., high] + own[:, at] - middle, 0.0) * width
            inner_low = moved[..., low] = np.minimum(middle - below, inner_low)
            inner_high = moved[..., high] = np.maximum(middle + above, inner_high)
        return moved


def _outside(
    quantiles: FloatArray, actual: FloatArray, pairs: Sequence[tuple[int, int]], asked: FloatArray
) -> FloatArray:
    """``[levels]`` shares of a window's known values outside the intervals; without any, what is asked."""
    known = np.isfinite(actual)
    if not known.any():
        return asked
    low, high = (quantiles[known][:, [pair[side] for pair in pairs]] for side in (0, 1))
    return ((actual[known, None] < low) | (actual[known, None] > high)).mean(axis=0)


def _rank(outside: FloatArray, miss: float) -> FloatArray:
    """``[H]`` of ``[W, H]``: the score of the conformal rank at each step; where it lies beyond the last
    score that one, if it widens the interval: how far an error may go is not known."""
    found = np.zeros(outside.shape[1])
    for step, scores in enumerate(outside.T):
        known = np.sort(scores[np.isfinite(scores)])
        if len(known):
            found[step] = known[max(conformal_rank(len(known), miss), 1) - 1]
        if (len(known) + 1) * (1 - miss) > len(known):
            found[step] = max(found[step], 0.0)
    return found
