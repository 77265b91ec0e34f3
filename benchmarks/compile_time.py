"""How the time to compile grows with the number of steps T: ``python -m benchmarks.compile_time``.

Each time is that of a first call and its backward in a fresh process with an empty compiler cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.records import append
from benchmarks.timing import quantiles

WAYS = {
    "compile, forward and backward": (
        "layer = torch.compile(layer, fullgraph=True); layer(x)[0].sum().backward()"
    ),
    "compile of vmap over 4 inputs": (
        "torch.compile(lambda x: torch.vmap(lambda one: layer(one)[0])(x), fullgraph=True)"
        "(x.repeat(4, 1, 1, 1))"
    ),
    "export with free T and B": (
        "torch.export.export(layer.eval(), (x,), dynamic_shapes=({0: torch.export.Dim('T'), 1:"
        " torch.export.Dim('B')},))"
    ),
}
STEPS = {"compile of vmap over 4 inputs": (8, 32)}


def main() -> None:
    """Measure, print and append rows."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # or --help would measure, and write rows
    rows = []
    for way, code in WAYS.items():
        for cell in ("GRU", "LSTM"):
            for T in STEPS.get(way, (8, 128, 1024)):
                seconds = [_measure(cell, T, code) for _ in range(3)]
                row = {"way": way, "op": cell, "T": T} | quantiles(seconds)
                print(f"{way}, {cell}, T={T}: {row['p50_ms'] / 1e3:.1f} s")
                rows.append(row)
    print(append("compile-time", rows))


def _measure(cell: str, T: int, code: str) -> float:
    script = (
        "import time, torch, gatedcells\n"
        f"layer, x = gatedcells.{cell}(32, 64), torch.randn({T}, 8, 32)\n"
        "layer(x)\n"
        f"start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)\n"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_FX_GRAPH_CACHE": "0"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s in all")
