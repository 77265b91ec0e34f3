"""The gates of one LSTM step around matrix products that a library does: for many hidden units.

One program takes SIZE of the B x H numbers of a state; states go from step to step in float32. Letters: T
times, B rows, H hidden units.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, store
from gatedcells_kernels.triton.lstm_gates import gates, gates_backward
from gatedcells_kernels.triton.walk import forgets, has_ended, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "visit", "reverse"])
def lstm_pointwise_forward(
    x_projection,  # [T, B, 4H]: W x + b_i
    h_projection,  # [B, 4H]: U h
    bias_hh,  # [4H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    cell,  # in and out [B, H] float32
    state,  # in and out [B, H] float32, h; with a projection (states is None) not read
    operand,  # out [B, H]: what the next product reads, the next step's h, or m for the projection
    states,  # out [T, B, H], or None with a projection
    tape,  # out [T, B, SLOTS, H] or None
    T,
    B,
    visit,
    reverse,  # 1 against the order of time
    H: tl.constexpr,
    SLOTS: tl.constexpr,  # 5 to keep all, 1 to keep the cell states
    SIZE: tl.constexpr,
    APPROXIMATE: tl.constexpr,
):
    """One step, forward: x_projection, h_projection, cell -> cell, states, tape."""
    number = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    row = number // H
    unit = number % H
    inside = row < B
    t = time_of(visit, T, reverse)
    x = x_projection + (t * B + row) * (4 * H) + unit
    h = h_projection + row * (4 * H) + unit
    a_input = load(x, inside) + load(h, inside)
    a_forget = load(x + H, inside) + load(h + H, inside)
    a_candidate = load(x + 2 * H, inside) + load(h + 2 * H, inside)
    a_output = load(x + 3 * H, inside) + load(h + 3 * H, inside)
    if bias_hh is not None:
        a_input += load(bias_hh + unit, inside)
        a_forget += load(bias_hh + H + unit, inside)
        a_candidate += load(bias_hh + 2 * H + unit, inside)
        a_output += load(bias_hh + 3 * H + unit, inside)
    old_cell = load(cell + number, inside)
    found_cell = old_cell
    if resets is not None:
        found_cell = tl.where(forgets(resets, lengths, row, inside, t, B), 0.0, old_cell)
    input, forget, candidate, output, new_cell, now = gates(
        a_input, a_forget, a_candidate, a_output, found_cell, APPROXIMATE
    )
    if lengths is not None:
        ended = has_ended(lengths, row, inside, t)
        new_cell = tl.where(ended, old_cell, new_cell)
        if states is not None:
            now = tl.where(ended, load(state + number, inside), now)
    store(cell + number, new_cell, inside)
    if tape is not None:
        slot = tape + (t * B + row) * (SLOTS * H) + unit
        if SLOTS == 5:
            store(slot, input, inside)
            store(slot + H, forget, inside)
            store(slot + 2 * H, candidate, inside)
            store(slot + 3 * H, output, inside)
        store(slot + (SLOTS - 1) * H, new_cell, inside)
    if states is not None:
        store(state + number, now, inside)
        store(states + t.to(tl.int64) * B * H + number, now, inside)
        if resets is not None:
            following = time_of(visit + 1, T, reverse)
            there = only_if(visit + 1 < T, inside)
            now = tl.where(forgets(resets, lengths, row, there, following, B) & there, 0.0, now)
    store(operand + number, now, inside)


@triton.jit(do_not_specialize=["T", "B", "visit", "reverse"])
def lstm_pointwise_backward(
    d_shown,  # [B, H] float32: dL/dm
    cell,  # [B, H]
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    tape,  # [T, B, 5, H]
    d_gates,  # out [T, B, 4, H]: input, forget, candidate, output
    d_cell,  # in and out [B, H] float32
    T,
    B,
    visit,
    reverse,  # 1 against the order of time
    H: tl.constexpr,
    SIZE: tl.constexpr,
    APPROXIMATE: tl.constexpr,
):
    """One step, backward: d_shown, d_cell, tape -> d_gates, d_cell."""
    number = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    row = number // H
    unit = number % H
    inside = row < B
    t = time_of(visit, T, reverse)
    slot = tape + (t * B + row) * (5 * H) + unit
    # the cell state that the step found: a slot of the step before, or the initial one
    before = tape + (time_of(visit - 1, T, reverse) * B + row) * (5 * H) + 4 * H + unit
    found_cell = load(before, only_if(visit > 0, inside))
    found_cell += load(cell + number, only_if(visit == 0, inside))
    if resets is not None:
        forgotten = forgets(resets, lengths, row, inside, t, B)
        found_cell = tl.where(forgotten, 0.0, found_cell)
    d_new_cell = load(d_cell + number, inside)
    d_input, d_forget, d_candidate, d_output, d_found_cell = gates_backward(
        load(d_shown + number, inside),
        d_new_cell,
        load(slot, inside),
        load(slot + H, inside),
        load(slot + 2 * H, inside),
        load(slot + 3 * H, inside),
        load(slot + 4 * H, inside),
        found_cell,
        APPROXIMATE,
    )
    if lengths is not None:
        ended = has_ended(lengths, row, inside, t)
        d_input = tl.where(ended, 0.0, d_input)
        d_forget = tl.where(ended, 0.0, d_forget)
        d_candidate = tl.where(ended, 0.0, d_candidate)
        d_output = tl.where(ended, 0.0, d_output)
        d_found_cell = tl.where(ended, d_new_cell, d_found_cell)
    if resets is not None:
        d_found_cell = tl.where(forgotten, 0.0, d_found_cell)
    store(d_cell + number, d_found_cell, inside)
    d_slot = d_gates + (t * B + row) * (4 * H) + unit
    store(d_slot, d_input, inside)
    store(d_slot + H, d_forget, inside)
    store(d_slot + 2 * H, d_candidate, inside)
    store(d_slot + 3 * H, d_output, inside)
