"""Our layers beside others: ``python -m benchmarks.run [--op gru] [--peer torch,onnxruntime] [--threads 2]``;
on a GPU ``--device cuda``, with the options of `benchmarks.gpu`.

The gate comes first: what is not as exact as torch is not timed. All peers of a case run in turn.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track

from benchmarks import gpu
from benchmarks.machine import peaks
from benchmarks.peers.modules import exact, run_gatedcells, run_torch
from benchmarks.records import append, certificate
from benchmarks.registry import DTYPES, MODES, OPS, Case, Run, Unsupported, cases
from benchmarks.table_rows import FLOAT32
from benchmarks.timing import interleaved, quantiles
from gatedcells.testing import assert_within_budget

PEERS = ("torch", "onnxruntime")


def main() -> None:
    """Gate, time, print and append rows."""
    if any(argument.partition("=")[0] == "--device" for argument in sys.argv):
        gpu.main()
        return
    parser = argparse.ArgumentParser(description=__doc__)
    for option, known in (("--op", OPS), ("--mode", MODES), ("--dtype", DTYPES), ("--peer", PEERS)):
        parser.add_argument(option, type=_some_of(known), default=known, help=f"of {','.join(known)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each case")
    parser.add_argument("--dry", action="store_true", help="print, but write no rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    makers: dict[str, Callable[[Case], Run]] = {"gatedcells": run_gatedcells}
    for peer in options.peer:
        makers[peer] = _peer(peer)
    chosen = cases(options.op, options.mode, options.dtype)
    if not chosen:
        parser.error("there are no such cases: steps are measured in float32 alone")
    head = certificate()
    console = Console()
    machine = peaks(options.threads)
    console.print(f"peaks: {machine.gflops:.0f} GFLOP/s, {machine.gb_per_s:.0f} GB/s (512 KB a thread)")
    ratios: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    path = None
    for case in track(chosen, console=console, description="cases"):
        runs = {name: run for name, make in makers.items() if (run := _made(make, case)) is not None}
        _gate(case, runs)
        if case.dtype == "bfloat16":  # beside which it is to be worth its digits
            runs[FLOAT32] = run_gatedcells(case._replace(dtype="float32"))
        calls = {name: run.call for name, run in runs.items()}
        # once around them all, as where a model serves: entering it takes a good part of a small step
        with torch.set_grad_enabled(case.mode == "training"):
            taken = interleaved(calls, budget_s=options.budget, pause=options.threads > 1)
        times = {name: quantiles(seconds) for name, seconds in taken.items()}
        ours = times["gatedcells"]["p50_ms"]
        others = [t["p50_ms"] for name, t in times.items() if not name.startswith("gatedcells")]
        if others:  # none where the one peer asked for does not do this case
            ratios[case.op, case.mode, case.dtype].append(min(others) / ours)
        console.print(
            f"{case}: {ours:.4g} ms"
            + (f", {min(others) / ours:.2f} x the fastest other;" if others else ", no other;")
            + "".join(f" {name} {t['p50_ms']:.4g}" for name, t in times.items() if name != "gatedcells"),
            highlight=False,
        )
        rows = []
        for name, run in runs.items():
            seconds = times[name]["p50_ms"] / 1e3
            read = case._replace(dtype="float32") if name == FLOAT32 else case
            gflops, gbs = read.operations() / seconds / 1e9, read.weight_bytes() / seconds / 1e9
            rows.append(
                case._asdict()
                | {"who": name, "backend": run.backend}
                | times[name]
                | {"gflops": round(gflops, 2), "of_peak_gflops": round(gflops / machine.gflops, 3),
                   "weights_gb_per_s": round(gbs, 2), "of_peak_gb_per_s": round(gbs / machine.gb_per_s, 3)}
            )  # fmt: skip
        if not options.dry:  # now: who stops this, or a later case that is wrong, leaves what was timed
            path = append("cells", rows, head)
    for kind, found in ratios.items():
        mean = math.exp(sum(map(math.log, found)) / len(found))
        console.print(f"{' '.join(kind)}: geometric mean {mean:.2f}, least {min(found):.2f}", highlight=False)
    if path is not None:
        console.print(path)


def _some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        if not set(given) <= set(known):
            raise argparse.ArgumentTypeError(f"must be of {','.join(known)}, got {text}")
        return given

    return names


def _peer(name: str) -> Callable[[Case], Run]:
    if name == "torch":
        return run_torch
    try:
        from benchmarks.peers.onnx_runtime import run_onnxruntime
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}; pip install -e '.[onnx]', or --peer torch alone") from error
    return run_onnxruntime


def _made(make: Callable[[Case], Run], case: Case) -> Run | None:
    try:
        return make(case)
    except Unsupported:
        return None


def _gate(case: Case, runs: dict[str, Run]) -> None:
    right, rival = exact(case), run_torch(case).numbers()
    # others are only shown to compute the same thing
    loose = 0.05 if case.dtype == "bfloat16" else 0.01
    for number, (actual, precise, other) in enumerate(
        zip(runs["gatedcells"].numbers(), right, rival, strict=True)
    ):
        assert_within_budget(actual, exact=precise, rival=other, name=f"{case}, number {number}")
    for name, run in runs.items():
        for actual, precise in zip(run.numbers(), right, strict=True):
            largest = max(1.0, float(precise.abs().max())) if case.dtype == "bfloat16" else 1.0
            torch.testing.assert_close(
                actual.double(), precise, rtol=loose, atol=loose * largest, msg=f"{case}: {name}"
            )


if __name__ == "__main__":
    main()
