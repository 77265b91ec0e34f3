"""What every kernel that walks over time asks at a step."""

import triton
import triton.language as tl


@triton.jit
def time_of(visit, T, REVERSE: tl.constexpr):
    """The time that a walk visits as its ``visit``-th."""
    t = visit
    if REVERSE:
        t = T - 1 - visit
    return t


@triton.jit
def has_ended(lengths, row, present, t):
    """Which rows have no step ``t``; ``present`` says which rows there are at all."""
    return t >= tl.load(lengths + row, mask=present, other=0)


@triton.jit
def forgets(resets, lengths, row, present, t, B):
    """Which rows forget their state before step ``t``: those marked that have not ended."""
    marked = tl.load(resets + t * B + row, mask=present, other=0) != 0
    if lengths is not None:
        marked = marked & (t < tl.load(lengths + row, mask=present, other=0))
    return marked
