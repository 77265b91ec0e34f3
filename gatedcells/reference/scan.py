"""The same sequences as one loop in the graph: `torch.export` keeps the number of steps free.

The exported program holds torch's own ``scan`` operator around one step, so that it runs at any
``T`` and needs nothing of this library. Slower than the other routes when run eagerly, and not for
``torch.compile``: in torch 2.13 inductor gets gradients of what the step closes over wrong.
"""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from gatedcells.reference import gru, lstm
from gatedcells.reference.time import keep_beyond_length
from gatedcells.reference.variants import PLAIN, Variant

States = tuple[Tensor, ...]

# Measured on 2.8 to 2.13: before 2.13 the gradient of torch's scan is wrong by as much as its size, and
# up to 2.11 the compiler claims to be exporting whenever it traces. There an exported program holds this
# library's operator instead, with T as free and the right gradient.
AVAILABLE = TorchVersion(torch.__version__) >= TorchVersion("2.13")


def _scan(combine: Any, initial: States, over_time: Any, fixed: Any, closed: bool, reverse: bool) -> Any:
    # private homes in every torch up to 2.15, hence the late import
    from torch._higher_order_ops.scan import scan, scan_op

    if closed or torch.compiler.is_dynamo_compiling():
        return scan(lambda *now: combine(*now, fixed), initial, over_time, dim=0, reverse=reverse)
    # All that a step reads is known: torch's compiler, which `scan` has look for it, takes most of an export.
    states, read = len(initial), len(initial) + len(over_time)

    def flat(*tensors: Tensor) -> list[Tensor]:
        new, shown = combine(tensors[:states], tensors[states:read], tensors[read:])
        return [*new, shown]

    visited = [part.flip(0) for part in over_time] if reverse else list(over_time)
    *last, shown = scan_op(flat, list(initial), visited, tuple(fixed))
    return last, shown.flip(0) if reverse else shown


def scan_states(
    step: Callable[..., States],
    over_time: Sequence[Tensor],
    state: States,
    fixed: Sequence[Tensor | None] = (),
    *,
    closed: bool = False,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, States]:
    """Any step over time as one scan.

    Args:
        step: from what a step reads, the states before it, and ``*fixed``, to the states after it, each
            ``[B, ...]``.
        over_time: what the steps read, each ``[T, B, ...]``.
        state: before the first step.
        fixed: what every step reads: weights.
        closed: whether the step closes over tensors besides.
        lengths, resets, reverse: as in `gatedcells.reference.gru.sequence`.

    Returns:
        the first state after each step ``[T, B, ...]``, and all states after the last step visited.
    """
    times = torch.arange(over_time[0].shape[0], device=over_time[0].device)
    forgets = () if resets is None else (resets,)
    count = len(over_time)
    given = [*fixed, lengths]

    def combine(state: States, now: Sequence[Tensor], held: Sequence[Tensor]) -> tuple[States, Tensor]:
        t, *forgotten = now[count:]
        parts = iter(held)
        *constants, ends = [None if one is None else next(parts) for one in given]
        found = tuple(part.masked_fill(forgotten[0][:, None], 0) if forgotten else part for part in state)
        new = step(now[:count], found, *constants)
        # scan forbids that what goes on shares memory with what came or with the outputs
        kept = tuple(keep_beyond_length(t, ends, n, o).clone() for n, o in zip(new, state, strict=True))
        return kept, kept[0].clone()

    held = [one for one in given if one is not None]
    last, states = _scan(combine, state, (*over_time, times, *forgets), held, closed, reverse)
    return states, tuple(last)


def scan_gru(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    reset_after: bool = True,
    variant: Variant = PLAIN,
) -> tuple[Tensor, Tensor]:
    """`gatedcells.reference.gru.unroll` as one scan; the same arguments and results."""

    def step(now: Sequence[Tensor], state: States, weight: Tensor, bias: Tensor | None, *held: Any) -> States:
        x_projection, *masks = now
        here = variant.holding(held).at(masks)
        found = gru.step(x_projection, state[0], weight, bias, reset_after=reset_after, variant=here)
        return (found.hidden,)

    x_projection = gru.project_input(input, weight_ih, bias_ih, variant)
    states, last = scan_states(
        step, (x_projection, *variant.over_time()), (hidden,), (weight_hh, bias_hh, *variant.held()),
        closed=variant.edit is not None, lengths=lengths, resets=resets, reverse=reverse,
    )  # fmt: skip
    return states, last[0]


def scan_lstm(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    variant: Variant = PLAIN,
) -> tuple[Tensor, Tensor, Tensor]:
    """`gatedcells.reference.lstm.unroll` as one scan; the same arguments and results."""

    def step(
        now: Sequence[Tensor],
        state: States,
        weight: Tensor,
        bias: Tensor | None,
        narrow: Tensor | None,
        *held: Any,
    ) -> States:
        x_projection, *masks = now
        here = variant.holding(held).at(masks)
        found = lstm.step(x_projection, state[0], state[1], weight, bias, narrow, variant=here)
        return found.hidden, found.cell

    x_projection = lstm.project_input(input, weight_ih, bias_ih, variant)
    fixed = weight_hh, bias_hh, weight_hr, *variant.held()
    states, last = scan_states(
        step, (x_projection, *variant.over_time()), (hidden, cell), fixed,
        closed=variant.edit is not None, lengths=lengths, resets=resets, reverse=reverse,
    )  # fmt: skip
    return states, last[0], last[1]
