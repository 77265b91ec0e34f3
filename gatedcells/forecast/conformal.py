"""Intervals between quantiles, moved until they would have covered what they say (conformalized quantile
regression: Romano, Patterson & Candès 2019, arXiv:1905.03222).

For each level and step of the horizon: how far actual values of windows held out of training lay outside of
the interval (inside: less than zero), in spreads of their series; the interval is widened, or narrowed, by
the rank that would have covered the asked share. Windows of one series overlap, so the coverage is what it
is promised to be only as far as the errors to come are like those held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.intervals import conformal_rank


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
    """

    pooled: FloatArray
    own: FloatArray
    windows: int

    @classmethod
    def none(cls, series: int, levels: int, horizon: int) -> "Margins":
        """Intervals as the network gives them."""
        return cls(np.zeros((levels, horizon)), np.zeros((series, levels, horizon)), 0)

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
        return cls(pooled, own, len(actual))

    def move(
        self, quantiles: FloatArray, series: IntArray, pairs: Sequence[tuple[int, int]], median: int
    ) -> FloatArray:
        """``[W, H, Q]`` with the bounds of every level moved; a bound stays on its side of the median and of
        the bounds of smaller levels. ``series`` of -1 is one that was not there in training."""
        moved = quantiles.copy()
        own = np.where((series >= 0)[:, None, None], self.own[np.maximum(series, 0)], self.pooled)
        inner_low = inner_high = moved[..., median]
        # from the inner levels out
        for at in sorted(range(len(pairs)), key=lambda at: -pairs[at][0]):
            low, high = pairs[at]
            inner_low = moved[..., low] = np.minimum(moved[..., low] - own[:, at], inner_low)
            inner_high = moved[..., high] = np.maximum(moved[..., high] + own[:, at], inner_high)
        return moved


def _rank(outside: FloatArray, miss: float) -> FloatArray:
    """``[H]`` of ``[W, H]``: the score of the conformal rank at each step; 0 where nothing is known."""
    found = np.zeros(outside.shape[1])
    for step, scores in enumerate(outside.T):
        known = np.sort(scores[np.isfinite(scores)])
        if len(known):
            found[step] = known[max(conformal_rank(len(known), miss), 1) - 1]
    return found
