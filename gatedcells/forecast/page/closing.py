"""The last sections of a report: the files' flaws, the gates, and what the run was asked to do."""

from dataclasses import asdict

import numpy as np

from gatedcells.forecast.page.charts import Line, chart, legend
from gatedcells.forecast.page.findings import HOURS, Findings, changed_hours
from gatedcells.forecast.page.gates import TypicalDay
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
from gatedcells.forecast.policy import written

_CHANGED = 100  # hours that are listed for a region
_UNITS = 8  # in the table
_DRAWN = 4  # of them in the chart
_MEANINGS = {
    "reset": "how much of the state enters the candidate; at 0 the candidate depends on the input alone",
    "update": "how much of its state a unit keeps; at 1 it is unchanged, at 0 it becomes the candidate",
    "input": "how much of the candidate a unit adds to its cell state; at 0 nothing",
    "forget": "how much of its cell state a unit keeps; at 1 all of it, at 0 nothing",
    "output": "how much of its cell state a unit passes on to the next step and to the forecast",
}

_FLAWS = {
    "backward_steps": "out of order",
    "repeated_rows": "repeated",
    "autumn_pairs": "DST pairs",
    "autumn_gaps": "DST gaps",
    "spring_gaps": "DST skips",
    "missing_hours": "missing",
    "not_positive": "zero, below, blank",
    "spikes": "spikes",
}


def flaws(findings: Findings) -> Element:
    """What was found in each file and what was made of it."""
    policy = findings.config.policy
    rows: list[list[Content]] = []
    lists: list[Element] = []
    totals = dict.fromkeys(_FLAWS, 0)
    for region in findings.regions:
        series = region.series
        stamps, counts = series.local_stamps(), series.flaws.counts()
        changed = changed_hours(region, policy.on_outlier == "repair")
        for name in totals:
            totals[name] += counts[name]
        rows.append(
            [
                region.name, series.source, f"{len(series.rows):,}", f"{stamps[0]:%Y-%m-%d}",
                f"{stamps[-1]:%Y-%m-%d}", *(f"{counts[name]:,}" for name in _FLAWS), f"{len(changed):,}",
                f"{sum(len(part) for part in region.dropped):,}",
            ]
        )  # fmt: skip
        listed: list[list[Content]] = []
        for at in changed[:_CHANGED]:
            had = series.load_mw[at]
            in_file = f"has {had:,g} MW" if np.isfinite(had) else written(series, int(at))
            listed.append([f"{stamps[at]:%Y-%m-%d %H:%M}", in_file, f"{region.load_mw[at]:,.1f}"])
        if listed:
            said = f"{region.name}: hours replaced by values from the hours before"
            said += f", the first {_CHANGED} of {len(changed):,}" if len(changed) > _CHANGED else ""
            lists.append(table(said, ["timestamp in the file", "the file", "replaced by, MW"], listed))
    heads = ["region", "file", "rows", "from", "to", *_FLAWS.values(), "hours changed", "left out"]
    remedies = policy.remedies()
    done = [element("li", f"{totals[name]:,} {remedies[name]}") for name in _FLAWS if totals[name]]
    return section(
        "flaws", "Flaws found in the files, and how they were treated",
        element("p", f"Policy: {policy.in_words()}."), element("ul", *done),
        table("Counts by file", heads, rows), folded("Hours that were changed", *lists) if lists else None,
    )  # fmt: skip


def gates(findings: Findings) -> Element:
    """What the gates do over a typical day."""
    heading, days = "The gates over a day", findings.days
    if not days:
        return section("gates", heading, element("p", "The test part has too few hours for a mean day."))
    regions = list(dict.fromkeys(day.region for day in days))
    cells = list(dict.fromkeys(day.cell for day in days))
    panels: list[Element] = []
    for number, region in enumerate(regions, start=1):
        for k, cell in enumerate(cells):
            own = [day for day in days if (day.region, day.cell) == (region, cell)]
            panels.append(
                panel(*(one for day in own for one in _day(day, len(own))), region=number, network=k)
            )
    members = getattr(findings.config.recipe, "members", 1)
    which = f" Only the first of the {members} networks is shown." if members > 1 else ""
    said = (
        "A gate is a number from 0 to 1 that every hidden unit computes at every step. Shown are means over"
        " the last days of the test part, by local hour. A unit whose gate changes over the day treats the"
        f" hours differently: it has learnt part of the daily pattern.{which}"
    )
    named = dict.fromkeys(gate for day in days for gate in day.by_hour)
    meanings = [element("li", element("b", f"{gate} gate: "), _MEANINGS[gate]) for gate in named]
    choosers = [
        chooser("Region", "region", regions, start=1),
        chooser("Network", "network", [cell.upper() for cell in cells]),
    ]
    return section("gates", heading, element("p", said), element("ul", *meanings), choice(*choosers), *panels)


def settings(findings: Findings) -> Element:
    """What the run was asked to do, with which versions, on which data."""
    config = findings.config
    asked: dict[str, object] = {"recipe": config.recipe_name, "cells": ", ".join(config.cells)}
    asked |= {name: value for name, value in asdict(config.recipe).items() if name != "cell"}
    asked |= {"seed": config.seed, "threads": config.threads, "LightGBM's trees": config.trees or "none"}
    asked |= {"on gap": config.policy.on_gap, "on outlier": config.policy.on_outlier}
    asked |= {"data": config.data["place"], "kind of data": findings.kind}
    asked |= {"time zone of timestamps": config.data["tz"], "a timestamp is an hour's": config.data["stamp"]}
    rows = [[name.replace("_", " "), _said(value)] for name, value in asked.items()]
    versions = {"commit": "not recorded"} | config.versions
    sums = [[name, digest] for name, digest in config.data["sha256"].items()]
    return section(
        "settings", "Settings and versions",
        table("Settings of the run", ["setting", "value"], rows, words=True),
        table("Versions", ["of", "version"], list(versions.items()), words=True),
        folded("Files", table("SHA-256", ["file", "SHA-256"], sums, words=True)) if sums else None,
    )  # fmt: skip


def _day(day: TypicalDay, layers: int) -> list[Element]:
    name = f"{day.region}, {day.cell.upper()}" + (f", layer {day.layer + 1}" if layers > 1 else "")
    ticks = [(hour, f"{hour}") for hour in range(0, 24, 3)]
    means = [Line(f"{gate} gate", day.mean(gate), k) for k, gate in enumerate(day.by_hour)]
    moving = day.moving(_UNITS)
    units = [
        Line(f"unit {unit}, {gate}", day.by_hour[gate][:, unit], k)
        for k, (unit, gate, _) in enumerate(moving[:_DRAWN])
    ]
    figures = [
        element(
            "figure",
            element("figcaption", said),
            chart(f"{said}, {name}", "gate", lines, ticks),
            legend(lines),
        )
        for said, lines in (("Mean of all units, by hour", means), ("The units that change most", units))
    ]
    rows: list[list[Content]] = []
    for unit, gate, reach in moving:
        curve = day.by_hour[gate][:, unit]
        low, high = int(np.nanargmin(curve)), int(np.nanargmax(curve))
        rows.append(
            [
                f"unit {unit}",
                gate,
                f"{curve[low]:.2f} at {HOURS[low]}",
                f"{curve[high]:.2f} at {HOURS[high]}",
                f"{reach:.2f}",
            ]
        )
    by_hour = [[HOURS[h], *(f"{day.mean(gate)[h]:.3f}" for gate in day.by_hour)] for h in range(24)]
    return [
        element("h3", f"{name}: mean over {day.hours} hours"),
        element("div", *figures, class_="charts"),
        table(f"Units that change most, {name}", ["unit", "gate", "lowest", "highest", "difference"], rows),
        folded("The means as a table", table(f"Gates by hour, {name}", ["hour", *day.by_hour], by_hour)),
    ]


def _said(value: object) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, tuple) else str(value)
