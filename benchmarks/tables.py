"""The tables of README and docs, made from the rows in ``results/``: ``python -m benchmarks.tables``.

A page marks the place of a table with a comment, ``rows: NAME``, and the end of it with ``end of rows``.
Each table is made from the newest file of its kind.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import geometric_mean, mean

from benchmarks.records import RESULTS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACE = re.compile(r"(<!-- rows: ([\w-]+) -->\n).*?(<!-- end of rows -->)", re.DOTALL)

Row = dict[str, str]


def newest(name: str, **kind: str) -> tuple[Path, list[Row]]:
    """The newest file of rows called ``name``, and its rows of a ``kind`` that the last commit that measured
    this kind made.

    Raises:
        FileNotFoundError: nothing of that name was measured yet.
    """
    files = sorted(path for path in RESULTS.glob("*.csv") if re.search(rf"-{name}$", path.stem))
    if not files:
        raise FileNotFoundError(f"no rows called {name!r} in {RESULTS}")
    with files[-1].open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if kind.items() <= row.items()]
    return files[-1], [row for row in rows if row["commit"] == rows[-1]["commit"]]


def fill(text: str) -> str:
    """``text`` with every marked table made anew."""
    return PLACE.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", text)


def _table(columns: list[str], rows: list[list[str]], source: Path, about: Row) -> str:
    """Text is left aligned in the first column, numbers right in the others."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    device = f"{about['device']}; torch {about['torch']}; {about['date']}, commit {about['commit']}"
    return "\n".join([*lines, "", f"{device}; `benchmarks/results/{source.name}`."])


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
    return _table(columns, [cells for _, cells in sorted(lines, reverse=True)], source, rows[0])


def _forecast_runs() -> str:
    source, rows = newest("forecast-runs")
    names = ("smape", "mase", "mae_mw", "rmse_mw", "fit_s")
    digits = (3, 3, 0, 0, 0)
    lines = [
        [row["model"], *(f"{float(row[name]):.{n}f}" for name, n in zip(names, digits, strict=True))]
        for row in sorted(rows, key=lambda row: -float(row["smape"]))
    ]
    columns = ["", "sMAPE %", "MASE", "MAE, MW", "RMSE, MW", "seconds to fit"]
    return _table(columns, lines, source, rows[0])


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
    return _table(columns, lines, source, rows[0])


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
    return _table(columns, lines, source, rows[0])


Shape = tuple[str, ...]
PEERS = ("torch", "onnxruntime")


def _times(
    op: str, mode: str, dtype: str = "float32"
) -> tuple[Path, Row, dict[Shape, dict[tuple[str, str], Row]]]:
    """Rows of one op, mode and dtype: by shape, then by threads and who."""
    source, rows = newest("cells", op=op, mode=mode)
    found: dict[Shape, dict[tuple[str, str], Row]] = {}
    for row in rows:
        if row["dtype"] == dtype:
            shape = tuple(row[key] for key in "TBIH")
            found.setdefault(shape, {})[row["threads"], row["who"]] = row
    return source, rows[0], found


def _ratios(by_who: dict[tuple[str, str], Row], threads: str, peer: str) -> list[float]:
    """That peer's time over ours, in a list of one, or of none where the peer did not run."""
    if (threads, peer) not in by_who or (threads, "gatedcells") not in by_who:
        return []
    return [float(by_who[threads, peer]["p50_ms"]) / float(by_who[threads, "gatedcells"]["p50_ms"])]


def _cells(op: str, mode: str) -> str:
    source, about, times = _times(op, mode)
    peers = PEERS if mode != "training" else PEERS[:1]
    columns = ["T, B, I, H"]
    for threads in ("1", "2"):
        columns += [f"ms, {threads} thread{'s' * (threads != '1')}", "of peak", *peers]
    lines = []
    for shape, by_who in times.items():
        cells = [", ".join(shape)]
        for threads in ("1", "2"):
            ours = by_who[threads, "gatedcells"]
            cells += [f"{float(ours['p50_ms']):.3g}", f"{100 * float(ours['of_peak_gflops']):.0f}%"]
            cells += ["".join(f"{r:.2f}" for r in _ratios(by_who, threads, peer)) for peer in peers]
        lines.append(cells)
    return _table(columns, lines, source, about)


def _cells_in_short() -> str:
    lines = []
    for op in ("gru", "lstm"):
        for mode in ("inference", "training", "step"):
            source, about, times = _times(op, mode)
            cells = [f"{op.upper()} {mode}"]
            for threads in ("1", "2"):
                for peer in PEERS:
                    found = [r for by_who in times.values() for r in _ratios(by_who, threads, peer)]
                    cells.append(f"{geometric_mean(found):.2f} ({min(found):.2f})" if found else "")
            lines.append(cells)
    names = {"torch": "torch", "onnxruntime": "ONNX Runtime"}
    columns = ["", *(f"{names[peer]}, {n} thread{'s' * (n != '1')}" for n in ("1", "2") for peer in PEERS)]
    return _table(columns, lines, source, about)


def _bfloat16() -> str:
    lines = []
    for op in ("gru", "lstm"):
        for mode in ("inference", "training"):
            _, _, wide = _times(op, mode)
            source, about, times = _times(op, mode, "bfloat16")
            for shape, by_who in times.items():
                cells = [f"{op.upper()} {mode}, {', '.join(shape)}"]
                for threads in ("1", "2"):
                    ours = float(by_who[threads, "gatedcells"]["p50_ms"])
                    float32 = float(wide[shape][threads, "gatedcells"]["p50_ms"])
                    cells += [f"{ours:.3g}", f"{float32 / ours:.2f}"]
                    cells += [f"{r:.2f}" for r in _ratios(by_who, threads, "torch")]
                lines.append(cells)
    columns = ["T, B, I, H"]
    for threads in ("1 thread", "2 threads"):
        columns += [f"ms, {threads}", "float32", "torch's bfloat16"]
    return _table(columns, lines, source, about)


def _memory() -> str:
    source, rows = newest("memory")
    lines = [
        [f"{row['op'].upper()}, {row['who']}", row["peak_mb"], f"{float(row['p50_ms']):.0f}"] for row in rows
    ]
    shape = ", ".join(rows[0][key] for key in "TBIH")
    return _table([f"a training step of {shape}", "MB at the peak", "ms"], lines, source, rows[0])


def _forecast_speed() -> str:
    source, rows = newest("forecast-speed")
    ours = {row["cell"]: float(row["p50_ms"]) for row in rows if row["who"].endswith("cpu")}
    lines = [
        [f"{row['cell'].upper()}, {row['who']}", f"{float(row['p50_ms']) / 1e3:.2f}",
         f"{float(row['p50_ms']) / ours[row['cell']]:.2f}"]
        for row in rows
    ]  # fmt: skip
    return _table([f"{rows[0]['steps']} steps of training", "seconds", "over ours"], lines, source, rows[0])


def _converted() -> str:
    try:
        source, rows = newest("converted")
    except FileNotFoundError:
        return "Not measured yet: `python -m benchmarks.converted`."
    times = {(r["threads"], r["model"], r["mode"], r["who"]): float(r["p50_ms"]) for r in rows}
    threads = sorted({row["threads"] for row in rows})
    lines = []
    for model, mode in dict.fromkeys((row["model"], row["mode"]) for row in rows):
        cells = [f"{model}, {mode}"]
        for t in threads:
            theirs, ours = (times[t, model, mode, who] for who in ("torch", "gatedcells"))
            cells += [f"{theirs:.3g}", f"{ours:.3g}", f"{theirs / ours:.2f}"]
        lines.append(cells)
    columns = ["ms"]
    for t in threads:
        columns += [f"torch, {t} thread{'s' * (t != '1')}", "converted", "torch / converted"]
    return _table(columns, lines, source, rows[0])


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
    return _table(columns, lines, source, rows[0])


def _compile() -> str:
    source, rows = newest("compile-time")
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        table.setdefault((row["way"], row["op"]), {})[row["T"]] = f"{float(row['p50_ms']) / 1e3:.1f} s"
    steps = sorted({row["T"] for row in rows}, key=int)
    return _table(
        ["", *(f"T = {T}" for T in steps)],
        [[f"{op}, {way}", *(cells.get(T, "") for T in steps)] for (way, op), cells in table.items()],
        source,
        rows[0],
    )


def _overhead() -> str:
    source, rows = newest("triton-overhead")
    lines = [[row["what"], f"{1e3 * float(row['p50_ms']):.0f}"] for row in rows]
    shape = ", ".join(rows[0][key] for key in "TBIH")
    return _table([f"T, B, I, H = {shape}", "us on the host"], lines, source, rows[0])


def _ahead_of_time(name: str) -> str:
    source, rows = newest(name)
    lines: dict[str, list[str]] = {}
    for row in rows:
        if (row["target"], row["numbers"]) == ("sm_90", "half"):
            tiles = f"{row['rows']} rows" + ("" if row["kernel"] == "whole" else f" by {row['units']}")
            entry = f"{row['cell']}, {row['H']}, {row['kernel']}, {tiles}, {row['warps']} warps"
            found = [row["registers"], row["spilled_bytes"], f"{int(row['shared_memory']) / 1024:.0f}"]
            lines.setdefault(entry, []).extend(found)
    columns = ["cell, H up to, kernel, tile"]
    for direction in ("forward", "backward"):
        columns += [f"registers, {direction}", "bytes spilled", "KB shared"]
    return _table(columns, [[entry, *cells] for entry, cells in lines.items()], source, rows[0])


TABLES: dict[str, Callable[[], str]] = {
    "forecast": lambda: _forecast(long=False),
    "forecast-long": lambda: _forecast(long=True),
    "forecast-runs": _forecast_runs,
    "day-ahead": _day_ahead,
    "fleet": _fleet,
    "cells": _cells_in_short,
    **{
        f"cells-{op}-{mode}": partial(_cells, op, mode)
        for op in ("gru", "lstm")
        for mode in ("inference", "training", "step")
    },
    "bfloat16": _bfloat16,
    "memory": _memory,
    "forecast-speed": _forecast_speed,
    "converted": _converted,
    "streaming": _streaming,
    "compile-time": _compile,
    "triton-overhead": _overhead,
    "ahead-of-time": partial(_ahead_of_time, r"triton-3\.6\.0-ahead-of-time"),
    "ahead-of-time-twice": partial(_ahead_of_time, r"triton-3\.9\.0-ahead-of-time-twice"),
}


def main() -> None:
    """Make the tables of every page anew."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
