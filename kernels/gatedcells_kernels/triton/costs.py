"""What one step costs on each kernel, counted: launches, meetings, bytes and operations. Nothing is timed."""

from __future__ import annotations

from typing import NamedTuple

from gatedcells_kernels.triton.launch import GATES, Plan, Request


class Costs(NamedTuple):
    """Of one step of a forward pass without a tape, all programs together."""

    launches: float  # a part of one where one launch does all steps
    meetings: int
    weight_bytes: int  # of weight_hh, from memory or the second-level cache to the chip
    state_bytes: int  # of the state before, read again by each program that needs it
    other_bytes: int  # the input's projection, pre-activations that leave the chip, the new state
    operations: int  # of the recurrent product: a multiplication and an addition are two

    @property
    def operations_per_byte(self) -> float:
        """To hold against a device's operations a second over bytes a second."""
        return self.operations / (self.weight_bytes + self.state_bytes + self.other_bytes)


def costs(plan: Plan, request: Request) -> Costs:
    """Count a step of ``request`` on the kernel of ``plan`` (reset gate after the product, no projection)."""
    T, B, H = request.T, request.B, request.H
    size = 2 if request.numbers == "half" else 4
    gates = GATES[request.cell]
    weights, state, projection = gates * H * H * size, B * H * size, B * gates * H * size
    operations = 2 * B * gates * H * H
    # the LSTM's cell state stays in registers but in the library's steps
    once = projection + state
    if plan.kernel == "library":
        cells = 2 * 4 * B * H * (1 if request.cell == "GRU" else 2)  # float32 states, read and written
        return Costs(2, 0, weights, state, once + 2 * projection + cells, operations)
    entry = plan.entry
    assert entry is not None
    tiles, slices = -(-B // entry.rows), -(-H // entry.units)
    if plan.kernel == "whole":
        return Costs(1 / T, 0, tiles * weights // T, 0, once, operations)
    if plan.kernel == "slices":
        return Costs(1 / T, 1, tiles * weights // T, slices * state, once, operations)
    return Costs(1, 0, tiles * weights, slices * state, once, operations)
