"""The same sequences as one loop in the graph: `torch.export` keeps the number of steps free.

The exported program holds torch's own ``scan`` operator around one step, so that it runs at any
``T`` and needs nothing of this library. Slower than the other routes when run eagerly.
"""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.torch_version import TorchVersion

from gatedcells.reference import gru, lstm
from gatedcells.reference.time import keep_beyond_length

# Measured on 2.8 to 2.13: before 2.13 the gradient of torch's scan is wrong by as much as its size, and
# up to 2.11 the compiler claims to be exporting whenever it traces. There an exported program holds this
# library's operator instead, with T as free and the right gradient.
AVAILABLE = TorchVersion(torch.__version__) >= TorchVersion("2.13")


def _scan(combine: Any, initial: Any, over_time: Any, reverse: bool) -> Any:
    # a private home in every torch up to 2.13, hence the late import
    from torch._higher_order_ops.scan import scan

    return scan(combine, initial, over_time, dim=0, reverse=reverse)


def _over_time(x_projection: Tensor, resets: Tensor | None) -> tuple[Tensor, ...]:
    times = torch.arange(x_projection.shape[0], device=x_projection.device)
    return (x_projection, times) if resets is None else (x_projection, times, resets)


def _remembered(state: Tensor, forgets: list[Tensor]) -> Tensor:
    return state.masked_fill(forgets[0][:, None], 0) if forgets else state


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
) -> tuple[Tensor, Tensor]:
    """`gatedcells.reference.gru.unroll` as one scan; the same arguments and results."""

    def combine(state: Tensor, over_time: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x_projection, t, *forgets = over_time
        found = _remembered(state, forgets)
        now = gru.step(x_projection, found, weight_hh, bias_hh, reset_after=reset_after)
        new = keep_beyond_length(t, lengths, now.hidden, state)
        return new, new.clone()  # scan forbids that carry and output share memory

    x_projection = linear(input, weight_ih, bias_ih)
    over_time = _over_time(x_projection, resets)
    last, states = _scan(combine, hidden, over_time, reverse)
    return states, last


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
) -> tuple[Tensor, Tensor, Tensor]:
    """`gatedcells.reference.lstm.unroll` as one scan; the same arguments and results."""

    def combine(
        state: tuple[Tensor, Tensor], over_time: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        old_hidden, old_cell = state
        x_projection, t, *forgets = over_time
        found = _remembered(old_hidden, forgets), _remembered(old_cell, forgets)
        now = lstm.step(x_projection, *found, weight_hh, bias_hh, weight_hr)
        new_hidden = keep_beyond_length(t, lengths, now.hidden, old_hidden)
        new_cell = keep_beyond_length(t, lengths, now.cell, old_cell)
        return (new_hidden, new_cell), new_hidden.clone()

    x_projection = linear(input, weight_ih, bias_ih)
    over_time = _over_time(x_projection, resets)
    (last_hidden, last_cell), states = _scan(combine, (hidden, cell), over_time, reverse)
    return states, last_hidden, last_cell
