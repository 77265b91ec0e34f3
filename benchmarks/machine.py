"""What the machine at hand can do at most, measured: the roofline of the rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

_ROUNDS, _PAUSE_S = 15, 0.3  # a busy neighbour slows a machine down for longer than one round


class Peaks(NamedTuple):
    """The best of many tries over several seconds."""

    gflops: float  # of a float32 matrix product, 10^9 operations a second
    gb_per_s: float  # of reading a vector that fits the second-level cache, 10^9 bytes a second


def peaks(threads: int) -> Peaks:
    """Measure both on ``threads`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    n = 1024
    a, b = torch.randn(n, n), torch.randn(n, n)
    # 512 KB a thread: the weights of a small layer, read again at every step
    vector = torch.randn(threads * 131072)
    product = reading = math.inf
    for _ in range(_ROUNDS):
        product = min(product, _least(lambda: a @ b, 5))
        reading = min(reading, _least(vector.sum, 200))
        time.sleep(_PAUSE_S)
    torch.set_num_threads(before)
    return Peaks(2 * n**3 / product / 1e9, vector.numel() * 4 / reading / 1e9)


def _least(run: Callable[[], object], times: int) -> float:
    found: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)
