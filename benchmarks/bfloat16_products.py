"""Products that a backward pass in bfloat16 ends with: ``python -m benchmarks.bfloat16_products``.

``d^T x`` gives a weight's gradient, ``d w`` the input's. Each by torch in float32, by torch in bfloat16, and
in bfloat16 some rows at a time in float32, as `gatedcells._autograd.rules` does where the CPU has no
instruction for bfloat16. As on an older CPU: ``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles
from gatedcells._autograd import rules

# rows (steps times batch), gates times hidden units, features
SHAPES = ((23040, 768, 256), (23040, 768, 64), (2880, 384, 128), (5760, 2048, 512), (256, 4096, 1024))
PRODUCTS = ("d^T x", "d w")


def main() -> None:
    """Check, time and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for n, G, K in SHAPES:
        for product in PRODUCTS:
            ways = _ways(product, torch.randn(n, G), torch.randn(n, K), torch.randn(G, K))
            _same(ways)
            for way, seconds in interleaved(ways, budget_s=4, pause=options.threads > 1).items():
                case = {"product": product, "rows": n, "G": G, "K": K, "way": way}
                rows.append(case | quantiles(seconds))
                print(rows[-1])
    print(append("bfloat16-products", rows))


def _ways(product: str, d: Tensor, x: Tensor, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    low = [t.bfloat16() for t in (d, x, weight)]
    # the same numbers in float32
    d, x, weight = (t.float() for t in low)

    def ours(fast: bool) -> Tensor:
        with patch.object(rules, "_BFLOAT16_IS_FAST", fast):
            if product == "d w":
                return rules.product(low[0], low[2])
            return rules.weight_gradient(low[0], low[1])

    def in_float32() -> Tensor:
        return rules.product(d, weight) if product == "d w" else rules.weight_gradient(d, x)

    return {
        "float32": in_float32,
        "torch's bfloat16": lambda: ours(True),
        "widened": lambda: ours(False),
    }


def _same(ways: dict[str, Callable[[], Tensor]]) -> None:
    """Before anything is timed."""
    exact = ways["float32"]()
    for way in ("torch's bfloat16", "widened"):
        assert (ways[way]().float() - exact).norm() <= 2**-7 * exact.norm()


if __name__ == "__main__":
    main()
