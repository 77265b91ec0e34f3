"""The sections of a report, in the page's order."""

from collections.abc import Sequence

import numpy as np

from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.evaluate import Result, undefined_in
from gatedcells.forecast.metrics import Scores
from gatedcells.forecast.page.charts import KINDS, Band, Line, chart, legend
from gatedcells.forecast.page.findings import (
    GROUPS,
    MOST_REGIONS,
    Findings,
    largest_misses,
    mean_profile,
    profile,
)
from gatedcells.forecast.page.markup import (
    Content,
    Element,
    choice,
    chooser,
    element,
    folded,
    panel,
    section,
    table,
)
from gatedcells.forecast.policy import outliers
from gatedcells.forecast.windows import Region, count_windows

_STRETCH = 24 * 14  # hours of the chart of intervals
_WIDE = (760, 230)
_MISSES = 15
_MEASURES = {
    "sMAPE, %": ("smape", 3),
    "MASE": ("mase", 3),
    "MAE, MW": ("mae_mw", 1),
    "RMSE, MW": ("rmse_mw", 1),
}


def contents(found: Sequence[Element]) -> Element:
    """Where everything is."""
    links = [element("a", one[0].text, href=f"#{one.get('id')}") for one in found]
    return element("nav", element("ul", *(element("li", link) for link in links)), aria_label="Sections")


def in_short(findings: Findings) -> Element:
    """What was done and what came of it, in sentences."""
    train, test = count_windows(findings.regions)
    config = findings.config
    said: list[Content] = []
    if findings.kind == "simulated":
        said.append(element("p", findings.note, class_="loud"))
    else:
        said.append(element("p", f"Data: {findings.note}."))
    regions = "1 region" if len(findings.regions) == 1 else f"{len(findings.regions)} regions"
    said.append(
        element(
            "p",
            f"{regions}, {train:,} training hours and {test:,} test hours, each of which is forecast from the"
            " hours before it. The test part is the last tenth of each region; all results on this page are"
            " for the test part.",
        )
    )
    if config.as_published:
        said.append(
            element("p", "As in the article, scales are fitted on all rows, including the test part.")
        )
    return section("short", f"Run {findings.name}", *said, _verdict(findings.results))


def scores(findings: Findings) -> Element:
    """All forecasters side by side, over the regions and in each."""
    networks = sorted((r for r in findings.results if r.parameters), key=lambda r: r.mean.smape)
    results = [*networks, *(r for r in findings.results if not r.parameters)]
    rows = [
        [
            result.name,
            *_measured(result.mean),
            "" if result.seconds is None else f"{result.seconds:,.1f}",
            f"{result.parameters:,}" if result.parameters else "",
        ]
        for result in results
    ]
    heads = ["forecaster", *_MEASURES, "seconds to fit", "parameters"]
    mean = table("Unweighted mean over the regions", heads, rows, marked=[_best(results)])
    without = ", ".join(undefined_in(results))
    panels: list[Element] = []
    for number, (measure, (name, digits)) in enumerate(_MEASURES.items()):
        by_region = [
            [region.name, *(_number(getattr(r.by_region[region.name], name), digits) for r in results)]
            for region in findings.regions
        ]
        shown = table(f"{measure} by region", ["region", *(r.name for r in results)], by_region)
        panels.append(panel(shown, measure=number))
    return section(
        "scores", "Scores",
        element(
            "p",
            "sMAPE: 100/n Σ |F−A| / ((|F|+|A|)/2), F forecast, A actual. MASE: the mean absolute"
            " error over that of “same hour yesterday” in the training part. Hours without a recorded load"
            " are not scored."
            + (f" Means leave out regions in which a score is not defined: {without}." if without else ""),
            class_="hint",
        ),
        mean, choice(chooser("Measure", "measure", list(_MEASURES))), *panels,
    )  # fmt: skip


def errors(findings: Findings) -> Element:
    """The error by hour of the day, weekday and month."""
    results, regions = findings.forecast, findings.shown
    every = {
        group: [[profile(r.forecasts_mw[n], region, group) for r in results]
                for n, region in enumerate(findings.regions)]
        for group in GROUPS
    }  # fmt: skip
    panels: list[Element] = []
    for number, name in enumerate(["mean of all regions", *(findings.regions[n].name for n in regions)]):
        figures: list[Element] = []
        tables: list[Element] = []
        for group, names in GROUPS.items():
            own = every[group]
            values = (
                [mean_profile([of[k] for of in own]) for k in range(len(results))]
                if number == 0
                else own[regions[number - 1]]
            )
            lines = [Line(r.name, v, k % KINDS) for k, (r, v) in enumerate(zip(results, values, strict=True))]
            ticks = [(at, names[at][:-3] if group == "hour of the day" else names[at][:3])
                     for at in range(0, len(names), 3 if len(names) == 24 else 1)]  # fmt: skip
            said = f"Error by {group}, {name}"
            drawn = chart(said, "sMAPE, %, logarithmic", lines, ticks, logarithmic=True)
            figures.append(element("figure", element("figcaption", f"By {group}"), drawn))
            rows = [[names[at], *(_number(v[at], 3) for v in values)] for at in range(len(names))]
            tables.append(table(f"sMAPE, % by {group}, {name}", [group, *(r.name for r in results)], rows))
        panels.append(
            panel(
                element("h3", name), element("div", *figures, class_="charts"),
                legend([Line(r.name, np.empty(0), k % KINDS) for k, r in enumerate(results)]),
                folded("The same as tables", *tables), region=number,
            )
        )  # fmt: skip
    names = ["mean of all regions", *(findings.regions[n].name for n in regions)]
    return section(
        "errors", "Errors by time",
        element("p", "Local time, by the start of the hour.", class_="hint"), _left_out(findings),
        choice(chooser("Region", "region", names)), *panels,
    )  # fmt: skip


def against_actual(findings: Findings) -> Element:
    """The last two weeks of the test part: forecast, interval and what came."""
    panels: list[Element] = []
    shown = findings.shown
    for number, n in enumerate(shown, start=1):
        for k, result in enumerate(findings.networks):
            panels.append(panel(*_stretch(findings.regions[n], result, n), region=number, network=k))
    names = [findings.regions[n].name for n in shown]
    choosers = [
        chooser("Region", "region", names, start=1),
        chooser("Network", "network", [r.name for r in findings.networks]),
    ]
    return section(
        "intervals", "Forecasts and intervals against the actual load",
        element(
            "p",
            "The last two weeks of the test part. Intervals are calibrated on the errors of the hours before;"
            " rings mark hours outside the widest interval.",
            class_="hint",
        ),
        _left_out(findings), choice(*choosers), *panels,
    )  # fmt: skip


def coverage(findings: Findings) -> Element:
    """How many hours lay inside their interval."""
    heads = ["region"]
    for result in findings.networks:
        levels = [f"{100 * level:.0f}%" for level in result.intervals[0].levels] if result.intervals else []
        heads += [f"{result.name} inside {level}" for level in levels]
        heads += [f"{result.name} width {level}, % of load" for level in levels]
        heads.append(f"{result.name} pinball, MW")
    rows: list[list[Content]] = []
    for region in findings.regions:
        row: list[Content] = [region.name]
        for result in findings.networks:
            own = (result.interval_scores or {})[region.name]
            row += [_number(100 * share, 1) for share in own.coverage]
            row += [_number(100 * width, 2) for width in own.width]
            row.append(_number(own.pinball, 1))
        rows.append(row)
    said = "Hours inside their interval in %, mean width, and mean pinball loss of the bounds"
    return section("coverage", "Coverage of the intervals", table(said, heads, rows))


def misses(findings: Findings) -> Element:
    """The hours that were forecast worst: often the meter's fault."""
    best = min(findings.networks, key=lambda result: result.mean.smape)
    rows: list[list[Content]] = []
    for miss in largest_misses(best, findings.regions, _MISSES):
        region = findings.regions[miss.region]
        position = int(region.test[miss.at])
        actual = float(region.actual_mw[miss.at])
        listed = "yes" if position in outliers(region.series) else ""
        rows.append(
            [
                region.name, f"{region.series.local_stamps()[position]:%a %Y-%m-%d %H:%M}", f"{actual:,.1f}",
                f"{actual + miss.error_mw:,.1f}", f"{100 * miss.share:.1f}", listed,
            ]
        )  # fmt: skip
    heads = [
        "region",
        "timestamp in the file",
        "actual, MW",
        "forecast, MW",
        "error, %",
        "listed as a spike",
    ]
    return section("misses", "The largest errors", table(f"Of the {best.name}, all regions", heads, rows))


def _stretch(region: Region, result: Result, number: int) -> list[Element]:
    found = (result.intervals or [])[number]
    at = region.test[-_STRETCH:]
    positions = at - at[0]
    size = int(positions[-1]) + 1

    def spread(values: FloatArray) -> FloatArray:
        on_grid = np.full(size, np.nan)
        on_grid[positions] = values[-_STRETCH:]
        return on_grid

    actual = Line("actual", spread(region.actual_mw), 7)
    forecast = Line(result.name, spread(result.forecasts_mw[number]), 0)
    order = np.argsort(found.levels)[::-1]  # the widest first, below the others
    bands = [
        Band(f"{100 * found.levels[k]:.0f}% interval", spread(found.lower[k]), spread(found.upper[k]), i % 2)
        for i, k in enumerate(order)
    ]
    outside = (actual.values < bands[0].lower) | (actual.values > bands[0].upper)
    stamps = region.series.local_stamps()[at[0] : at[0] + size]
    days = [(k, f"{stamps[k]:%b} {stamps[k].day}") for k in range(size) if stamps[k].hour == 0][::2]
    name = f"{region.name}, {result.name}"
    said = (
        f"{name}: {stamps[0]:%Y-%m-%d %H:%M} to {stamps[-1]:%Y-%m-%d %H:%M}, {int(outside.sum())} of"
        f" {size} hours outside the {bands[0].name}"
    )
    error = Line("actual minus forecast", actual.values - forecast.values, 7)
    around = [Band(b.name, b.lower - forecast.values, b.upper - forecast.values, b.kind) for b in bands]
    return [
        _wide(said, chart(said, "MW", [actual, forecast], days, bands=bands, dots=outside, size=_WIDE),
              legend([actual, forecast, *bands], "outside")),
        _wide(f"{name}: the error in its interval", chart(
            f"{name}: actual minus forecast, with its interval", "MW, actual minus forecast",
            [error], days, bands=around, dots=outside, size=_WIDE), legend([error, *around], "outside")),
    ]  # fmt: skip


def _wide(caption: str, drawn: Element, below: Element) -> Element:
    """A figure that scrolls sideways where it has no room."""
    inside = element("div", drawn, class_="scroll wide", tabindex=0, role="region", aria_label=caption)
    return element("figure", element("figcaption", caption), inside, below)


def _verdict(results: Sequence[Result]) -> Element:
    networks = [r for r in results if r.parameters]
    others = [r for r in results if not r.parameters]
    if any(np.isnan(r.mean.smape) for r in results):
        return element("p", "Some scores are not defined on these data.")
    best, other = (min(of, key=lambda r: r.mean.smape) for of in (networks, others))
    text = f"The best network is {best.name}, with a mean sMAPE of {best.mean.smape:.3f}%. The best"
    text += f" forecaster without a network is {other.name}, {other.mean.smape:.3f}%"
    if other.mean.smape == 0:
        return element("p", f"{text}.")
    share = best.mean.smape / other.mean.smape - 1
    return element(
        "p", f"{text}: the network's is {100 * abs(share):.0f}% {'lower' if share < 0 else 'higher'}."
    )


def _left_out(findings: Findings) -> Element | None:
    count = len(findings.regions)
    if count <= MOST_REGIONS:
        return None
    return element("p", f"The {MOST_REGIONS} regions of {count} with the largest error.", class_="hint")


def _measured(mean: Scores) -> list[str]:
    return [_number(getattr(mean, name), digits) for name, digits in _MEASURES.values()]


def _best(results: Sequence[Result]) -> int:
    return min(range(len(results)), key=lambda k: (np.isnan(results[k].mean.smape), results[k].mean.smape))


def _number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:,.{digits}f}"
