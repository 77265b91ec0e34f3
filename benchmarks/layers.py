"""Our layers beside torch's on one direction of one layer: ``python -m benchmarks.layers [--threads N]``.

The gate comes first: a case whose outputs or gradients are not within the budget is not timed.
"""

from __future__ import annotations

import argparse

import torch

import gatedcells
from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles
from gatedcells.testing import assert_within_budget

SHAPES = [(90, 1, 5, 64), (33, 7, 13, 37), (90, 32, 64, 128), (96, 96, 60, 64), (90, 128, 128, 256)]


def main() -> None:
    """Gate, time, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    rows = []
    for cell in ("GRU", "LSTM"):
        for shape in SHAPES:
            rows += _case(cell, *shape)
    print(append("layers", rows))


def _case(cell: str, T: int, B: int, I: int, H: int) -> list[dict[str, object]]:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(I, H)
    ours = getattr(gatedcells, cell)(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I)
    _gate(ours, theirs, x)
    backend = gatedcells.explain_backend(ours, x).split("CHOSEN")[0].split()[-1]
    rows = []
    for mode, run in (("inference", _infer), ("training", _train)):
        rivals = {
            "gatedcells": lambda run=run: run(ours, x),
            "torch": lambda run=run: run(theirs, x),
        }
        taken = interleaved(rivals)
        ratio = quantiles(taken["torch"])["p50_ms"] / quantiles(taken["gatedcells"])["p50_ms"]
        print(f"{cell} {mode:<9} T={T} B={B} I={I} H={H}: torch / gatedcells = {ratio:.2f}")
        for name, seconds in taken.items():
            rows.append(
                {"op": cell, "mode": mode, "T": T, "B": B, "I": I, "H": H, "dtype": "float32",
                 "who": name, "backend": backend if name == "gatedcells" else "aten"}
                | quantiles(seconds)
            )  # fmt: skip
    return rows


def _infer(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return layer(x)[0]


def _train(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    layer.zero_grad()
    output = layer(x)[0]
    output.square().sum().backward()
    return output.detach()


def _gate(ours: torch.nn.Module, theirs: torch.nn.Module, x: torch.Tensor) -> None:
    exact = type(theirs)(theirs.input_size, theirs.hidden_size, dtype=torch.float64)
    exact.load_state_dict(theirs.state_dict())
    outputs = [_train(layer, x.to(layer.weight_hh_l0.dtype)) for layer in (ours, theirs, exact)]
    assert_within_budget(outputs[0], exact=outputs[2], rival=outputs[1], name="output")
    grads = [torch.cat([p.grad.flatten() for p in layer.parameters()]) for layer in (ours, theirs, exact)]
    assert_within_budget(grads[0], exact=grads[2], rival=grads[1], name="gradients")


if __name__ == "__main__":
    main()
