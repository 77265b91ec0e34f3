"""Timing that survives a noisy machine: warm-up, rivals in turn, quantiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p20, p50 and p80 in milliseconds, and how many times were taken."""
    cuts = statistics.quantiles(seconds, n=10, method="inclusive")
    return {
        "p20_ms": round(cuts[1] * 1e3, 4),
        "p50_ms": round(cuts[4] * 1e3, 4),
        "p80_ms": round(cuts[7] * 1e3, 4),
        "times": len(seconds),
    }


TURN_S = 0.02
PAUSE_S = 0.1


def interleaved(
    rivals: dict[str, Callable[[], object]],
    *,
    budget_s: float = 4.0,
    least: int = 7,
    most: int = 200,
    pause: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each rival's calls, in turns (A B A B ...) so that a drift of the machine meets all alike.

    A turn lasts `TURN_S` or one call, whichever is longer. Of a turn of many calls the first quarter is not
    counted: there the caches hold the rival's weights. With several threads there is a pause before a turn,
    because a rival's idle threads go on spinning for a while, on a core that the next one needs.

    Args:
        rivals: what to time, by name.
        budget_s: stop after this long, once every rival had ``least`` turns.
        least, most: bounds on the turns.
        pause: whether to wait `PAUSE_S` before a turn.
    """
    for run in rivals.values():
        run()
        run()
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    began = time.perf_counter()
    for turn in range(most):
        if turn >= least and time.perf_counter() - began > budget_s:
            break
        for name, run in rivals.items():
            if pause:
                time.sleep(PAUSE_S)
                run()
            taken[name] += _turn(run)
    return taken


def _turn(run: Callable[[], object]) -> list[float]:
    seconds: list[float] = []
    until = time.perf_counter() + TURN_S
    while (start := time.perf_counter()) < until:
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[len(seconds) // 4 :]
