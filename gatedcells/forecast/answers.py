"""Forecasts as a frame of the kind that was given, with the columns that Nixtla's libraries give."""

from typing import Any

import numpy as np

from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.frames import Names, Style, give_back
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.panel_model import PanelModel


def forecast_frame(
    model: PanelModel, names: Names, panel: Panel, style: Style, series: IntArray, origins: IntArray,
    found: FloatArray, *, with_actual: bool = False,
) -> Any:  # fmt: skip
    """A frame with a row for each step forecast.

    Args:
        model: that forecast; names: of the columns; panel: that it went on from; style: of its frame.
        series, origins: ``[W]`` from where.
        found: ``[W, h, Q]``.
        with_actual: whether ``cutoff``, the last stamp known, and the values that came are beside.
    """
    windows, h, _ = found.shape
    stamps_of = panel.grid.utc_stamps if style.tz is not None else panel.grid.wall_stamps
    first = panel.first[series] + origins
    columns: dict[str, Any] = {
        names.id_col: [panel.ids[at] for at in np.repeat(series, h)],
        names.time_col: stamps_of((first[:, None] + np.arange(h)).ravel()),
    }
    if with_actual:
        columns["cutoff"] = stamps_of(np.repeat(first - 1, h))
    quantiles, name = model.recipe.quantiles, model.recipe.cell.upper()
    by_quantile = found.reshape(windows * h, -1).T
    median = quantiles.index(0.5)
    columns[name] = by_quantile[median]
    used = {median}
    for level, (low, high) in zip(model.fit.level, model.pairs, strict=True):
        columns[f"{name}-lo-{level:g}"] = by_quantile[low]
        columns[f"{name}-hi-{level:g}"] = by_quantile[high]
        used |= {low, high}
    for at, quantile in enumerate(quantiles):
        if at not in used:
            columns[f"{name}-ql{quantile:g}"] = by_quantile[at]
    if with_actual:
        rows = (panel.offsets[series] + origins)[:, None] + np.arange(h)
        columns[names.target_col] = panel.y[rows.ravel()]
    return give_back(columns, [names.time_col, *(["cutoff"] if with_actual else [])], style)
