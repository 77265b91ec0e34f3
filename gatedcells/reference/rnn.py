"""The plain recurrent network without gates, for comparison with the GRU and the LSTM.

Elman 1990, in torch's form (``torch.nn.RNN``)::

    h' = tanh(W x + b_i + U h + b_h)

The letters of the shapes are explained in `gatedcells.states`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class RNNStep(NamedTuple):
    """Every intermediate of one step, each ``[B, H]``: the two halves of the sum, biases included, and
    the new state."""

    x_hidden: Tensor
    h_hidden: Tensor
    hidden: Tensor


def step(x_projection: Tensor, hidden: Tensor, weight_hh: Tensor, bias_hh: Tensor | None = None) -> RNNStep:
    """One step of the equation above.

    Args:
        x_projection: ``W x + b_i``, ``[B, H]``.
        hidden: the state ``h`` before the step, ``[B, H]``.
        weight_hh: ``U``, ``[H, H]``.
        bias_hh: ``b_h``, ``[H]``, or None for zeros.
    """
    h_hidden = linear(hidden, weight_hh, bias_hh)
    return RNNStep(x_projection, h_hidden, torch.tanh(x_projection + h_hidden))


def iterate(
    x_projection: Tensor, hidden: Tensor, weight_hh: Tensor, bias_hh: Tensor | None = None
) -> Iterator[tuple[int, RNNStep]]:
    """Yield ``(t, step)`` in the order of time; the input projected, ``[T, B, H]``."""
    for t, projected in enumerate(x_projection):
        now = step(projected, hidden, weight_hh, bias_hh)
        hidden = now.hidden
        yield t, now
