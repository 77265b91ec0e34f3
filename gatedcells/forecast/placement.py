"""Where the rows of a frame lie on a grid."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gatedcells.forecast.data import Clock, IntArray, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.frames import Rows
from gatedcells.forecast.grid import DAY_S, HOUR_S, Grid, infer_step, seconds_of, step_of

_MONTHS = (*range(28, 32), *range(90, 93), 365, 366)  # days of a month, of a quarter, of a year
_ANYWHERE = np.iinfo(np.int64).min  # the earliest position of all


def placed(rows: Rows, *, freq: str | None, tz: str | None, stamp: str) -> tuple[Grid, IntArray]:
    """The grid on which a frame's stamps lie, and ``[R]`` the rows' positions on it.

    Raises:
        ForecastError: no regular frequency, a stamp beside it, or one that the time zone does not have.
    """
    clock = Clock(str(tz or rows.style.tz or "UTC"), stamp)
    wall = seconds_of(_wall(rows.stamps, clock), rows.where)
    step = step_of(freq) if freq is not None else infer_step(wall, rows.codes)
    if step <= HOUR_S:
        return _in_utc(rows, Grid(step, 0, False, clock))
    counted = Grid(step, _commonest(wall % step), True, clock)
    if rows.stamps.tz is not None and not counted.positions(wall)[1].all():
        return _in_utc(rows, Grid(step, 0, False, clock))  # such as every six hours of UTC
    return counted, _on_grid(rows, counted, wall)


def _in_utc(rows: Rows, grid: Grid) -> tuple[Grid, IntArray]:
    seconds = grid_seconds(rows, grid)
    grid = replace(grid, phase_s=_commonest(seconds % grid.step_s))
    return grid, _on_grid(rows, grid, seconds)


def _commonest(values: IntArray) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[np.argmax(counts)])


def _wall(stamps: pd.DatetimeIndex, clock: Clock) -> pd.DatetimeIndex:
    return stamps if stamps.tz is None else stamps.tz_convert(clock.tz).tz_localize(None)


def grid_seconds(rows: Rows, grid: Grid, not_before: IntArray | None = None) -> IntArray:
    """``[R]`` the rows' seconds in the grid's time.

    Args:
        rows: of a frame.
        grid: whose time.
        not_before: ``[S]`` the earliest grid position that each series may have, to tell an hour that comes
            twice in autumn from its first.

    Raises:
        ForecastError: a stamp that clocks skip in the time zone.
    """
    if grid.wall or rows.stamps.tz is not None:
        return seconds_of(_wall(rows.stamps, grid.clock) if grid.wall else rows.stamps, rows.where)
    summer = _in_summer(rows)
    # a stamp that ends its step says when that began
    back = pd.Timedelta(seconds=grid.step_s if grid.clock.stamp == "ending" else 0)
    local = grid.clock.localize(rows.stamps - back, summer)
    if local.isna().any():
        row = int(np.argmax(local.isna()))
        raise ForecastError(
            f"{rows.where(row)}: {rows.stamps[row]} does not exist in {grid.clock.tz}, where clocks skip it;"
            " are the stamps of another time zone (tz=)?"
        )
    seconds = seconds_of(local + back, rows.where)
    if not_before is not None:
        early = grid.positions(seconds)[0] < not_before[rows.codes]
        winter = seconds_of(grid.clock.localize(rows.stamps - back, summer & ~early) + back, rows.where)
        seconds = np.where(early, winter, seconds)
    return seconds


def _in_summer(rows: Rows) -> npt.NDArray[np.bool_]:
    """``[R]`` whether a row, if its time comes twice, is the one in summer time: the first of a series, or
    the last where it runs backwards throughout."""
    cells = pd.DataFrame({"series": rows.codes, "stamp": rows.stamps})
    first, moments = ~cells.duplicated(keep="first").to_numpy(), rows.stamps.asi8
    if first.all():
        return first
    many = len(rows.ids)
    backwards = _goes_back(rows.codes, moments, many) & ~_goes_back(rows.codes, -moments, many)
    return np.where(backwards[rows.codes], ~cells.duplicated(keep="last").to_numpy(), first)


def positions_of(rows: Rows, grid: Grid, not_before: IntArray | None = None) -> IntArray:
    """``[R]`` the rows' grid positions; ``not_before`` as of `grid_seconds`.

    Raises:
        ForecastError: a stamp lies beside the grid.
    """
    return _on_grid(rows, grid, grid_seconds(rows, grid, not_before))


def _on_grid(rows: Rows, grid: Grid, seconds: IntArray) -> IntArray:
    positions, on = grid.positions(seconds)
    if not on.all():
        row = int(np.argmin(on))
        near = grid.wall_stamps(positions[[row]])[0]
        if grid.step_s // DAY_S in _MONTHS:
            how = "months, quarters and years have no fixed length and cannot be forecast"
        elif grid.step_s > HOUR_S and rows.stamps.tz is not None:
            how = "give freq=, or tz= where they follow a local clock, or put it on one"
        else:
            how = "give freq= or put it on one"
        raise ForecastError(
            f"{rows.where(row)}: {rows.stamps[row]} of {shown(rows.ids[rows.codes[row]])} is not one of the"
            f" stamps every {grid.freq} (as {near}); {how}"
        )
    return positions


def going_on(rows: Rows, grid: Grid, ends: Mapping[Any, int]) -> IntArray:
    """``[R]`` the rows' grid positions, where they go on with series that are known.

    Naive stamps of the second of two hours that autumn shows alike, given without the first, would be read as
    those of the first. They are read as the second where only so the rows begin right behind what is known:
    no row is of the position behind it otherwise, or the rows would go back in time.

    Args:
        rows: with values; grid: theirs.
        ends: the position behind the last known value, by name of the series.
    """
    assert rows.y is not None
    many, codes = len(rows.ids), rows.codes
    end = np.array([ends.get(one, _ANYWHERE) for one in rows.ids], dtype=np.int64)
    usual, late = positions_of(rows, grid), positions_of(rows, grid, end)
    has = np.isfinite(rows.y)
    begins = np.full(many, np.iinfo(np.int64).max)
    np.minimum.at(begins, codes[has], late[has])
    there = np.bincount(codes[has & (usual == end[codes])], minlength=many) > 0
    back = _goes_back(codes, usual, many) & ~_goes_back(codes, late, many)
    second = (begins == end) & (~there | back)
    return np.where(second[codes], late, usual)


def _goes_back(codes: IntArray, positions: IntArray, many: int) -> npt.NDArray[np.bool_]:
    """``[S]`` whether a row of the series lies before one above it."""
    order = np.argsort(codes, kind="stable")
    back = (np.diff(codes[order]) == 0) & (np.diff(positions[order]) < 0)
    return np.bincount(codes[order][1:][back], minlength=many) > 0
