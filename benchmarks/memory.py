"""What a training step holds at its peak and after it, and takes: ``python -m benchmarks.memory``.

Ours with a tape, ours with ``recompute=True`` and torch's, each in a process of its own. Measured is the
process's resident memory over what it held before (Linux).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

import gatedcells
from benchmarks.records import append
from benchmarks.timing import quantiles

WHO = ("gatedcells", "gatedcells, recompute", "torch")
SHAPE = (360, 256, 64, 256)  # four times the forecaster's hours


def main() -> None:
    """Measure, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", nargs=2, metavar=("OP", "WHO"), help="one measurement in this process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(*_measure(*options.measure))
        return
    rows = []
    for op in ("gru", "lstm"):
        for who in WHO:
            command = [sys.executable, "-m", "benchmarks.memory", "--threads", str(options.threads)]
            done = subprocess.run(
                [*command, "--measure", op, who], capture_output=True, text=True, check=True
            )
            peak_mb, after_mb, *seconds = map(float, done.stdout.split())
            row = dict(zip("TBIH", SHAPE, strict=True)) | {"op": op, "who": who, "peak_mb": round(peak_mb)}
            rows.append(row | {"after_mb": round(after_mb)} | quantiles(seconds))
            print(f"{op}, {who}: {peak_mb:.0f} MB, then {after_mb:.0f} MB, {rows[-1]['p50_ms']:.0f} ms")
    print(append("memory", rows))


def _measure(op: str, who: str) -> list[float]:
    """Peak in MB of the first step, what is left of it after that step, and seconds of five more."""
    T, B, I, H = SHAPE
    torch.manual_seed(0)
    options = {"recompute": True} if who.endswith("recompute") else {}
    module = getattr(torch.nn if who == "torch" else gatedcells, op.upper())(I, H, **options)
    small = torch.randn(2, 2, I)
    module(small)[0].sum().backward()  # whatever is set up only once
    x, weights = torch.randn(T, B, I), torch.randn(T, B, H)

    def step() -> None:
        module.zero_grad()
        (module(x)[0] * weights).sum().backward()

    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step()
    peak, after = _status("VmHWM") - before, _status("VmRSS") - before
    seconds: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return [peak, after, *seconds]


def _status(key: str) -> float:
    """A line of the kernel's account of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
