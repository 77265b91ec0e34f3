"""Our layers on a GPU beside cuDNN: ``python -m benchmarks.run --device cuda [--op gru] [--quick]``.

Called by `benchmarks.run`. The gate comes first; ours and torch's run in turn, eagerly and as a CUDA graph;
the product of the input with its weights is part of what is timed. A case's rows are written before the next
case; what is not as exact as torch is said and not timed. ``--processes 12`` first compiles the kernels of
all cases in so many processes. ``--device interpreter`` runs the program itself, at a toy size and without a
GPU, and writes nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

import gatedcells
from benchmarks import records
from benchmarks.peers.fused import PEERS
from benchmarks.registry import Unsupported
from benchmarks.timing import quantiles
from gatedcells.testing import assert_within_budget

PRECISIONS = ("bfloat16", "float16", "tf32", "float32")
GRID = {"T": (16, 128, 512), "B": (1, 32, 64, 128, 1024), "H": (64, 128, 256, 512, 1024, 2048)}
QUICK = {"T": (128,), "B": (1, 64, 1024), "H": (128, 256, 512, 1024)}
# torch's products on the CPU are not in tf32, so a toy has none either
TOY = {"T": (3,), "B": (2,), "H": (20,)}
# layers and directions that the whole grid's middle is also measured with
STACKS = ((1, False), (2, False), (1, True))


class GPUCase(NamedTuple):
    """One thing to time."""

    op: str
    mode: str  # "inference" or "training"
    T: int
    B: int
    H: int  # the input has as many features
    layers: int
    bidirectional: bool
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.precision in ("tf32", "float32") else getattr(torch, self.precision)

    def operations(self) -> int:
        """Floating-point operations of the matrix products; a backward pass has twice the forward's."""
        directions, gates = 1 + self.bidirectional, 3 if self.op == "gru" else 4
        widths = [self.H] + [directions * self.H] * (self.layers - 1)
        forward = (
            sum(2 * self.T * self.B * gates * self.H * (width + self.H) for width in widths) * directions
        )
        return forward * (3 if self.mode == "training" else 1)

    def modules(self, device: str) -> tuple[nn.Module, nn.Module]:
        """Ours and torch's, with the same weights."""
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "num_layers": self.layers, "bidirectional": self.bidirectional, "dtype": self.dtype,
            "device": device,
        }  # fmt: skip
        theirs = getattr(nn, self.op.upper())(self.H, self.H, **options)
        ours = getattr(gatedcells, self.op.upper())(self.H, self.H, backend="triton", **options)
        ours.load_state_dict(theirs.state_dict())
        return ours, theirs

    def input(self, device: str) -> Tensor:
        """``[T, B, H]``, random: zeros would run faster."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.T, self.B, self.H, generator=generator).to(device, self.dtype)


def cases(
    ops: list[str], modes: list[str], precisions: tuple[str, ...], grid: dict[str, tuple[int, ...]]
) -> Iterator[GPUCase]:
    """The grid; two layers and two directions at its middle."""
    for op in ops:
        for mode in modes:
            for precision in precisions:
                for T in grid["T"]:
                    for B in grid["B"]:
                        for H in grid["H"]:
                            for layers, both in STACKS if (T, B) == (128, 64) else STACKS[:1]:
                                yield GPUCase(op, mode, T, B, H, layers, both, precision)


def main(arguments: list[str] | None = None) -> None:
    """Gate, time, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "interpreter"), required=True)
    parser.add_argument("--op", default="gru,lstm")
    parser.add_argument("--mode", default="inference,training")
    parser.add_argument("--peer", default="", help="beside torch: torchrl, flashrnn")
    parser.add_argument("--quick", action="store_true", help="a small part of the grid")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after so long")
    parser.add_argument("--processes", type=int, default=0, help="that compile first; default: none")
    parser.add_argument("--out", type=Path, help="folder for the rows; default: benchmarks/results")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    if options.out:
        records.RESULTS = options.out
    toy = options.device == "interpreter"
    device = "cpu" if toy else "cuda"
    console, began = Console(), time.monotonic()
    ratios: dict[str, list[float]] = defaultdict(list)
    grid = TOY if toy else QUICK if options.quick else GRID
    precisions = tuple(p for p in PRECISIONS if not (toy and p == "tf32"))
    chosen = list(cases(options.op.split(","), options.mode.split(","), precisions, grid))
    head = None if toy else records.certificate()
    if options.processes:
        compile_first(chosen, device, options.processes)
        console.print(f"compiled after {time.monotonic() - began:.0f} s")
    wrong, path = 0, None
    for case in chosen:
        if time.monotonic() - began > options.seconds:
            console.print("out of time; the rest of the grid was not measured")
            break
        try:
            found = measure(case, device, [name for name in options.peer.split(",") if name])
        except AssertionError as error:
            wrong += 1
            console.print(f"{case}: NOT TIMED, {error}", highlight=False)
            continue
        if head is not None:
            path = records.append("gpu", found, head)
        p50 = {row["who"]: row["p50_ms"] for row in found}
        ratio = p50["torch"] / p50["gatedcells"]
        ratios[f"{case.op} {case.mode} {case.precision}"].append(ratio)
        console.print(f"{case}: {ratio:.2f} x torch; {p50}", highlight=False)
    for kind, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        console.print(f"{kind}: geometric mean {mean:.2f}, least {min(values):.2f}", highlight=False)
    if path is not None:
        console.print(path)
    if wrong:
        sys.exit(f"not as exact as torch and not timed: {wrong} cases")


def compile_first(chosen: list[GPUCase], device: str, processes: int) -> None:
    """Run each case once over two steps, which takes the kernels of any more, in several processes: what they
    compile lies in Triton's cache for this one."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_run_once, chosen, [device] * len(chosen)))


def _run_once(case: GPUCase, device: str) -> None:
    few = case._replace(T=2)
    with multiplied_as(case):
        numbers(few, few.modules(device)[0], few.input(device))


@contextmanager
def multiplied_as(case: GPUCase) -> Generator[None]:
    """Within the block float32 is multiplied as the case says."""
    tf32 = case.precision == "tf32"
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def measure(case: GPUCase, device: str, peers: list[str]) -> list[dict[str, Any]]:
    """Rows of one case, or AssertionError; of a peer that does not do it none."""
    with multiplied_as(case):
        return _measure(case, device, peers)


def _measure(case: GPUCase, device: str, peers: list[str]) -> list[dict[str, Any]]:
    ours, theirs = case.modules(device)
    x = case.input(device)
    gate(case, ours, theirs, x)
    plan = gatedcells.explain_backend(ours, x).splitlines()[-1].strip()
    calls: dict[str, Callable[[], object]] = {
        "gatedcells": call(case, ours, x), "torch": call(case, theirs, x)
    }  # fmt: skip
    for peer in peers:
        try:
            calls[peer] = beside(case, peer, theirs, x)
        except Unsupported:
            continue
    peak = {name: memory(run, device) for name, run in calls.items()}
    if device == "cuda":
        calls |= {f"{name}, graph": graphed(calls[name]) for name in ("gatedcells", "torch")}
    taken = in_turns(calls, device)
    rows: list[dict[str, Any]] = []
    for name, seconds in taken.items():
        times = quantiles(seconds)
        rows.append(
            case._asdict()
            | {"who": name, "kernel": plan if name.startswith("gatedcells") else ""}
            | times
            | {"us_per_step": round(times["p50_ms"] * 1e3 / case.T, 3),
               "tflops": round(case.operations() / times["p50_ms"] / 1e9, 3),
               "peak_mb": round(peak[name.removesuffix(", graph")] / 1e6, 1)}
        )  # fmt: skip
    return rows


def gate(case: GPUCase, ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Raise unless ours is as exact as torch's, values and gradients, by float64."""
    exact = type(theirs)(case.H, case.H, case.layers, bidirectional=case.bidirectional)
    exact = exact.to(x.device, torch.float64)
    exact.load_state_dict({name: value.double() for name, value in theirs.state_dict().items()})
    results = [
        numbers(case, module, value) for module, value in ((ours, x), (theirs, x), (exact, x.double()))
    ]
    for number, (actual, rival, right) in enumerate(zip(*results, strict=True)):
        assert_within_budget(actual, exact=right, rival=rival, name=f"{case}, number {number}")


def numbers(case: GPUCase, module: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and for training all weights' gradients as one vector."""
    if case.mode == "inference":
        with torch.no_grad():
            return [module(x)[0]]
    module.zero_grad()
    output = module(x)[0]
    output.backward(torch.ones_like(output) / len(output))
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return [output.detach(), torch.cat(gradients)]


def call(case: GPUCase, module: nn.Module, x: Tensor) -> Callable[[], object]:
    """One pass."""
    if case.mode == "training":
        gradient = torch.ones_like(module(x)[0])

        def train() -> object:
            for parameter in module.parameters():
                parameter.grad = None
            return torch.autograd.grad(module(x)[0], list(module.parameters()), gradient)

        return train

    def infer() -> object:
        with torch.no_grad():
            return module(x)[0]

    return infer


def beside(case: GPUCase, peer: str, theirs: nn.Module, x: Tensor) -> Callable[[], object]:
    """One pass of a peer's kernels, once they have been seen to compute the same thing."""
    run = PEERS[peer](theirs, x)
    with torch.no_grad():
        expected = theirs(x)[0]
        torch.testing.assert_close(run(), expected, rtol=0.05, atol=0.05, msg=f"{case}: {peer}")
    if case.mode == "inference":

        def infer() -> object:
            with torch.no_grad():
                return run()

        return infer
    gradient = torch.ones_like(expected)
    return lambda: torch.autograd.grad(run(), list(theirs.parameters()), gradient)


def memory(run: Callable[[], object], device: str) -> int:
    """Bytes at the peak of one pass, beyond what was held before."""
    if device != "cuda":
        return 0
    run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def graphed(run: Callable[[], object]) -> Callable[[], object]:
    """The pass captured once and replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def in_turns(calls: dict[str, Callable[[], object]], device: str, times: int = 30) -> dict[str, list[float]]:
    """Seconds of each call, A B A B ..., the second-level cache swept before each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    sweep = torch.empty(64 << 20, dtype=torch.int32, device=device) if device == "cuda" else None
    for turn in range(times + 3 if device == "cuda" else 2):
        for name, run in calls.items():
            seconds = _timed(run, sweep)
            if turn >= 3 or sweep is None:
                taken[name].append(seconds)
    return taken


def _timed(run: Callable[[], object], sweep: Tensor | None) -> float:
    if sweep is None:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    sweep.zero_()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3


if __name__ == "__main__":
    main()
