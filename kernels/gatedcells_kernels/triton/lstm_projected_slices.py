"""An LSTM sequence with a projection, the hidden units cut into slices: the forward pass.

As lstm_slices.py, but a step is two visits, because the projection reads m = o ⊙ tanh(c') of all units: one
for the gates, one for the projection, a meeting after each (MEET) or a launch each. A program has UNITS
hidden units and, as far as there are so many, the outputs of the same numbers. m goes from one program to
another through one buffer, written again only after all have met who read it. Letters: T times, B rows, H
hidden units, P what the projection makes of them; a tile is ROWS x UNITS, sums go DEPTH at a time.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, multiply_add, operand, store
from gatedcells_kernels.triton.lstm_gates import gates
from gatedcells_kernels.triton.meeting import arrive, wait_for
from gatedcells_kernels.triton.walk import forgets, has_ended, of, time_of


@triton.jit(do_not_specialize=["T", "B", "reverse", "first", "last"])
def lstm_projected_slices_forward(
    x_projection,  # [T, B, 4H]: W x + b_i
    hidden,  # [B, P]
    cell,  # [B, H]
    weight_hh,  # [4H, P]
    bias_hh,  # [4H] or None
    weight_hr,  # [P, H]
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # out [T, B, P]
    last_cell,  # out [B, H]
    tape,  # out [T, B, SLOTS, H] or None
    shown,  # [B, H]: m of the step, from one visit to the next
    carry,  # [B, H] float32: the cell state between launches
    counters,  # zeros, one for each direction and tile of rows; read with MEET only
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    first,  # the first visit of this launch: 2T in all, two a step
    last,  # one past its last
    H: tl.constexpr,
    P: tl.constexpr,
    SLOTS: tl.constexpr,  # 5 to keep all, 1 to keep the cell states
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    MEET: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Some visits of a slice of units and a tile of rows, forward: x_projection, cell -> states, tape."""
    direction = tl.program_id(2)
    turned = reverse + direction
    x_projection = of(x_projection, direction, T * B, 4 * H)
    hidden = of(hidden, direction, B, P)
    cell = of(cell, direction, B, H)
    weight_hh = of(weight_hh, direction, 4 * H, P)
    if bias_hh is not None:
        bias_hh = of(bias_hh, direction, 4, H)
    weight_hr = of(weight_hr, direction, P, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    states = of(states, direction, T * B, P)
    last_cell = of(last_cell, direction, B, H)
    if tape is not None:
        tape = of(tape, direction, T * B, SLOTS * H)
    shown = of(shown, direction, B, H)
    carry = of(carry, direction, B, H)
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

    # U^T by chunks of outputs; input and forget gate side by side, candidate and output gate too
    OUTPUTS: tl.constexpr = (P + DEPTH - 1) // DEPTH
    HIDDEN: tl.constexpr = (H + DEPTH - 1) // DEPTH
    pair = tl.arange(0, 2 * UNITS)
    paired = tl.program_id(0) * UNITS + pair // 2
    w_written = ()
    w_shown = ()
    for chunk in tl.static_range(OUTPUTS):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < P)[:, None] & (paired < H)[None, :]
        of_pair = weight_hh + ((pair % 2) * H + paired)[None, :] * P + k[:, None]
        weight = tl.load(of_pair, mask=there, other=0.0)
        w_written = w_written + (weight,)
        weight = tl.load(of_pair + 2 * H * P, mask=there, other=0.0)
        w_shown = w_shown + (weight,)
    # V^T by chunks of hidden units
    projection = ()
    for chunk in tl.static_range(HIDDEN):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < H)[:, None] & (unit < P)[None, :]
        weight = tl.load(weight_hr + unit[None, :] * H + k[:, None], mask=there, other=0.0)
        projection = projection + (weight,)
    biases = ()
    for gate in tl.static_range(4):
        bias = tl.zeros((1, UNITS), tl.float32)
        if bias_hh is not None:
            bias += load(bias_hh + gate * H + unit, unit < H)[None, :]
        biases = biases + (bias,)

    source = hidden
    cell_state = tl.zeros((ROWS, UNITS), tl.float32)
    if first > 1:
        source = states + time_of(first // 2 - 1, T, turned).to(tl.int64) * B * P
    if first > 0:
        cell_state += load(carry + at, inside)
    else:
        cell_state += load(cell + at, inside)
    state = load(source + output_at, output_inside)
    visit = first
    while visit < last:
        t = time_of(visit // 2, T, turned)
        if visit % 2 == 0:
            # under way while the program waits
            x = x_projection + (t * B + far) * (4 * H) + unit[None, :]
            x_input = load(x, inside) + biases[0]
            x_forget = load(x + H, inside) + biases[1]
            x_candidate = load(x + 2 * H, inside) + biases[2]
            x_output = load(x + 3 * H, inside) + biases[3]
            found_cell = cell_state
            if resets is not None:
                forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
                found_cell = tl.where(forgotten, 0.0, found_cell)
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            for_cell = tl.zeros((ROWS, 2 * UNITS), tl.float32)
            for_shown = tl.zeros((ROWS, 2 * UNITS), tl.float32)
            for chunk in tl.static_range(OUTPUTS):
                k = chunk * DEPTH + tl.arange(0, DEPTH)
                # past the first-level cache, which does not see what other programs write
                h = tl.load(
                    source + far * P + k[None, :],
                    mask=present[:, None] & (k < P)[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                if resets is not None:
                    h = tl.where(forgotten, 0.0, h)
                h = operand(h, number, PRECISION)
                for_cell = multiply_add(h, w_written[chunk], for_cell, PRECISION, INTERPRETED)
                for_shown = multiply_add(h, w_shown[chunk], for_shown, PRECISION, INTERPRETED)
            h_input, h_forget = tl.split(tl.reshape(for_cell, (ROWS, UNITS, 2)))
            h_candidate, h_output = tl.split(tl.reshape(for_shown, (ROWS, UNITS, 2)))
            input, forget, candidate, output, new_cell, m = gates(
                x_input + h_input,
                x_forget + h_forget,
                x_candidate + h_candidate,
                x_output + h_output,
                found_cell,
                APPROXIMATE,
            )
            store(shown + at, m, inside)
            if MEET:
                arrive(counter)
            if lengths is not None:
                new_cell = tl.where(has_ended(lengths, row, present, t)[:, None], cell_state, new_cell)
            cell_state = new_cell
            if tape is not None:
                slot = tape + (t * B + far) * (SLOTS * H) + unit[None, :]
                if SLOTS == 5:
                    store(slot, input, inside)
                    store(slot + H, forget, inside)
                    store(slot + 2 * H, candidate, inside)
                    store(slot + 3 * H, output, inside)
                store(slot + (SLOTS - 1) * H, cell_state, inside)
        else:
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            source = states + t.to(tl.int64) * B * P
            if tl.program_id(0) * UNITS < P:
                now = tl.zeros((ROWS, UNITS), tl.float32)
                for chunk in tl.static_range(HIDDEN):
                    k = chunk * DEPTH + tl.arange(0, DEPTH)
                    m = tl.load(
                        shown + far * H + k[None, :],
                        mask=present[:, None] & (k < H)[None, :],
                        other=0.0,
                        cache_modifier=".cg",
                    )
                    m = operand(m, number, PRECISION)
                    now = multiply_add(m, projection[chunk], now, PRECISION, INTERPRETED)
                if lengths is not None:
                    now = tl.where(has_ended(lengths, row, present, t)[:, None], state, now)
                state = now
                store(source + output_at, state, output_inside)
            if MEET:
                arrive(counter)
        visit += 1
    if last < 2 * T:
        store(carry + at, cell_state, inside)
    else:
        store(last_cell + at, cell_state, inside)
