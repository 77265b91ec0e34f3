"""Registers, spills and shared memory of every entry of the Triton kernels' table, without a GPU.

``python -m benchmarks.ahead_of_time``; a test holds the table to what is recorded here.
"""

from __future__ import annotations

import triton
from rich.progress import track

from benchmarks.records import append
from gatedcells_kernels.triton import ahead


def main() -> None:
    """Compile all of them and append rows."""
    chosen = [job for twice in (False, True) for job in ahead.jobs(tuple(ahead.TARGETS), twice)]
    rows = [
        found._asdict() for found in track(ahead.reports(chosen), total=len(chosen), description="compiling")
    ]
    print(append(f"triton-{triton.__version__}-ahead-of-time", rows))


if __name__ == "__main__":
    main()
