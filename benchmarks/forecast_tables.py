"""The forecaster's tables."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from benchmarks.table_rows import Row, newest, table


def _forecast(long: bool) -> str:
    source, rows = newest("forecast")
    lines: list[tuple[float, list[str]]] = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["steps"]), []).append(row)
    # the default number of steps is the one that ran with several seeds
    default = max(groups, key=lambda key: len(groups[key]))[1]
    for (model, steps), group in groups.items():
        if not long and steps not in ("", default):
            continue
        smape = [float(row["smape"]) for row in group]
        cells = [
            model + (f", {steps} steps" if steps else ""),
            f"{mean(smape):.3f}" + (f" ({min(smape):.3f} to {max(smape):.3f})" if len(smape) > 1 else ""),
            f"{mean(float(row['mase']) for row in group):.3f}",
            f"{mean(float(row['mae_mw']) for row in group):.0f}",
        ]
        if long:
            cells.append(f"{mean(float(row['rmse_mw']) for row in group):.0f}")
        cells.append(f"{mean(float(row['fit_s']) for row in group):.1f}")
        lines.append((mean(smape), cells))
    columns = ["", "sMAPE %", "MASE", "MAE, MW", *(["RMSE, MW"] if long else []), "seconds to fit"]
    return table(columns, [cells for _, cells in sorted(lines, reverse=True)], source, rows[0])


def _forecast_runs() -> str:
    source, rows = newest("forecast-runs")
    names = ("smape", "mase", "mae_mw", "rmse_mw", "fit_s")
    digits = (3, 3, 0, 0, 0)
    lines = [
        [row["model"], *(f"{float(row[name]):.{n}f}" for name, n in zip(names, digits, strict=True))]
        for row in sorted(rows, key=lambda row: -float(row["smape"]))
    ]
    columns = ["", "sMAPE %", "MASE", "MAE, MW", "RMSE, MW", "seconds to fit"]
    return table(columns, lines, source, rows[0])


def _day_ahead() -> str:
    source, rows = newest("day-ahead")
    steps = [name.removeprefix("smape_") for name in rows[0] if name.startswith("smape_")]
    lines = [
        [
            f"{row['model']}, {row['steps']} steps" if row["steps"] else row["model"],
            *(f"{float(row[f'smape_{step}']):.2f}" for step in steps),
            f"{float(row['mase_mean']):.3f}",
            *(f"{100 * float(row[f'coverage_{one}']):.1f}" if row["pinball"] else "" for one in (80, 95)),
            f"{float(row['fit_s']):.0f}",
        ]
        for row in sorted(rows, key=lambda row: -float(row["smape_mean"]))
    ]
    ahead = [f"{step} h" if step != "mean" else "all hours" for step in steps]
    columns = ["sMAPE %", *ahead, "MASE", "inside 80%", "inside 95%", "seconds to fit"]
    return table(columns, lines, source, rows[0])


def _fleet() -> str:
    source, rows = newest("fleet")
    lines = [
        [f"{row['series']} series of {row['hours']} hours, horizon {row['horizon']}", row["files"],
         row["steps"], f"{float(row['epochs']):g}", f"{float(row['fit_s']):.0f}", row["peak_rss_mib"]]
        for row in rows
    ]  # fmt: skip
    columns = [
        "",
        "files",
        "training steps",
        "passes",
        f"seconds, {rows[0]['threads']} thread(s)",
        "MiB of memory at the peak",
    ]
    return table(columns, lines, source, rows[0])


def _forecast_speed() -> str:
    source, rows = newest("forecast-speed")
    ours = {row["cell"]: float(row["p50_ms"]) for row in rows if row["who"].endswith("cpu")}
    lines = [
        [f"{row['cell'].upper()}, {row['who']}", f"{float(row['p50_ms']) / 1e3:.2f}",
         f"{float(row['p50_ms']) / ours[row['cell']]:.2f}"]
        for row in rows
    ]  # fmt: skip
    return table([f"{rows[0]['steps']} steps of training", "seconds", "over ours"], lines, source, rows[0])


def _streaming() -> str:
    source, rows = newest("streaming")
    lines = [
        [
            f"{row['cell'].upper()}, {row['what']}",
            *(f"{1e3 * float(row[p]):.0f}" for p in ("p20_ms", "p50_ms", "p80_ms")),
        ]
        for row in rows
    ]
    columns = [f"{rows[0]['series']} series, H = {rows[0]['H']}", "us, p20", "p50", "p80"]
    return table(columns, lines, source, rows[0])


def _backtest() -> str:
    source, rows = newest("backtest")
    columns = ["sMAPE %"]
    for origin, window in dict.fromkeys((row["origin"], row["window_hours"]) for row in rows):
        days = f"the {int(window) // 24} days" if window else "all hours"
        columns.append(f"{days} before {origin[:10]}")
    lines: dict[str, list[str]] = {}
    steps: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row["model"], []).append(f"{float(row['smape']):.3f}")
        if row["steps"]:
            steps.setdefault(row["model"], []).append(row["steps"])
    order = sorted(lines.items(), key=lambda line: -float(line[1][0]))
    cells = [[_with_steps(name, steps.get(name)), *numbers] for name, numbers in order]
    return table(columns, cells, source, rows[0])


def _with_steps(name: str, steps: list[str] | None) -> str:
    return name if steps is None else f"{name}, {', '.join(steps)} steps"


FORECAST: dict[str, Callable[[], str]] = {
    "forecast": lambda: _forecast(long=False),
    "forecast-long": lambda: _forecast(long=True),
    "forecast-runs": _forecast_runs,
    "backtest": _backtest,
    "day-ahead": _day_ahead,
    "fleet": _fleet,
    "forecast-speed": _forecast_speed,
    "streaming": _streaming,
}
