"""The tables that a run prints, as rich renderables."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gatedcells.forecast.data import LoadSeries
from gatedcells.forecast.evaluate import Result, undefined_in
from gatedcells.forecast.flaws import Flaws
from gatedcells.forecast.metrics import mean_defined
from gatedcells.forecast.policy import Policy
from gatedcells.forecast.windows import Region

_FLAW_COLUMNS = {
    "backward_steps": "out of\norder",
    "autumn_pairs": "DST\npairs",
    "spring_gaps": "DST\nskips",
    "missing_hours": "miss-\ning",
    "not_positive": "≤ 0",
    "spikes": "spikes",
}
ARTICLE_SMAPE = {"gru": 4 * 0.28081167222194775, "lstm": 4 * 0.27014616762377464}  # as its notebook printed
ARTICLE_SECONDS = {"gru": 390.0, "lstm": 463.0}  # on a GPU


def flaw_table(series: Sequence[LoadSeries], policy: Policy, regions: Sequence[Region]) -> Group:
    """What is wrong in each file, and what is made of it under the policy."""
    table = narrow_table("What the files hold")
    table.add_column("region", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("from", no_wrap=True)
    table.add_column("to", no_wrap=True)
    for heading in _FLAW_COLUMNS.values():
        table.add_column(heading, justify="right")
    for one in series:
        stamps = one.local_stamps()
        counts = one.flaws.counts()
        table.add_row(
            one.region, f"{len(one.rows):,}", f"{stamps[0]:%Y-%m-%d}", f"{stamps[-1]:%Y-%m-%d}",
            *(f"{counts[name]:,}" if counts[name] else "·" for name in _FLAW_COLUMNS),
        )  # fmt: skip
    total = sum((one.flaws for one in series), Flaws()).counts()
    remedies = policy.remedies()
    lines = [f"{count:>8,} {remedies[name]}" for name, count in total.items() if count]
    lines.append(f"Policy: {policy.in_words()}.")
    if policy.on_gap == "drop":
        train, test = (sum(len(region.dropped[part]) for region in regions) for part in (0, 1))
        lines.append(f"{train:,} training and {test:,} test hours look back on a hole and are left out.")
    return Group(table, Text("\n".join(lines), style="dim"))


def score_table(results: Sequence[Result], title: str, pjm: bool) -> Group:
    """All models side by side, best first within networks and baselines.

    Args:
        results: networks and baselines; a result with training seconds and parameters is a network.
        title: of the table.
        pjm: whether the scores are on the article's data, so that its own belong beside them.
    """
    table = narrow_table(title)
    table.add_column("mean of the regions", no_wrap=True)
    for heading in ("sMAPE\n%", "art. ¼\nsMAPE", "MAE\nMW", "RMSE\nMW", "MASE", "train\ns", "para-\nmeters"):
        table.add_column(heading, justify="right")
    networks = [r for r in results if r.parameters]
    others = [r for r in results if not r.parameters]
    best = min((r.mean.smape for r in results if not np.isnan(r.mean.smape)), default=float("nan"))
    for result in sorted(networks, key=lambda r: r.mean.smape):
        _score_row(table, result, result.mean.smape == best)
    table.add_section()
    for result in others:
        _score_row(table, result, result.mean.smape == best)
    if pjm:
        table.add_section()
        for cell in ("gru", "lstm"):
            smape = ARTICLE_SMAPE[cell]
            table.add_row(
                f"article's {cell.upper()}, published", f"{smape:.3f}", f"{smape / 4:.3f}",
                "", "", "", f"{ARTICLE_SECONDS[cell]:.0f}*", "", style="dim",
            )  # fmt: skip
    notes = (
        "sMAPE: 100/n Σ |F−A| / ((|F|+|A|)/2), F forecast, A actual. The article's\n"
        "code divides by F+A and then by 2, which is a quarter of that.\n"
        "MASE: MAE over the MAE of 'same hour yesterday' in the training part."
    )
    without = undefined_in(results)
    if without:
        notes += f"\nMeans leave out regions in which a score is not defined: {', '.join(without)}."
    if pjm:
        notes += "\n* on a GPU, CPU time of the process."
    return Group(table, Text(notes, style="dim"))


def region_table(results: Sequence[Result]) -> Table:
    """sMAPE by region: a row a region, a column a model."""
    table = narrow_table("sMAPE % by region")
    table.add_column("region", no_wrap=True)
    for result in results:
        table.add_column(result.name, justify="right")
    for region in results[0].by_region:
        values = [result.by_region[region].smape for result in results]
        best = min((v for v in values if not np.isnan(v)), default=float("nan"))
        table.add_row(region, *(Text(number(v, 3), style="bold green" if v == best else "") for v in values))
    table.add_section()
    table.add_row("mean", *(number(result.mean.smape, 3) for result in results))
    return table


def interval_table(results: Sequence[Result]) -> Table:
    """Coverage of the intervals by region: a row a region, for each network a column a level; and how wide
    they are."""
    table = narrow_table("Hours inside their interval, %")
    table.add_column("region", no_wrap=True)
    levels = [level for result in results if result.intervals for level in result.intervals[0].levels]
    for result in results:
        for level in result.intervals[0].levels if result.intervals else ():
            table.add_column(f"{result.name}\n{100 * level:.0f}%", justify="right")
    for region in results[0].by_region if results else ():
        found = [(result.interval_scores or {})[region] for result in results]
        table.add_row(region, *(number(100 * share, 1) for one in found for share in one.coverage))
    if levels:
        table.add_section()
        every = [list((result.interval_scores or {}).values()) for result in results]
        widths = [
            mean_defined([one.width[k] for one in own]) for own in every for k in range(len(own[0].width))
        ]
        table.add_row("mean width, %", *(number(100 * width, 2) for width in widths))
    return table


def _score_row(table: Table, result: Result, best: bool) -> None:
    mean = result.mean
    style = "bold green" if best else ""
    table.add_row(
        Text(result.name, style=style),
        Text(number(mean.smape, 3), style=style),
        number(mean.article_smape, 3),
        number(mean.mae_mw, 1),
        number(mean.rmse_mw, 1),
        number(mean.mase, 3),
        "" if result.seconds is None else f"{result.seconds:.0f}",
        f"{result.parameters:,}" if result.parameters else "",
    )


def number(value: float | None, digits: int) -> str:
    """A score as a table shows it; None and NaN are undefined."""
    return "undefined" if value is None or np.isnan(value) else f"{value:,.{digits}f}"


def narrow_table(title: str) -> Table:
    """Narrow enough for 80 columns."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, padding=0)
