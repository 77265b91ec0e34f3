"""Rows with a birth certificate: what was measured, on what, with which versions, at which commit."""

from __future__ import annotations

import csv
import platform
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import gatedcells

RESULTS = Path(__file__).parent / "results"


def certificate() -> dict[str, Any]:
    """Columns that every row carries."""
    # rows that wait to be committed are not a change to what is measured
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    commit = _git("rev-parse", "--short=12", "HEAD")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit + ("+changes" if changed and commit != "unknown" else ""),
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "gatedcells": gatedcells.__version__,
    }


def device_name() -> str:
    """The GPU, or else the CPU with its number of cores and widest instructions."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    name = found.group(1).strip() if found else platform.processor() or platform.machine()
    cores = text.count("processor\t:") or "?"
    return f"{name}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}"


def append(name: str, rows: list[dict[str, Any]], head: dict[str, Any] | None = None) -> Path:
    """Append rows to ``results/<date>-<device>-<name>.csv``, each with the certificate's columns first: those
    of ``head``, a certificate from when the measuring began, or of now.

    Raises:
        ValueError: the file exists with other columns.
    """
    head = head or certificate()
    slug = re.sub(r"[^a-z0-9]+", "-", head["device"].lower()).strip("-")
    path = RESULTS / f"{head['date']}-{slug}-{name}.csv"
    path.parent.mkdir(exist_ok=True)
    columns = [*head, *rows[0]]
    new = not path.exists()
    if not new:
        with path.open(encoding="utf-8", newline="") as file:
            if next(csv.reader(file)) != columns:
                raise ValueError(f"{path} has other columns than {columns}")
    with path.open("a", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        if new:
            table.writeheader()
        table.writerows([head | row for row in rows])
    return path


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:  # as in many an image for GPUs
        return "unknown"
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"
