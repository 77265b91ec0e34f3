"""The tables of README and docs, made from the rows in ``results/``: ``python -m benchmarks.tables``.

A page marks the place of a table with a comment, ``rows: NAME``, and the end of it with ``end of rows``.
Each table is made from the newest file of its kind; of the cells there is one for each machine.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import geometric_mean

from benchmarks.forecast_tables import FORECAST
from benchmarks.table_rows import FLOAT32, Row, devices, newest, table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACE = re.compile(r"(<!-- rows: ([\w-]+) -->\n).*?(<!-- end of rows -->)", re.DOTALL)


def fill(text: str) -> str:
    """``text`` with every marked table made anew."""
    return PLACE.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", text)


Shape = tuple[str, ...]
PEERS = ("torch", "onnxruntime")


def _on_each_cpu(make: Callable[[str], str], name: str = "cells") -> str:
    """A table for each device that has rows called ``name``."""
    return "\n\n".join(make(device) for device in devices(name))


def _times(
    device: str, op: str, mode: str, dtype: str = "float32"
) -> tuple[Path, Row, dict[Shape, dict[tuple[str, str], Row]]]:
    """Rows of one op, mode and dtype: by shape, then by threads and who."""
    source, rows = newest(f"{device}-cells", op=op, mode=mode)
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


def _cells(op: str, mode: str, device: str) -> str:
    source, about, times = _times(device, op, mode)
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
    return table(columns, lines, source, about)


def _cells_in_short(device: str) -> str:
    lines = []
    for op in ("gru", "lstm"):
        for mode in ("inference", "training", "step"):
            source, about, times = _times(device, op, mode)
            cells = [f"{op.upper()} {mode}"]
            for threads in ("1", "2"):
                for peer in PEERS:
                    found = [r for by_who in times.values() for r in _ratios(by_who, threads, peer)]
                    cells.append(f"{geometric_mean(found):.2f} ({min(found):.2f})" if found else "")
            lines.append(cells)
    names = {"torch": "torch", "onnxruntime": "ONNX Runtime"}
    columns = ["", *(f"{names[peer]}, {n} thread{'s' * (n != '1')}" for n in ("1", "2") for peer in PEERS)]
    return table(columns, lines, source, about)


def _bfloat16(device: str) -> str:
    lines = []
    for op in ("gru", "lstm"):
        for mode in ("inference", "training"):
            _, _, wide = _times(device, op, mode)
            source, about, times = _times(device, op, mode, "bfloat16")
            for shape, by_who in times.items():
                cells = [f"{op.upper()} {mode}, {', '.join(shape)}"]
                for threads in ("1", "2"):
                    ours = float(by_who[threads, "gatedcells"]["p50_ms"])
                    # older rows have float32 only minutes away
                    beside = by_who.get((threads, FLOAT32)) or wide[shape][threads, "gatedcells"]
                    float32 = float(beside["p50_ms"])
                    cells += [f"{ours:.3g}", f"{float32 / ours:.2f}"]
                    cells += [f"{r:.2f}" for r in _ratios(by_who, threads, "torch")]
                lines.append(cells)
    columns = ["T, B, I, H"]
    for threads in ("1 thread", "2 threads"):
        columns += [f"ms, {threads}", "float32", "torch's bfloat16"]
    return table(columns, lines, source, about)


def _weight_gradients(name: str) -> str:
    source, rows = newest(name)
    times: dict[Shape, dict[tuple[str, str], float]] = {}
    for row in rows:
        shape = (row["op"].upper(), *(row[key] for key in "TBIH"))
        times.setdefault(shape, {})[row["threads"], row["way"]] = float(row["p50_ms"])
    lines = []
    for (op, *shape), by_way in times.items():
        cells = [f"{op}, {', '.join(shape)}"]
        for threads in ("1", "2"):
            ours = by_way[threads, "own"]
            others = [by_way[threads, way] / ours for way in ("chosen", "d^T x", "(x^T d)^T")]
            cells += [f"{ours:.3g}", *(f"{ratio:.2f}" for ratio in others)]
        lines.append(cells)
    columns = ["T, B, I, H"]
    for threads in ("1 thread", "2 threads"):
        columns += [f"ms, {threads}", "torch's", "always d^T x", "always (x^T d)^T"]
    return table(columns, lines, source, rows[0])


def _bfloat16_products(device: str) -> str:
    source, rows = newest(f"{device}-bfloat16-products")
    times: dict[Shape, dict[tuple[str, str], float]] = {}
    for row in rows:
        shape = (row["product"], *(row[key] for key in ("rows", "G", "K")))
        times.setdefault(shape, {})[row["threads"], row["way"]] = float(row["p50_ms"])
    counts = sorted({row["threads"] for row in rows})
    lines = []
    for (product, *shape), by_way in times.items():
        cells = [f"{product}, {', '.join(shape)}"]
        for threads in counts:
            ours = by_way[threads, "widened"]
            others = [by_way[threads, way] / ours for way in ("float32", "torch's bfloat16")]
            cells += [f"{ours:.3g}", *(f"{ratio:.2f}" for ratio in others)]
        lines.append(cells)
    columns = ["product, rows, G, K"]
    for threads in counts:
        name = f"{threads} thread{'s' * (threads != '1')}"
        columns += [f"ms, widened, {name}", "float32", "torch's bfloat16"]
    return table(columns, lines, source, rows[0])


def _memory() -> str:
    source, rows = newest("memory")
    lines = [
        [f"{row['op'].upper()}, {row['who']}", row["peak_mb"], row["after_mb"], f"{float(row['p50_ms']):.0f}"]
        for row in rows
    ]
    shape = ", ".join(rows[0][key] for key in "TBIH")
    return table(
        [f"a training step of {shape}", "MB at the peak", "MB after it", "ms"], lines, source, rows[0]
    )


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
    return table(columns, lines, source, rows[0])


def _compile() -> str:
    source, rows = newest("compile-time")
    times: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        times.setdefault((row["way"], row["op"]), {})[row["T"]] = f"{float(row['p50_ms']) / 1e3:.1f} s"
    steps = sorted({row["T"] for row in rows}, key=int)
    return table(
        ["", *(f"T = {T}" for T in steps)],
        [[f"{op}, {way}", *(cells.get(T, "") for T in steps)] for (way, op), cells in times.items()],
        source,
        rows[0],
    )


def _overhead() -> str:
    source, rows = newest("triton-overhead")
    lines = [[row["what"], f"{1e3 * float(row['p50_ms']):.0f}"] for row in rows]
    shape = ", ".join(rows[0][key] for key in "TBIH")
    return table([f"T, B, I, H = {shape}", "us on the host"], lines, source, rows[0])


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
    return table(columns, [[entry, *cells] for entry, cells in lines.items()], source, rows[0])


TABLES: dict[str, Callable[[], str]] = {
    **FORECAST,
    "cells": partial(_on_each_cpu, _cells_in_short),
    **{
        f"cells-{op}-{mode}": partial(_on_each_cpu, partial(_cells, op, mode))
        for op in ("gru", "lstm")
        for mode in ("inference", "training", "step")
    },
    "bfloat16": partial(_on_each_cpu, _bfloat16),
    "bfloat16-products": partial(_on_each_cpu, _bfloat16_products, "bfloat16-products"),
    **{name: partial(_weight_gradients, name) for name in ("weight-gradients", "weight-gradients-bfloat16")},
    "memory": _memory,
    "converted": _converted,
    "compile-time": _compile,
    "triton-overhead": _overhead,
    "ahead-of-time": partial(_ahead_of_time, r"triton-3\.6\.0-ahead-of-time"),
    "ahead-of-time-twice": partial(_ahead_of_time, r"triton-3\.9\.0-ahead-of-time-twice"),
}


def main() -> None:
    """Make the tables of every page anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # or --help would write
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
