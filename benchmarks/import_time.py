"""``import gatedcells`` beside ``import torch``: ``python -m benchmarks.import_time``."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles


def main() -> None:
    """Time whole processes in turn, print the ratio and append rows."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # or --help would measure, and write rows

    def process(module: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    rivals = {module: lambda module=module: process(module) for module in ("gatedcells", "torch")}
    taken = interleaved(rivals, budget_s=120, least=15, most=15)
    rows = [{"import": module} | quantiles(seconds) for module, seconds in taken.items()]
    print(f"gatedcells / torch = {rows[0]['p50_ms'] / rows[1]['p50_ms']:.3f}")
    print(append("import-time", rows))


if __name__ == "__main__":
    main()
