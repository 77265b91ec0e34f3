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


def _scan(combine: Any, initial: Any, over_time: Any, reverse: bool) -> Any:
    # a private home in every torch up to 2.13, hence the late import
    from torch._higher_order_ops.scan import scan

    return scan(combine, initial, over_time, dim=0, reverse=reverse)


def scan_states(
    step: Callable[[Sequence[Tensor], States], States],
    over_time: Sequence[Tensor],
    state: States,
    *,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, States]:
    """Any step over time as one scan.

    Args:
        step: from what a step reads and the states before it to the states after it, each ``[B, ...]``.
        over_time: what the steps read, each ``[T, B, ...]``.
        state: before the first step.
        lengths, resets, reverse: as in `gatedcells.reference.gru.sequence`.

    Returns:
        the first state after each step ``[T, B, ...]``, and all states after the last step visited.
    """
    times = torch.arange(over_time[0].shape[0], device=over_time[0].device)
    forgets = () if resets is None else (resets,)
    count = len(over_time)

    def combine(state: States, now: tuple[Tensor, ...]) -> tuple[States, Tensor]:
        t, *forgotten = now[count:]
        found = tuple(part.masked_fill(forgotten[0][:, None], 0) if forgotten else part for part in state)
        new = step(now[:count], found)
        # scan forbids that what goes on shares memory with what came or with the outputs
        kept = tuple(keep_beyond_length(t, lengths, n, o).clone() for n, o in zip(new, state, strict=True))
        return kept, kept[0].clone()

    last, states = _scan(combine, state, (*over_time, times, *forgets), reverse)
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

    def step(now: Sequence[Tensor], state: States) -> States:
        x_projection, *masks = now
        found = gru.step(
            x_projection, state[0], weight_hh, bias_hh, reset_after=reset_after, variant=variant.at(masks)
        )
        return (found.hidden,)

    x_projection = gru.project_input(input, weight_ih, bias_ih, variant)
    over_time = (x_projection, *variant.over_time())
    states, last = scan_states(step, over_time, (hidden,), lengths=lengths, resets=resets, reverse=reverse)
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

    def step(now: Sequence[Tensor], state: States) -> States:
        x_projection, *masks = now
        found = lstm.step(
            x_projection, state[0], state[1], weight_hh, bias_hh, weight_hr, variant=variant.at(masks)
        )
        return found.hidden, found.cell

    x_projection = lstm.project_input(input, weight_ih, bias_ih, variant)
    over_time = (x_projection, *variant.over_time())
    states, last = scan_states(
        step, over_time, (hidden, cell), lengths=lengths, resets=resets, reverse=reverse
    )
    return states, last[0], last[1]
