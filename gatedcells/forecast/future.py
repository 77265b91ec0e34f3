"""What is known of the steps to come."""

from typing import Any

import numpy as np
import pandas as pd

from gatedcells.forecast.csv_text import named
from gatedcells.forecast.data import IntArray, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.frames import Names, Style, read_frame
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.placement import positions_of


def future_stamps(panel: Panel, style: Style, h: int) -> tuple[IntArray, pd.DatetimeIndex]:
    """``[S · h]`` the numbers of the series, and the stamps of the ``h`` steps after each one's end."""
    positions = (panel.first + panel.sizes)[:, None] + np.arange(h)
    stamps_of = panel.grid.utc_stamps if style.tz is not None else panel.grid.wall_stamps
    return np.repeat(np.arange(len(panel.ids)), h), stamps_of(positions.ravel())


def with_future(panel: Panel, future: Any, names: Names, style: Style, h: int, horizon: int) -> Panel:
    """The panel with its known covariates for the steps to come.

    Args:
        panel: series up to now.
        future: long, a row for each series and step; or without series, for all of them alike. Other rows are
            left alone.
        names: of its columns; style: of the panel's frame.
        h: steps that must be there; horizon: steps that the network reads, the last one standing for the
            rest.

    Raises:
        ForecastError: no frame is given where one is needed, or given where none is; a step or a value is
            missing.
    """
    if not names.known:
        if future is not None:
            raise ForecastError(
                "future= was given, but the forecaster was fitted with known=(), nothing known ahead"
            )
        return panel
    if future is None:
        raise ForecastError(
            f"fitted with known={names.known}: give their values for the {h} steps to come as future= (see"
            " make_future_dataframe)"
        )
    with named(future):
        rows = read_frame(
            future, names, target=False, covariates=names.known, static=False,
            text_ids=isinstance(panel.ids[0], str),
        )  # fmt: skip
    if (rows.stamps.tz is None) != (style.tz is None):
        raise ForecastError("stamps of future= and of the series must both have a time zone, or both none")
    ends = panel.first + panel.sizes
    shared = rows.ids == ("",)
    number = {one: at for at, one in enumerate(panel.ids)}
    own = np.array([number.get(one, -1) for one in rows.ids])[rows.codes]
    beginning = np.full(1, ends.min()) if shared else _of_rows(ends, number, rows.ids)
    with named(future):
        positions = positions_of(rows, panel.grid, beginning)
    values = np.full((len(panel.ids), horizon, len(names.known)), np.nan)
    for at in range(len(panel.ids)) if shared else [None]:
        series = np.full(len(own), at) if at is not None else own
        step = positions - ends[series]
        use = (series >= 0) & (step >= 0) & (step < h)
        values[series[use], step[use]] = rows.numbers[use]
    lacking = np.isnan(values[:, :h]).any(axis=2)
    if lacking.any():
        series, step = np.argwhere(lacking)[0]
        stamp = panel.grid.wall_stamps(ends[[series]] + step)[0]
        raise ForecastError(
            f"future= has no {' and '.join(names.known)} for {shown(panel.ids[series])} at {stamp}, step"
            f" {step + 1} of {h}"
        )
    values[:, h:] = values[:, h - 1 : h]
    split = np.split(panel.known, panel.offsets[1:-1])
    known = [part for pair in zip(split, values, strict=True) for part in pair]
    return Panel(
        panel.grid, panel.ids, panel.first, panel.offsets, panel.y, np.concatenate(known), horizon,
        panel.past, panel.static,
    )  # fmt: skip


def _of_rows(ends: IntArray, number: dict[Any, int], ids: tuple[Any, ...]) -> IntArray:
    return np.array([ends[number[one]] if one in number else 0 for one in ids], dtype=np.int64)
