"""What one step costs on each kernel, counted: launches, meetings, bytes and operations. Nothing is timed."""

from __future__ import annotations

from typing import NamedTuple

from gatedcells_kernels.triton.launch import GATES, Plan, Request, states_read


class Costs(NamedTuple):
    """Of one step of a forward pass without a tape, all programs together."""

    launches: float  # a part of one where one launch does all steps
    meetings: int
    weight_bytes: int  # of weight_hh and weight_hr, from memory or the second-level cache to the chip
    state_bytes: int  # of the state before, and of r ⊙ h or m, read again by each program that needs it
    other_bytes: int  # the input's projection, pre-activations that leave the chip, the new state
    operations: int  # of the recurrent products: a multiplication and an addition are two

    @property
    def operations_per_byte(self) -> float:
        """To hold against a device's operations a second over bytes a second."""
        return self.operations / (self.weight_bytes + self.state_bytes + self.other_bytes)


def costs(plan: Plan, request: Request) -> Costs:
    """Count a step of ``request``, with all rows as long as T and no resets, on the kernel of ``plan``."""
    T, B, H, P = request.T, request.B, request.H, request.P
    size = 2 if request.numbers == "half" else 4
    numbers = (GATES[request.cell] + request.projected) * H * P
    weights, projection, operations = numbers * size, B * GATES[request.cell] * H * size, 2 * B * numbers
    # the LSTM's cell state stays in registers but in the library's steps
    once = projection + B * P * size
    # r ⊙ h or m, which leaves a program that has not all units
    between = B * H * size if request.visits == 2 else 0
    if plan.kernel == "library":
        read = B * P * size + between
        # products and kernels, and float32 numbers that the kernels read and write
        if request.projected:
            launches, floats = 3, 2
        elif request.visits == 2:
            launches, floats = 4, 7
        else:
            launches, floats = 2, 2 if request.cell == "GRU" else 4
        other = once + 2 * projection + between + 4 * floats * B * H
        return Costs(launches, 0, weights, read, other, operations)
    entry = plan.entry
    assert entry is not None
    tiles = -(-B // entry.rows)
    if plan.kernel == "whole":
        return Costs(1 / T, 0, tiles * weights // T, 0, once, operations)
    read, other = B * states_read(entry, request) * size, once + between
    if plan.kernel == "slices":
        return Costs(1 / T, request.visits, tiles * weights // T, read, other, operations)
    return Costs(request.visits, 0, tiles * weights, read, other, operations)
