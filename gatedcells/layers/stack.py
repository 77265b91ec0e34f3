"""The one loop over layers and directions, the same for every cell."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import dropout as apply_dropout

# What a layer carries from step to step: (h,) for the GRU, (h, c) for the LSTM; each [B, ...].
State = tuple[Tensor, ...]
# One direction of one layer: input [T, B, I], state, weights, reverse -> outputs [T, B, ...], last state.
Direction = Callable[[Tensor, State, Sequence[Tensor], bool], tuple[Tensor, State]]
# Both directions at once: input, states [2, B, ...], both directions' weights -> outputs [2, T, B, ...], last
# states [2, B, ...]; or None where they are run one after the other.
Both = Callable[[Tensor, State, Sequence[Sequence[Tensor]]], tuple[Tensor, State] | None]


def run_stack(
    direction: Direction,
    both: Both,
    input: Tensor,
    state: State,
    weights: Sequence[Sequence[Tensor]],
    *,
    directions: int,
    dropout: float,
    valid: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run a stack of layers; the outputs of both directions side by side are the next layer's input.

    Args:
        direction: runs one direction of one layer.
        both: runs both directions of one layer, where somebody can.
        input: ``[T, B, I]``.
        state: the initial states, each ``[L*D, B, ...]``, layer by layer, forward before reverse.
        weights: the parameters of each direction of each layer, in the same order.
        directions: 1 or 2.
        dropout: probability of zeroing an element between layers (0 outside training).
        valid: ``[n]`` positions, in ``T*B`` order, that hold a step of a packed batch. Dropout is drawn
            for these alone, in this order, so that the random numbers are those of ``torch.nn``.

    Returns:
        outputs of the last layer ``[T, B, D*H]`` and the last states, each ``[L*D, B, ...]``.
    """
    layers = len(weights) // directions
    last: list[State] = []
    for layer in range(layers):
        outputs: list[Tensor] = []
        rows = range(layer * directions, (layer + 1) * directions)
        found = None
        if directions == 2:
            found = both(input, tuple(s[rows[0] : rows[0] + 2] for s in state), [weights[r] for r in rows])
        if found is not None:
            outputs += found[0].unbind(0)
            last += zip(*(part.unbind(0) for part in found[1]), strict=True)
        else:
            for row in rows:
                output, final = direction(input, tuple(s[row] for s in state), weights[row], row != rows[0])
                outputs.append(output)
                last.append(final)
        input = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
        if dropout > 0 and layer < layers - 1:
            input = _dropout(input, dropout, valid)
    if len(last) == 1:
        return input, tuple(part.unsqueeze(0) for part in last[0])
    return input, tuple(torch.stack(part) for part in zip(*last, strict=True))


def _dropout(input: Tensor, p: float, valid: Tensor | None) -> Tensor:
    if valid is None:
        return apply_dropout(input, p, training=True)
    rows = input.flatten(0, 1)
    kept = apply_dropout(rows.index_select(0, valid), p, training=True)
    return torch.zeros_like(rows).index_copy(0, valid, kept).view_as(input)
