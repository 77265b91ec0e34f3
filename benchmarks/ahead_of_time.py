"""Registers, spills and shared memory of every entry of the Triton kernels' table, without a GPU.

``python -m benchmarks.ahead_of_time [--twice]``; a test holds the table to what is recorded here.
"""

from __future__ import annotations

import argparse

import triton
from rich.progress import track

from benchmarks.records import append
from gatedcells_kernels.triton import ahead


def main() -> None:
    """Compile all of them and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--twice", action="store_true", help="the forms with two visits a step instead")
    twice = parser.parse_args().twice
    chosen = list(ahead.jobs(tuple(ahead.TARGETS), twice))
    rows = [
        found._asdict() for found in track(ahead.reports(chosen), total=len(chosen), description="compiling")
    ]
    print(append(f"triton-{triton.__version__}-ahead-of-time" + "-twice" * twice, rows))


if __name__ == "__main__":
    main()
