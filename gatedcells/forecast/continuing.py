"""Going on to values that have come since a forecaster was fitted."""

import warnings
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from gatedcells.forecast.data import FloatArray, IntArray, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.panel import Panel, carried, offsets_of
from gatedcells.forecast.panel_model import in_units
from gatedcells.forecast.panel_report import ShortFrame

_LONGEST_PAUSE = 10_000  # steps without values between what was known and what came


def last_values(panel: Panel, reach: int) -> Panel:
    """The last ``reach`` values of every series, or a few more: each begins with a value that is known. Holes
    are filled before: what fills one is of values that may lie further back."""
    holes = np.isnan(panel.y)
    logs = panel.filled or [log for log in (False, True) if not log or (panel.y[~holes] > 0).all()]
    panel = replace(panel, filled={log: in_units(panel, log)[holes] for log in logs})
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
    offsets = offsets_of(end - first)
    last = [own[-1] for own in parts]
    y = _laid("y", parts, first, offsets)
    return Panel(
        grid=before.grid,
        ids=tuple(panel.ids[at] for panel, at in last),
        first=first,
        offsets=offsets,
        y=y,
        known=carried(_laid("known", parts, first, offsets), offsets),
        ahead=0,
        past=carried(_laid("past", parts, first, offsets), offsets),
        static={
            name: np.array([panel.static[name][at] for panel, at in last], dtype=values.dtype)
            for name, values in before.static.items()
        },
        filled=_still_filled(before, y, first, offsets),
    )


def _still_filled(before: Panel, y: FloatArray, first: IntArray, offsets: IntArray) -> dict[bool, FloatArray]:
    """What filled the holes of ``before``, up to the first value of a series that is another one in ``y``;
    ``before``'s series are the first ones of it."""
    many = len(before.ids)
    shift = offsets[:many] + before.first - first[:many] - before.offsets[:-1]
    place = np.arange(len(before.y)) + np.repeat(shift, before.sizes)
    now, holes = y[place], np.isnan(before.y)
    other = (now != before.y) & ~(np.isnan(now) & holes)
    count = np.concatenate([[0], np.cumsum(other)])
    same = count[1:] == np.repeat(count[before.offsets[:-1]], before.sizes)
    found: dict[bool, FloatArray] = {}
    for log, values in before.filled.items():
        whole, kept = np.full(len(y), np.nan), np.full(len(before.y), np.nan)
        kept[holes] = values
        whole[place[same]] = kept[same]
        found[log] = whole[np.isnan(y)]
    return found


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


def warn_of_short(known: Panel, given: Panel, looks_back: int) -> None:
    """Warn in one line if series of ``given`` are shorter than what forecasts look back on, or, where fewer
    of it are ``known``, than that."""
    number = {one: at for at, one in enumerate(known.ids)}
    own = np.array([number.get(one, -1) for one in given.ids], dtype=np.int64)
    expected = np.minimum(looks_back, np.where(own < 0, known.sizes.max(), known.sizes[own]))
    short = np.flatnonzero(given.sizes < expected)
    if len(short):
        at, ends = short[0], known.first + known.sizes
        warning = ShortFrame(
            f"{shown(given.ids[at])} has {given.sizes[at]:,} value(s) to go on from, and forecasts look"
            f" back on {expected[at]:,} (too few for {len(short):,} of {len(given.ids):,} series): they err"
            " more, and their intervals are too narrow; update goes on from the values known before as well"
        )
        begins = given.first[short]
        known_too = (own[short] >= 0) & (begins > known.first[own[short]]) & (begins <= ends[own[short]])
        warning.behind = bool(known_too.any())
        warnings.warn(warning, stacklevel=3)


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
