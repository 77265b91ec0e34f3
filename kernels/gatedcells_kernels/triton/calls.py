"""From tensors to launches: what the GRU's and the LSTM's kernels share."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from gatedcells_kernels.flags import float32_on_cuda
from gatedcells_kernels.triton import launch
from gatedcells_kernels.triton.library import interprets
from gatedcells_kernels.triton.tf32 import rounded_to_tf32


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """The tensor, or None, in order in memory."""
    return None if tensor is None else tensor.contiguous()


def device(like: Tensor) -> launch.Device:
    """The device of a tensor."""
    return launch.device(like.device.index)


def direction(which: int, *pairs: Tensor | None) -> tuple[Tensor | None, ...]:
    """One direction's part of each tensor that holds both; of an empty tape the whole."""
    return tuple(
        pair if pair is None or (pair.dim() == 1 and not pair.numel()) else pair[which] for pair in pairs
    )


def stacked(found: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What both directions returned, as one tensor each; an empty tape stays one."""
    return tuple(
        pair[0] if pair[0].dim() == 1 and not pair[0].numel() else torch.stack(pair)
        for pair in zip(*found, strict=True)
    )


def both_projections(input: Tensor, weight_ih: Tensor, bias_ih: Tensor | None) -> Tensor:
    """``W x + b`` of both directions, ``[2, T, B, G]``, in one product."""
    T, B, I = input.shape
    rows = input.reshape(1, T * B, I).expand(2, -1, -1)
    weights = weight_ih.transpose(1, 2)
    no_bias = bias_ih is None
    found = torch.bmm(rows, weights) if no_bias else torch.baddbmm(bias_ih[:, None], rows, weights)
    return found.view(2, T, B, -1)


def as_lengths(lengths: Tensor | None) -> Tensor | None:
    """Lengths in the kernels' integers."""
    return None if lengths is None else lengths.to(torch.int32).contiguous()


def as_bytes(resets: Tensor | None) -> Tensor | None:
    """Booleans as the bytes that they are in memory."""
    return None if resets is None else resets.contiguous().view(torch.uint8)


def numbers(like: Tensor) -> str:
    """What a tensor's numbers are to the table: "half", "tf32" or "ieee"."""
    if like.dtype != torch.float32:
        return "half"
    return float32_on_cuda() if torch.version.hip is None else "ieee"


def numerics(like: Tensor) -> dict[str, Any]:
    """The constants of activations.py for tensors of this kind.

    float32 is multiplied as torch multiplies matrices: in tf32 if `torch.set_float32_matmul_precision` (or
    ``torch.backends.cuda.matmul``) allows it, which by default it does not.
    """
    kind = numbers(like)
    nvidia = not interprets() and torch.version.hip is None
    return {
        "PRECISION": "tf32" if kind == "tf32" else "ieee",
        "APPROXIMATE": nvidia and kind != "ieee",
        "INTERPRETED": interprets(),
    }


def _with_rounded_weights(given: dict[str, Any]) -> dict[str, Any]:
    """What is given, with the weights as our own products take them; a library rounds for itself."""
    if given["PRECISION"] != "tf32":
        return given
    names = [name for name in ("weight_hh", "weight_hr") if given.get(name) is not None]
    return given | {name: rounded_to_tf32(given[name]) for name in names}


def time_of(visit: int, given: dict[str, Any]) -> int:
    """The time that a walk visits as its ``visit``-th."""
    return given["T"] - 1 - visit if given["reverse"] else visit


def as_found(state: Tensor, given: dict[str, Any], visit: int = 0) -> Tensor:
    """A copy of a state ``[B, ...]``, or of its gradient, as the ``visit``-th step finds it: zeros in the
    rows that forget it."""
    if given["resets"] is None:
        return state.clone()
    t = time_of(visit, given)
    forgets = given["resets"][t] != 0
    if given["lengths"] is not None:
        forgets = forgets & (t < given["lengths"])
    return state.masked_fill(forgets[:, None], 0)


def unless_ended(new: Tensor, old: Tensor, t: int, given: dict[str, Any]) -> Tensor:
    """``new`` in the rows that have a step ``t``, ``old`` in the others."""
    if given["lengths"] is None:
        return new
    return torch.where((t < given["lengths"])[:, None], new, old)


def directions(given: dict[str, Any]) -> int:
    """How many directions the tensors hold, one after the other."""
    return len(given["weight_hh"]) if given["weight_hh"].dim() == 3 else 1


def run_whole(kernel: Any, plan: launch.Plan, given: dict[str, Any]) -> None:
    """Launch a kernel of which one program has all hidden units of its rows."""
    entry = plan.entry
    assert entry is not None
    tiles = {"UNITS": launch.padded(given["H"]), "ROWS": entry.rows}
    if "P" in given:
        tiles["OUTPUTS"] = launch.padded(given["P"])
    grid = (triton.cdiv(given["B"], entry.rows), directions(given))
    _launch(kernel, grid, **_with_rounded_weights(given), **tiles, num_warps=entry.warps, **_options())


def run_slices(kernel: Any, plan: launch.Plan, given: dict[str, Any], *, visits: int) -> None:
    """Launch a kernel that has the hidden units cut up: once, or (``steps``) once a visit."""
    entry = plan.entry
    assert entry is not None
    widest = max(given["H"], given.get("P", 0))
    grid = (triton.cdiv(widest, entry.units), triton.cdiv(given["B"], entry.rows), directions(given))
    meet = plan.kernel == "slices"
    # one a direction and tile of rows, from zero on; without a meeting nobody looks
    counters = given["weight_hh"].new_empty(grid[1] * grid[2], dtype=torch.int32)
    if meet:
        counters.zero_()
    options = _options()
    if meet and not interprets():
        options["launch_cooperative_grid"] = True
    given = _with_rounded_weights(given)
    spans = [(0, visits)] if meet else [(visit, visit + 1) for visit in range(visits)]
    for first, last in spans:
        _launch(
            kernel, grid, **given, counters=counters, first=first, last=last, UNITS=entry.units,
            ROWS=entry.rows, DEPTH=entry.depth, MEET=meet, num_warps=entry.warps, **options,
        )  # fmt: skip


def run_pointwise(kernel: Any, given: dict[str, Any], **more: Any) -> None:
    """Launch a kernel over the B x H numbers of a state."""
    names = set(kernel.arg_names)
    given = {name: value for name, value in (given | more).items() if name in names}
    grid = (triton.cdiv(given["B"] * given["H"], launch.POINTWISE),)
    _launch(kernel, grid, **given, SIZE=launch.POINTWISE, num_warps=4, **_options())


def _launch(kernel: Any, grid: tuple[int, ...], /, **arguments: Any) -> None:
    """Launch on the device of the tensors: Triton by itself takes torch's current one."""
    like = next(value for value in arguments.values() if isinstance(value, Tensor))
    with torch.cuda.device_of(like):  # of a CPU tensor, in the interpreter, nothing
        kernel[grid](**arguments)


def _options() -> dict[str, Any]:
    # stated, because a default is about to change in Triton; one stage: nothing here is a pipelined loop
    return {} if interprets() else {"num_stages": 1, "enable_fp_fusion": True}
