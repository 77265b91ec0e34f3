"""What every kernel that walks over time asks at a step."""

import triton
import triton.language as tl


@triton.jit
def time_of(visit, T, turned):
    """The time that a walk visits as its ``visit``-th; ``turned`` is 1 against the order of time, else 0."""
    return visit + turned * (T - 1 - 2 * visit)


@triton.jit
def of(tensor, direction, rows, width):
    """Where a direction's part begins of a tensor of ``rows * width`` numbers for each direction."""
    return tensor + direction.to(tl.int64) * rows * width


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


@triton.jit
def only_if(condition, inside):
    """``inside`` if a condition on the whole tile holds, else nowhere: what `&` would say, but with a scalar
    that makes no mask in the interpreter of Triton 3.9."""
    return tl.where(condition, inside, inside ^ inside)
