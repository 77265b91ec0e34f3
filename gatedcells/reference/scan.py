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


def scan_gru(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
    reset_after: bool = True,
) -> tuple[Tensor, Tensor]:
    """`gatedcells.reference.gru.unroll` as one scan; the same arguments and results."""

    def combine(state: Tensor, over_time: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x_projection, t = over_time
        now = gru.step(x_projection, state, weight_hh, bias_hh, reset_after=reset_after)
        new = keep_beyond_length(t, lengths, now.hidden, state)
        return new, new.clone()  # scan forbids that carry and output share memory

    x_projection = linear(input, weight_ih, bias_ih)
    times = torch.arange(x_projection.shape[0], device=input.device)
    last, states = _scan(combine, hidden, (x_projection, times), reverse)
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
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`gatedcells.reference.lstm.unroll` as one scan; the same arguments and results."""

    def combine(
        state: tuple[Tensor, Tensor], over_time: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        old_hidden, old_cell = state
        x_projection, t = over_time
        now = lstm.step(x_projection, old_hidden, old_cell, weight_hh, bias_hh, weight_hr)
        new_hidden = keep_beyond_length(t, lengths, now.hidden, old_hidden)
        new_cell = keep_beyond_length(t, lengths, now.cell, old_cell)
        return (new_hidden, new_cell), new_hidden.clone()

    x_projection = linear(input, weight_ih, bias_ih)
    times = torch.arange(x_projection.shape[0], device=input.device)
    (last_hidden, last_cell), states = _scan(combine, (hidden, cell), (x_projection, times), reverse)
    return states, last_hidden, last_cell
