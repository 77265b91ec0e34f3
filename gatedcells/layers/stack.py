"""The one loop over layers and directions, the same for every cell."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import dropout as apply_dropout

# What a layer carries from step to step: (h,) for the GRU, (h, c) for the LSTM; each [B, ...].
State = tuple[Tensor, ...]
# One direction of one layer: input [T, B, I], state, which of the L*D rows of the states, reverse -> outputs
# [T, B, ...], last state.
Direction = Callable[[Tensor, State, int, bool], tuple[Tensor, State]]
# Both directions at once: input, states [2, B, ...], the rows of both -> outputs [2, T, B, ...], last states
# [2, B, ...]; or None where they are run one after the other.
Both = Callable[[Tensor, State, Sequence[int]], tuple[Tensor, State] | None]


def run_stack(
    direction: Direction,
    both: Both,
    input: Tensor,
    state: State,
    *,
    layers: int,
    directions: int,
    dropout: float,
    valid: Tensor | None = None,
    before: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    every: list[Tensor] | None = None,
) -> tuple[Tensor, State]:
    """Run a stack of layers; the outputs of both directions side by side are the next layer's input.

    Args:
        direction: runs one direction of one layer.
        both: runs both directions of one layer, where somebody can.
        input: ``[T, B, I]``.
        state: the initial states, each ``[L*D, B, ...]``, layer by layer, forward before reverse.
        layers, directions: L, and D, 1 or 2.
        dropout: probability of zeroing an element between layers (0 outside training).
        valid: ``[n]`` positions, in ``T*B`` order, that hold a step of a packed batch. Dropout is drawn
            for these alone, in this order, so that the random numbers are those of ``torch.nn``.
        before: what happens to each layer's input.
        generator: draws the dropout; None: torch's own.
        every: takes in the outputs of every direction of every layer.

    Returns:
        outputs of the last layer ``[T, B, D*H]`` and the last states, each ``[L*D, B, ...]``.
    """
    last: list[State] = []
    for layer in range(layers):
        if before is not None:
            input = before(input)
        outputs: list[Tensor] = []
        rows = range(layer * directions, (layer + 1) * directions)
        found = None
        if directions == 2:
            found = both(input, tuple(s[rows[0] : rows[0] + 2] for s in state), rows)
        if found is not None:
            outputs += found[0].unbind(0)
            last += zip(*(part.unbind(0) for part in found[1]), strict=True)
        else:
            for row in rows:
                output, final = direction(input, tuple(s[row] for s in state), row, row != rows[0])
                outputs.append(output)
                last.append(final)
        if every is not None:
            every += outputs
        input = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
        if dropout > 0 and layer < layers - 1:
            input = _dropout(input, dropout, valid, generator)
    if len(last) == 1:  # no views: torch's states can be detached in place
        return input, tuple(torch.stack((part,)) for part in last[0])
    return input, tuple(torch.stack(part) for part in zip(*last, strict=True))


def dropout_mask(
    shape: Sequence[int], p: float, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """0 with probability p, else 1/(1 − p): by which elements are multiplied, in ``like``'s dtype and on its
    device. Drawn in float32, so that one seed gives the same mask in every dtype."""
    drawn = uniform(shape, like, generator)
    return (drawn >= p).to(like.dtype) * (0.0 if p == 1 else 1 / (1 - p))


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers between 0 and 1 in float32 on the device of ``like``."""
    if generator is None:  # torch's compiler does not take one that is None beside a size that varies
        return torch.rand(shape, dtype=torch.float32, device=like.device)
    return torch.rand(shape, dtype=torch.float32, device=like.device, generator=generator)


def _dropout(input: Tensor, p: float, valid: Tensor | None, generator: torch.Generator | None) -> Tensor:
    if valid is None:
        return _drop(input, p, generator)
    rows = input.flatten(0, 1)
    kept = _drop(rows.index_select(0, valid), p, generator)
    return torch.zeros_like(rows).index_copy(0, valid, kept).view_as(input)


def _drop(input: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return apply_dropout(input, p, training=True)
    return input * dropout_mask(input.shape, p, input, generator)
