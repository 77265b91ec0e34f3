"""Reading the rows in ``results/`` and laying them out as a table of Markdown."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from benchmarks.records import RESULTS

Row = dict[str, str]

FLOAT32 = "gatedcells float32"  # who: ours in float32, timed in turn with bfloat16


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


def devices(name: str) -> list[str]:
    """The devices that have rows called ``name``, as files call them."""
    found = (re.fullmatch(rf"\d{{4}}-\d\d-\d\d-(.+)-{name}", path.stem) for path in RESULTS.glob("*.csv"))
    return sorted({match[1] for match in found if match})


def table(columns: list[str], rows: list[list[str]], source: Path, about: Row) -> str:
    """Text is left aligned in the first column, numbers right in the others."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    device = f"{about['device']}; torch {about['torch']}; {about['date']}, commit {about['commit']}"
    return "\n".join([*lines, "", f"{device}; `benchmarks/results/{source.name}`."])
