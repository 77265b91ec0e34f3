"""An LSTM sequence with a projection, the hidden units cut into slices: the backward pass.

A step is two visits, as in lstm_projected_slices.py: one for dL/dh of the program's outputs, which all units
read, one for the gates, which all outputs of the step before read. Both go from one program to another
through what is returned anyway, d_projected and d_gates. Letters: T times, B rows, H hidden units, P outputs;
a tile is ROWS x UNITS, sums go DEPTH at a time.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, multiply_add, operand, store
from gatedcells_kernels.triton.lstm_gates import gates_backward
from gatedcells_kernels.triton.meeting import arrive, wait_for
from gatedcells_kernels.triton.walk import forgets, has_ended, of, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "reverse", "first", "last"])
def lstm_projected_slices_backward(
    d_states,  # [T, B, P] or None
    d_last_hidden,  # [B, P] or None
    d_last_cell,  # [B, H] or None
    cell,  # [B, H]
    weight_hh,  # [4H, P]
    weight_hr,  # [P, H]
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    tape,  # [T, B, 5, H]
    d_gates,  # out [T, B, 4, H]: input, forget, candidate, output
    d_projected,  # out [T, B, P]: dL/dh as it leaves the projection
    d_hidden,  # out [B, P]
    d_cell,  # out [B, H]
    carry,  # [B, P] float32: dL/dh of the rows that have ended, between launches
    carry_cell,  # [B, H] float32: dL/dc between launches
    counters,  # zeros, one for each direction and tile of rows; read with MEET only
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    first,  # the first visit of this launch, counted from the last step: 2T + 1 in all
    last,  # one past its last
    H: tl.constexpr,
    P: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    MEET: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Some visits of a slice of units and a tile of rows, backward: d_states, tape -> d_gates, d_cell."""
    direction = tl.program_id(2)
    turned = reverse + direction
    if d_states is not None:
        d_states = of(d_states, direction, T * B, P)
    if d_last_hidden is not None:
        d_last_hidden = of(d_last_hidden, direction, B, P)
    if d_last_cell is not None:
        d_last_cell = of(d_last_cell, direction, B, H)
    cell = of(cell, direction, B, H)
    weight_hh = of(weight_hh, direction, 4 * H, P)
    weight_hr = of(weight_hr, direction, P, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    tape = of(tape, direction, T * B, 5 * H)
    d_gates = of(d_gates, direction, T * B, 4 * H)
    d_projected = of(d_projected, direction, T * B, P)
    d_hidden = of(d_hidden, direction, B, P)
    d_cell = of(d_cell, direction, B, H)
    carry = of(carry, direction, B, P)
    carry_cell = of(carry_cell, direction, B, H)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    counter = counters + direction * tl.num_programs(1) + tl.program_id(1)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    output_inside = present[:, None] & (unit < P)[None, :]
    far = row[:, None].to(tl.int64)
    at = far * H + unit[None, :]
    output_at = far * P + unit[None, :]
    number: tl.constexpr = weight_hh.dtype.element_ty

    # of this slice U's columns by chunks of the 4H gates, and V's by chunks of outputs
    GATES: tl.constexpr = (4 * H + DEPTH - 1) // DEPTH
    OUTPUTS: tl.constexpr = (P + DEPTH - 1) // DEPTH
    weights = ()
    projection = ()
    for chunk in tl.static_range(GATES):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < 4 * H)[:, None] & (unit < P)[None, :]
        weight = tl.load(weight_hh + k[:, None] * P + unit[None, :], mask=there, other=0.0)
        weights = weights + (weight,)
    for chunk in tl.static_range(OUTPUTS):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < P)[:, None] & (unit < H)[None, :]
        weight = tl.load(weight_hr + k[:, None] * H + unit[None, :], mask=there, other=0.0)
        projection = projection + (weight,)

    direct = tl.zeros((ROWS, UNITS), tl.float32)
    d_cell_state = tl.zeros((ROWS, UNITS), tl.float32)
    if first > 0:
        direct += load(carry + output_at, output_inside)
        d_cell_state += load(carry_cell + at, inside)
    else:
        if d_last_hidden is not None:
            direct += load(d_last_hidden + output_at, output_inside)
        if d_last_cell is not None:
            d_cell_state += load(d_last_cell + at, inside)
    visit = first
    while visit < last:
        step = visit // 2
        # the last visit has no step any more; it looks at the one before
        t = time_of(tl.maximum(T - 1 - step, 0), T, turned)
        if visit % 2 == 0:
            # dL/dh after the step: what the step visited before passes on through its gates
            d = direct
            if step > 0:
                later = time_of(T - step, T, turned)
                if MEET:
                    wait_for(counter, (visit - first) * tl.num_programs(0))
                if tl.program_id(0) * UNITS < P:
                    for chunk in tl.static_range(GATES):
                        k = chunk * DEPTH + tl.arange(0, DEPTH)
                        through = tl.load(
                            d_gates + (later * B + far) * (4 * H) + k[None, :],
                            mask=present[:, None] & (k < 4 * H)[None, :],
                            other=0.0,
                            cache_modifier=".cg",
                        )
                        through = operand(through, number, PRECISION)
                        d = multiply_add(through, weights[chunk], d, PRECISION, INTERPRETED)
                if resets is not None:
                    d = tl.where(forgets(resets, lengths, row, present, later, B)[:, None], 0.0, d)
            if step < T:
                if d_states is not None:
                    d += load(d_states + (t * B + far) * P + unit[None, :], output_inside)
                left = d
                direct = tl.zeros((ROWS, UNITS), tl.float32)
                if lengths is not None:
                    ended = has_ended(lengths, row, present, t)[:, None]
                    left = tl.where(ended, 0.0, d)
                    direct = tl.where(ended, d, direct)
                store(d_projected + (t * B + far) * P + unit[None, :], left, output_inside)
                if MEET:
                    arrive(counter)
            else:
                store(d_hidden + output_at, d, output_inside)
                store(d_cell + at, d_cell_state, inside)
        else:
            # the cell state that the step found: a slot of the step before, or the initial one
            before = tape + (time_of(T - 2 - step, T, turned) * B + far) * (5 * H) + 4 * H + unit[None, :]
            found_cell = load(before, only_if(step < T - 1, inside))
            found_cell += load(cell + at, only_if(step == T - 1, inside))
            if resets is not None:
                forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
                found_cell = tl.where(forgotten, 0.0, found_cell)
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            d_shown = tl.zeros((ROWS, UNITS), tl.float32)
            for chunk in tl.static_range(OUTPUTS):
                k = chunk * DEPTH + tl.arange(0, DEPTH)
                through = tl.load(
                    d_projected + (t * B + far) * P + k[None, :],
                    mask=present[:, None] & (k < P)[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                through = operand(through, number, PRECISION)
                d_shown = multiply_add(through, projection[chunk], d_shown, PRECISION, INTERPRETED)
            slot = tape + (t * B + far) * (5 * H) + unit[None, :]
            d_input, d_forget, d_candidate, d_output, d_found_cell = gates_backward(
                d_shown,
                d_cell_state,
                load(slot, inside),
                load(slot + H, inside),
                load(slot + 2 * H, inside),
                load(slot + 3 * H, inside),
                load(slot + 4 * H, inside),
                found_cell,
                APPROXIMATE,
            )
            if lengths is not None:
                ended = has_ended(lengths, row, present, t)[:, None]
                d_input = tl.where(ended, 0.0, d_input)
                d_forget = tl.where(ended, 0.0, d_forget)
                d_candidate = tl.where(ended, 0.0, d_candidate)
                d_output = tl.where(ended, 0.0, d_output)
                d_found_cell = tl.where(ended, d_cell_state, d_found_cell)
            if resets is not None:
                d_found_cell = tl.where(forgotten, 0.0, d_found_cell)
            d_cell_state = d_found_cell
            slot = d_gates + (t * B + far) * (4 * H) + unit[None, :]
            store(slot, d_input, inside)
            store(slot + H, d_forget, inside)
            store(slot + 2 * H, d_candidate, inside)
            store(slot + 3 * H, d_output, inside)
            if MEET:
                arrive(counter)
        visit += 1
    if last <= 2 * T:
        store(carry + output_at, direct, output_inside)
        store(carry_cell + at, d_cell_state, inside)
