"""Going on to values that have come since a forecaster was fitted."""

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import numpy as np

from gatedcells.forecast.data import FloatArray, IntArray, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.panel import Panel, carried

_LONGEST_PAUSE = 10_000  # steps without values between what was known and what came


def last_values(panel: Panel, reach: int) -> Panel:
    """The last ``reach`` values of every series, or a few more: each begins with a value that is known."""
    seen = np.where(np.isnan(panel.y), -1, np.arange(len(panel.y)))
    begins = panel.sizes - np.minimum(panel.sizes, reach)
    begins = np.maximum.accumulate(seen)[panel.offsets[:-1] + begins] - panel.offsets[:-1]
    return panel.select(np.arange(len(begins)), begins, panel.sizes, 0)


def continued(before: Panel, after: Panel) -> Panel:
    """The series of ``before``, and those that ``after`` alone has, up to where either knows them; where
    both do, ``after`` is believed. A blank covariate is the one before, of what was known as well.

    Raises:
        ForecastError: the values of a series that came lie far from those that were known.
    """
    by_name: dict[Any, list[tuple[Panel, int]]] = {}
    for panel in (before, after):
        for at, one in enumerate(panel.ids):
            by_name.setdefault(one, []).append((panel, at))
    parts = list(by_name.values())
    first = np.array([min(int(panel.first[at]) for panel, at in own) for own in parts], dtype=np.int64)
    end = np.array([max(_end(panel, at) for panel, at in own) for own in parts], dtype=np.int64)
    for own, whole in zip(parts, end - first, strict=True):
        if whole > sum(int(panel.sizes[at]) for panel, at in own) + _LONGEST_PAUSE:
            (panel, at), (other, there) = own
            raise ForecastError(
                f"{_apart(panel, at, int(other.first[there]))};"
                f" expected at most {_LONGEST_PAUSE:,} steps between them (is a stamp mistyped?)"
            )
    offsets = np.concatenate([[0], np.cumsum(end - first)]).astype(np.int64)
    last = [own[-1] for own in parts]
    return Panel(
        grid=before.grid,
        ids=tuple(panel.ids[at] for panel, at in last),
        first=first,
        offsets=offsets,
        y=_laid("y", parts, first, offsets),
        known=carried(_laid("known", parts, first, offsets), offsets),
        ahead=0,
        past=carried(_laid("past", parts, first, offsets), offsets),
        static={
            name: np.array([panel.static[name][at] for panel, at in last], dtype=values.dtype)
            for name, values in before.static.items()
        },
    )


def missing_between(before: Panel, after: Panel, on_gap: str) -> int:
    """How many steps lie between the ends of the series of ``before`` and where ``after`` goes on with them.

    Raises:
        ForecastError: there are some, and ``on_gap`` is not ``"fill"``.
    """
    ended = {one: _end(before, at) for at, one in enumerate(before.ids)}
    missing = 0
    for one, began in zip(after.ids, after.first.tolist(), strict=True):
        hole = began - ended.get(one, began)
        if hole > 0 and on_gap != "fill":
            raise ForecastError(
                f"{_apart(before, before.ids.index(one), began)}: {hole:,} value(s) are missing between"
                f" (on_gap='fill' fills them from the past, {on_gap!r} does not)"
            )
        missing += max(hole, 0)
    return missing


def _apart(panel: Panel, at: int, began: int) -> str:
    ended, began_at = panel.grid.wall_stamps(np.array([_end(panel, at) - 1, began], dtype=np.int64))
    return f"{shown(panel.ids[at])} was known until {ended}, and the values given begin at {began_at}"


def come_true(
    before: Panel, panel: Panel, horizon: int, ids: Collection[Any]
) -> tuple[IntArray, IntArray, IntArray]:
    """Windows of a whole horizon that have ended since each series of ``before`` that is among ``ids`` did,
    evenly spaced and at most a horizon apart: the numbers of their series in ``panel``, their local
    positions, and how many values had come since the window before."""
    wanted = set(ids)
    ended = {one: _end(before, at) for at, one in enumerate(before.ids) if one in wanted}
    series, origins, came = (list[int]() for _ in range(3))
    for at, one in enumerate(panel.ids):
        begin, end = ended.get(one, _end(panel, at)), _end(panel, at)
        ends = np.linspace(begin, end, -(-(end - begin) // horizon) + 1).astype(np.int64)
        for last, now in pairwise(ends.tolist()):
            if now - horizon > panel.first[at]:
                series.append(at)
                origins.append(now - horizon - int(panel.first[at]))
                came.append(now - last)
    return np.array(series, dtype=np.int64), np.array(origins, dtype=np.int64), np.array(came, dtype=np.int64)


def _end(panel: Panel, at: int) -> int:
    return int(panel.first[at] + panel.sizes[at])


def _laid(name: str, parts: list[list[tuple[Panel, int]]], first: IntArray, offsets: IntArray) -> FloatArray:
    like: Any = getattr(parts[0][0][0], name)
    values = np.full((int(offsets[-1]), *like.shape[1:]), np.nan)
    for own, start, offset in zip(parts, first, offsets[:-1], strict=True):
        for panel, at in own:
            given = getattr(panel, name)[panel.offsets[at] : panel.offsets[at + 1]]
            where = values[offset + int(panel.first[at] - start) :][: len(given)]
            where[...] = np.where(np.isnan(given), where, given)
    return values
