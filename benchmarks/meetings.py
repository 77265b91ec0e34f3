"""What a meeting of programs and a launch cost on this GPU: ``python -m benchmarks.meetings``.

The two constants that decide between the kernels, and the first thing to measure on a new device. Each time
is the slope between two numbers of meetings, or of launches, so that what happens once does not count.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import triton
import triton.language as tl

from benchmarks.records import append
from gatedcells_kernels.triton.meeting import arrive, wait_for

PROGRAMS = (2, 8, 32, 64, 128)
FEW, MANY = 200, 2200


@triton.jit(do_not_specialize=["times"])
def _meet(counter, times):
    turn = 0
    while turn < times:
        wait_for(counter, turn * tl.num_programs(0))
        arrive(counter)
        turn += 1


@triton.jit
def _nothing(counter):
    tl.store(counter, 0)


def main() -> None:
    """Measure and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()  # or --help would measure, and write rows
    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    device = torch.cuda.get_device_properties(0)
    rows: list[dict[str, Any]] = []
    for programs in (p for p in PROGRAMS if p <= device.multi_processor_count):
        rows.append({"what": "meeting", "programs": programs, "us": round(_slope(meetings, programs), 3)})
    rows.append({"what": "launch", "programs": 1, "us": round(_slope(launches, 1), 3)})
    for row in rows:
        print(row)
    print(append("meetings", rows))


def meetings(programs: int, times: int) -> None:
    """So many programs meet so many times, in one launch."""
    counter = torch.zeros(1, dtype=torch.int32, device="cuda")
    _meet[(programs,)](counter, times, num_warps=4, launch_cooperative_grid=True)


def launches(_: int, times: int) -> None:
    """So many launches of a kernel that does nothing."""
    counter = torch.zeros(1, dtype=torch.int32, device="cuda")
    for _ in range(times):
        _nothing[(1,)](counter)


def _slope(run: Any, programs: int) -> float:
    least = {}
    for times in (FEW, MANY):
        run(programs, times)
        found = []
        for _ in range(10):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            run(programs, times)
            last.record()
            torch.cuda.synchronize()
            found.append(first.elapsed_time(last) * 1e3)
        least[times] = min(found)
    return (least[MANY] - least[FEW]) / (MANY - FEW)


if __name__ == "__main__":
    main()
