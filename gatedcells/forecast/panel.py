"""Many regular series side by side: what a frame's rows are on a grid.

Values lie in flat arrays, one series behind the other, so that twenty thousand series cost no more than one
of the same length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.data import FloatArray, IntArray, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.frames import Names, Rows
from gatedcells.forecast.grid import DAY_S, Grid
from gatedcells.forecast.panel_report import FramePolicy, FrameReport

OUTLIER = 10  # times a series' mean distance from the median of five
_BLOCK = 1 << 20  # values looked at together


@dataclass(frozen=True)
class Panel:
    """Series on one grid. S series, N values of all together.

    Attributes:
        grid: where their stamps lie.
        ids: ``[S]`` names.
        first: ``[S]`` grid position of each one's first value.
        offsets: ``[S + 1]`` where each one's values begin in the flat arrays.
        y: ``[N]`` values, NaN where none is known; the first and the last of a series always is.
        known: for each series ``[n + ahead, K]`` covariates that are known in advance, NaN where blank,
            ``ahead`` steps further than its values.
        ahead: how many.
        past: ``[N, P]`` covariates known up to now, NaN where blank.
        static: by name ``[S]``.
        filled: by whether in logarithms, ``[holes]`` what stands where ``y`` is NaN, if that was told before
            the panel was cut; NaN where it is yet to be filled.
    """

    grid: Grid
    ids: tuple[Any, ...]
    first: IntArray
    offsets: IntArray
    y: FloatArray
    known: FloatArray
    ahead: int
    past: FloatArray
    static: dict[str, Any]
    filled: dict[bool, FloatArray] = field(default_factory=dict[bool, FloatArray])

    @property
    def sizes(self) -> IntArray:
        """``[S]`` lengths."""
        return np.diff(self.offsets)

    def series_at(self, flat: int) -> int:
        """The series that a place in the flat arrays belongs to."""
        return int(np.searchsorted(self.offsets, flat, side="right")) - 1

    def only(self, series: Sequence[int] | IntArray) -> "Panel":
        """Some series, whole."""
        sizes = self.sizes[np.asarray(series)]
        return self.select(series, np.zeros_like(sizes), sizes, 0)

    def up_to(self, ends: IntArray) -> "Panel":
        """All series, each up to a local position ``[S]``."""
        return self.select(np.arange(len(ends)), np.zeros_like(ends), ends, 0)

    def select(self, series: Sequence[int] | IntArray, first: IntArray, end: IntArray, ahead: int) -> "Panel":
        """Part of some series.

        Args:
            series: which; first, end: the local positions where each part begins and ends.
            ahead: steps of known covariates beyond the end to keep, as far as there are.
        """
        chosen = np.asarray(series, dtype=np.int64)
        size = end - first
        rows = _ranges(self.offsets[chosen] + first, size)
        beyond = self.offsets[chosen] + chosen * self.ahead
        last = beyond + self.sizes[chosen] + self.ahead - 1
        known = _ranges(beyond + first, size + ahead)
        known = np.minimum(known, np.repeat(last, size + ahead))
        holes = np.isnan(self.y)
        number = (np.cumsum(holes) - 1)[rows[holes[rows]]]
        return Panel(
            grid=self.grid,
            ids=tuple(self.ids[at] for at in chosen),
            first=self.first[chosen] + first,
            offsets=offsets_of(size),
            y=self.y[rows],
            known=self.known[known],
            ahead=ahead,
            past=self.past[rows],
            static={name: values[chosen] for name, values in self.static.items()},
            filled={log: values[number] for log, values in self.filled.items()},
        )


def offsets_of(sizes: Any) -> IntArray:
    """``[S + 1]`` where series of these lengths begin in flat arrays."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """``starts[0], starts[0]+1, ... starts[1], ...``, so many of each."""
    before = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.repeat(starts, sizes) + np.arange(int(sizes.sum())) - before


def build_panel(
    rows: Rows, names: Names, grid: Grid, positions: IntArray, policy: FramePolicy
) -> tuple[Panel, FrameReport]:
    """Lay a frame's rows out on a grid.

    Args:
        rows: with values; the numbers beside are the known covariates, then the past ones.
        names: of the columns.
        grid: of their stamps; positions: theirs on it.
        policy: what to do about flaws; outliers are counted here and repaired in training.

    Raises:
        ForecastError: what a policy refuses, a series without a value, or one whose rows are far apart.
    """
    assert rows.y is not None
    by_series = np.argsort(rows.codes, kind="stable")
    same = np.diff(rows.codes[by_series]) == 0
    unsorted = int((same & (np.diff(positions[by_series]) < 0)).sum())
    order = np.lexsort((positions, rows.codes))
    order, repeated, conflicting = _without_repeats(rows, grid, positions, order, policy)
    codes, at = rows.codes[order], positions[order]
    y, numbers = rows.y[order], rows.numbers[order]
    has = np.isfinite(y)
    bounds = np.searchsorted(codes[has], np.arange(len(rows.ids) + 1))
    empty = np.flatnonzero(np.diff(bounds) == 0)
    if len(empty) and policy.on_gap != "drop":
        raise ForecastError(f"{shown(rows.ids[empty[0]])} has no value at all (on_gap='drop' leaves it out)")
    kept = np.flatnonzero(np.diff(bounds) > 0)
    if len(kept) == 0:
        raise ForecastError("no series has a value")
    first = at[has][bounds[:-1][kept]]
    sizes = at[has][bounds[1:][kept] - 1] - first + 1
    number = np.full(len(rows.ids), -1)
    number[kept] = np.arange(len(kept))
    own = number[codes]
    inside = (own >= 0) & (at >= first[own]) & (at < first[own] + sizes[own])
    edge_blanks = int((~inside & (own >= 0)).sum())
    own, at, y, numbers, order = own[inside], at[inside], y[inside], numbers[inside], order[inside]
    _check_density(rows, grid, kept, np.bincount(own, minlength=len(kept)), first, sizes)
    offsets = offsets_of(sizes)
    flat = offsets[own] + at - first[own]
    values = np.full(int(offsets[-1]), np.nan)
    values[flat] = y
    beside = np.full((len(values), numbers.shape[1]), np.nan)
    beside[flat] = numbers
    known = len(names.known)
    panel = Panel(
        grid, tuple(rows.ids[at] for at in kept), first, offsets, values,
        carried(beside[:, :known], offsets), 0, carried(beside[:, known:], offsets),
        _static_of(rows, names, kept),
    )  # fmt: skip
    absent, blank = len(values) - len(flat), int(np.isnan(y).sum())
    panel, dropped = _without_gaps(panel, policy)
    if dropped:
        absent = blank = 0
    far = outliers(panel) if policy.on_outlier != "keep" else np.zeros(0, dtype=bool)
    if far.any() and policy.on_outlier == "raise":
        raise ForecastError(f"{int(far.sum()):,} outlier(s), the first {_place(panel, int(np.argmax(far)))}")
    report = FrameReport(
        series=len(panel.ids), rows=int(np.isfinite(panel.y).sum()), freq=grid.freq, unsorted=unsorted,
        repeated=repeated, conflicting=conflicting, edge_blanks=edge_blanks, absent=absent, blank=blank,
        blank_covariates=int(np.isnan(numbers).sum()), dropped=dropped + len(empty), outliers=int(far.sum()),
        repaired=policy.on_outlier == "repair", wide=rows.wide,
    )  # fmt: skip
    return panel, report


def _without_repeats(
    rows: Rows, grid: Grid, positions: IntArray, order: IntArray, policy: FramePolicy
) -> tuple[IntArray, int, int]:
    """The order without rows of one series and stamp, how many of those said the same, and how many not."""
    assert rows.y is not None
    again = (np.diff(rows.codes[order]) == 0) & (np.diff(positions[order]) == 0)
    if not again.any():
        return order, 0, 0
    content = np.column_stack([rows.y, rows.numbers])[order]
    alike = (np.diff(content, axis=0) == 0) | (np.isnan(content[1:]) & np.isnan(content[:-1]))
    conflict = again & ~alike.all(axis=1)
    if conflict.any() and policy.on_duplicate == "raise":
        at = int(np.argmax(conflict))
        one, other = order[at], order[at + 1]
        local = rows.stamps.tz is None and not grid.wall and grid.clock.tz == "UTC"
        twice = "; of a clock that is set back in autumn tz= tells the hours apart" if local else ""
        raise ForecastError(
            f"{rows.where(other)}: a second row of {shown(rows.ids[rows.codes[other]])} at"
            f" {rows.stamps[other]} with other values than {rows.where(one).removesuffix(' of the frame')}"
            f" (on_duplicate='first' or 'last' keeps one{twice})"
        )
    left = (
        np.concatenate([again, [False]])
        if policy.on_duplicate == "last"
        else np.concatenate([[False], again])
    )
    return order[~left], int((again & ~conflict).sum()), int(conflict.sum())


def _check_density(
    rows: Rows, grid: Grid, kept: IntArray, counts: IntArray, first: IntArray, sizes: IntArray
) -> None:
    sparse = sizes > 2 * counts + 2 * max(grid.per(DAY_S) or 1, 24)
    if sparse.any():
        at = int(np.argmax(sparse))
        begin, end = grid.wall_stamps(np.array([first[at], first[at] + sizes[at] - 1]))
        raise ForecastError(
            f"{shown(rows.ids[kept[at]])}: {counts[at]:,} rows span {sizes[at]:,} steps of {grid.freq}, from"
            f" {begin} to {end}; expected regular series (is freq= right? is the first or the"
            " last stamp mistyped?)"
        )


def _without_gaps(panel: Panel, policy: FramePolicy) -> tuple[Panel, int]:
    missing = np.isnan(panel.y)
    if policy.on_gap == "fill" or not missing.any():
        return panel, 0
    if policy.on_gap == "raise":
        raise ForecastError(
            f"{int(missing.sum()):,} value(s) are missing, the first {_place(panel, int(np.argmax(missing)))}"
            " (on_gap='fill' fills them from the past)"
        )
    whole = np.flatnonzero(np.add.reduceat(missing, panel.offsets[:-1]) == 0)
    if len(whole) == 0:
        raise ForecastError("every series has values missing; on_gap='drop' leaves none")
    return panel.only(whole), len(panel.ids) - len(whole)


def _place(panel: Panel, flat: int) -> str:
    series = panel.series_at(flat)
    stamp = panel.grid.wall_stamps(panel.first[[series]] + flat - panel.offsets[series])[0]
    return f"of {shown(panel.ids[series])} at {stamp}"


def carried(values: FloatArray, offsets: IntArray) -> FloatArray:
    """Blanks replaced by the value before them in the series, if there is one."""
    if not values.size or not np.isnan(values).any():
        return values
    begins = np.repeat(offsets[:-1], np.diff(offsets))[:, None]
    seen = np.where(np.isnan(values), begins - 1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(seen, axis=0)
    found = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last >= begins, found, np.nan)


def _static_of(rows: Rows, names: Names, kept: IntArray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    every = rows.codes
    for name in names.static:
        values = rows.static[name]
        begins = np.unique(every, return_index=True)[1]
        own = values[begins][every]
        differs = values != own
        if np.any(differs):
            row = int(np.argmax(differs))
            raise ForecastError(
                f"{rows.where(row)}: the static covariate {name} is {shown(values[row])}, before"
                f" {shown(own[row])} for the same series"
            )
        found[name] = values[begins][kept]
    return found


def outliers(panel: Panel) -> npt.NDArray[np.bool_]:
    """``[N]`` which values lie over ten times as far from the median of the five around them (of their
    series) as that series' values do on average."""
    series = np.repeat(np.arange(len(panel.ids)), panel.sizes)
    low, high = panel.offsets[series], panel.offsets[series + 1] - 1
    distance = np.empty(len(panel.y))
    for start in range(0, len(panel.y), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(panel.y)))
        around = np.arange(block.start, block.stop)[:, None] + np.arange(-2, 3)
        around = np.clip(around, low[block, None], high[block, None])
        # a blank is no neighbour, and has no distance
        near = np.ma.masked_invalid(panel.y[around])
        median = np.ma.median(near, axis=1).filled(np.nan)
        distance[block] = np.abs(panel.y[block] - median)
    has = np.isfinite(distance)
    total = np.bincount(series[has], distance[has], minlength=len(panel.ids))
    usual = total / np.maximum(np.bincount(series[has], minlength=len(panel.ids)), 1)
    return has & (distance > OUTLIER * usual[series])
