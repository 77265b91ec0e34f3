"""Figures of a run: forecast against actual."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatedcells.forecast.bitcoin import PriceScores
from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.evaluate import Result
from gatedcells.forecast.files import written_beside
from gatedcells.forecast.prices import Prices
from gatedcells.forecast.windows import Region

_HOURS_OF_FOUR = 100  # as in the article's figure
_HOURS_OF_ALL = 168
_ACTUAL = "#222222"
_COLOURS = ("#d95f02", "#1b75bb", "#2a9d3c")  # told apart by line style too
_STYLES = ("-", "--", ":")


def plot_four_regions(
    path: Path, regions: Sequence[Region], results: Sequence[Result], subtitle: str
) -> None:
    """The article's figure: four regions, the last 100 test hours, forecast and actual."""
    spread = np.linspace(0, len(regions) - 1, min(4, len(regions))).round().astype(int)
    _plot(path, [regions[i] for i in spread], regions, results, _HOURS_OF_FOUR, 2, subtitle)


def plot_all_regions(path: Path, regions: Sequence[Region], results: Sequence[Result], subtitle: str) -> None:
    """Every region's last test week, forecast and actual."""
    columns = min(3, len(regions))
    _plot(path, regions, regions, results, _HOURS_OF_ALL, columns, subtitle)


def plot_prices(
    path: Path,
    prices: Prices,
    first: int,
    forecasts: Mapping[str, FloatArray],
    scores: Mapping[str, PriceScores],
) -> None:
    """Every test day's close beside its forecasts, and the last month of them close up."""
    import matplotlib.dates as dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    all_days, last_month = figure.subplots(1, 2, width_ratios=(3, 2))
    for axis, days in ((all_days, len(prices.days) - first), (last_month, min(30, len(prices.days) - first))):
        when = np.asarray(prices.days[-days:], dtype="datetime64[D]")
        axis.plot(when, prices.close[-days:], color=_ACTUAL, linewidth=2.2, alpha=0.45, label="close")
        for i, (name, forecast) in enumerate(forecasts.items()):
            axis.plot(
                when, forecast[-days:], color=_COLOURS[i % 3], linestyle=_STYLES[i % 3], linewidth=1.2,
                label=f"{name}: MAE {scores[name].mae:,.1f}",
            )  # fmt: skip
        axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(axis.xaxis.get_major_locator()))
        axis.grid(alpha=0.25)
        axis.margins(x=0.01)
    all_days.set_title("all test days", fontsize=10)
    last_month.set_title("the last of them", fontsize=10)
    all_days.set_ylabel("close, in the file's currency")
    all_days.legend(fontsize=8)
    figure.suptitle(f"The next day's close, forecast against actual: {prices.source}", fontsize=11)
    with written_beside(path) as beside:
        figure.savefig(beside, dpi=110)


def _plot(
    path: Path,
    shown: Sequence[Region],
    regions: Sequence[Region],
    results: Sequence[Result],
    hours: int,
    columns: int,
    subtitle: str,
) -> None:
    import matplotlib.dates as dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis, region in zip(axes.flat, shown, strict=False):
        number = list(regions).index(region)
        stamps = region.series.local_stamps()[region.test][-hours:]
        axis.plot(stamps, region.actual_mw[-hours:], color=_ACTUAL, linewidth=2.2, alpha=0.45, label="actual")
        for i, result in enumerate(results):
            axis.plot(
                stamps, result.forecasts_mw[number][-hours:],
                color=_COLOURS[i % 3], linestyle=_STYLES[i % 3], linewidth=1.2, label=result.name,
            )  # fmt: skip
        errors = ", ".join(f"{r.name} {r.by_region[region.name].smape:.2f}%" for r in results)
        axis.set_title(f"{region.name}: sMAPE {errors}", fontsize=10)
        axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(axis.xaxis.get_major_locator()))
        axis.grid(alpha=0.25)
        axis.margins(x=0.01)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("load, MW")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(
        f"Next hour, forecast against actual: the last {hours} test hours\n"
        f"{subtitle}; sMAPE is that of the region's whole test part",
        fontsize=11,
    )
    with written_beside(path) as beside:
        figure.savefig(beside, dpi=110)
