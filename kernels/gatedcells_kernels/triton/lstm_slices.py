"""An LSTM sequence with the hidden units cut into slices, a program for each slice and tile of rows.

As gru_slices.py; with a projection, which needs a second meeting in each step, see lstm_projected_slices.py.
Letters: T times, B rows, H hidden units; a tile is ROWS x UNITS, the sums over hidden units go DEPTH at a
time.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, multiply_add, operand, store
from gatedcells_kernels.triton.lstm_gates import gates, gates_backward
from gatedcells_kernels.triton.meeting import arrive, wait_for
from gatedcells_kernels.triton.walk import forgets, has_ended, of, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "reverse", "first", "last"])
def lstm_slices_forward(
    x_projection,  # [T, B, 4H]: W x + b_i
    hidden,  # [B, H]
    cell,  # [B, H]
    weight_hh,  # [4H, H]
    bias_hh,  # [4H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # out [T, B, H]
    last_cell,  # out [B, H]
    tape,  # out [T, B, SLOTS, H] or None
    carry,  # [B, H] float32: the cell state between launches
    counters,  # zeros, one for each direction and tile of rows; read with MEET only
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    first,  # the first visit of this launch
    last,  # one past its last
    H: tl.constexpr,
    SLOTS: tl.constexpr,  # 5 to keep all, 1 to keep the cell states
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    MEET: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Some steps of a slice of units and a tile of rows, forward: x_projection, cell -> states, tape."""
    direction = tl.program_id(2)
    turned = reverse + direction
    x_projection = of(x_projection, direction, T * B, 4 * H)
    hidden = of(hidden, direction, B, H)
    cell = of(cell, direction, B, H)
    weight_hh = of(weight_hh, direction, 4 * H, H)
    if bias_hh is not None:
        bias_hh = of(bias_hh, direction, 4, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    states = of(states, direction, T * B, H)
    last_cell = of(last_cell, direction, B, H)
    if tape is not None:
        tape = of(tape, direction, T * B, SLOTS * H)
    carry = of(carry, direction, B, H)
    CHUNKS: tl.constexpr = (H + DEPTH - 1) // DEPTH
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    counter = counters + direction * tl.num_programs(1) + tl.program_id(1)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    far = row[:, None].to(tl.int64)
    number: tl.constexpr = weight_hh.dtype.element_ty

    # U^T by chunks of k; input and forget gate side by side, candidate and output gate too
    pair = tl.arange(0, 2 * UNITS)
    paired = tl.program_id(0) * UNITS + pair // 2
    w_written = ()
    w_shown = ()
    for chunk in tl.static_range(CHUNKS):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < H)[:, None] & (paired < H)[None, :]
        of_pair = weight_hh + ((pair % 2) * H + paired)[None, :] * H + k[:, None]
        weight = tl.load(of_pair, mask=there, other=0.0)
        w_written = w_written + (weight,)
        weight = tl.load(of_pair + 2 * H * H, mask=there, other=0.0)
        w_shown = w_shown + (weight,)
    biases = ()
    for gate in tl.static_range(4):
        bias = tl.zeros((1, UNITS), tl.float32)
        if bias_hh is not None:
            bias += load(bias_hh + gate * H + unit, unit < H)[None, :]
        biases = biases + (bias,)

    source = hidden
    cell_state = tl.zeros((ROWS, UNITS), tl.float32)
    if first > 0:
        source = states + time_of(first - 1, T, turned).to(tl.int64) * B * H
        cell_state += load(carry + far * H + unit[None, :], inside)
    else:
        cell_state += load(cell + far * H + unit[None, :], inside)
    state = load(source + far * H + unit[None, :], inside)
    visit = first
    while visit < last:
        t = time_of(visit, T, turned)
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
        written = tl.zeros((ROWS, 2 * UNITS), tl.float32)
        shown = tl.zeros((ROWS, 2 * UNITS), tl.float32)
        # In a branch, always taken: else the weights are fetched from the chip into registers before the loop
        # and from there spilled.
        if visit < T:
            for chunk in tl.static_range(CHUNKS):
                k = chunk * DEPTH + tl.arange(0, DEPTH)
                # past the first-level cache, which does not see what other programs write
                h = tl.load(
                    source + far * H + k[None, :],
                    mask=present[:, None] & (k < H)[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                if resets is not None:
                    h = tl.where(forgotten, 0.0, h)
                h = operand(h, number, PRECISION)
                written = multiply_add(h, w_written[chunk], written, PRECISION, INTERPRETED)
                shown = multiply_add(h, w_shown[chunk], shown, PRECISION, INTERPRETED)
        h_input, h_forget = tl.split(tl.reshape(written, (ROWS, UNITS, 2)))
        h_candidate, h_output = tl.split(tl.reshape(shown, (ROWS, UNITS, 2)))
        input, forget, candidate, output, new_cell, now = gates(
            x_input + h_input,
            x_forget + h_forget,
            x_candidate + h_candidate,
            x_output + h_output,
            found_cell,
            APPROXIMATE,
        )
        if lengths is not None:
            ended = has_ended(lengths, row, present, t)[:, None]
            now = tl.where(ended, state, now)
            new_cell = tl.where(ended, cell_state, new_cell)
        state = now
        cell_state = new_cell
        source = states + t.to(tl.int64) * B * H
        store(source + far * H + unit[None, :], state, inside)
        if MEET:
            arrive(counter)
        if tape is not None:
            slot = tape + (t * B + far) * (SLOTS * H) + unit[None, :]
            if SLOTS == 5:
                store(slot, input, inside)
                store(slot + H, forget, inside)
                store(slot + 2 * H, candidate, inside)
                store(slot + 3 * H, output, inside)
            store(slot + (SLOTS - 1) * H, cell_state, inside)
        visit += 1
    if last < T:
        store(carry + far * H + unit[None, :], cell_state, inside)
    else:
        store(last_cell + far * H + unit[None, :], cell_state, inside)


@triton.jit(do_not_specialize=["T", "B", "reverse", "first", "last"])
def lstm_slices_backward(
    d_states,  # [T, B, H] or None
    d_last_hidden,  # [B, H] or None
    d_last_cell,  # [B, H] or None
    cell,  # [B, H]
    weight_hh,  # [4H, H]
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    tape,  # [T, B, 5, H]
    d_gates,  # out [T, B, 4, H]: input, forget, candidate, output
    d_hidden,  # out [B, H]
    d_cell,  # out [B, H]
    carry,  # [2, B, H] float32: dL/dh of the rows that have ended and dL/dc between launches
    counters,  # zeros, one for each direction and tile of rows; read with MEET only
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    first,  # the first visit of this launch, counted from the last step: T + 1 in all
    last,  # one past its last
    H: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    MEET: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Some steps of a slice of units and a tile of rows, backward: d_states, tape -> d_gates, d_cell."""
    direction = tl.program_id(2)
    turned = reverse + direction
    if d_states is not None:
        d_states = of(d_states, direction, T * B, H)
    if d_last_hidden is not None:
        d_last_hidden = of(d_last_hidden, direction, B, H)
    if d_last_cell is not None:
        d_last_cell = of(d_last_cell, direction, B, H)
    cell = of(cell, direction, B, H)
    weight_hh = of(weight_hh, direction, 4 * H, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    tape = of(tape, direction, T * B, 5 * H)
    d_gates = of(d_gates, direction, T * B, 4 * H)
    d_hidden = of(d_hidden, direction, B, H)
    d_cell = of(d_cell, direction, B, H)
    carry = of(carry, direction, 2 * B, H)
    CHUNKS: tl.constexpr = (4 * H + DEPTH - 1) // DEPTH
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    counter = counters + direction * tl.num_programs(1) + tl.program_id(1)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    far = row[:, None].to(tl.int64)
    number: tl.constexpr = weight_hh.dtype.element_ty

    # U's columns of this slice, by chunks of the 4H gates
    weights = ()
    for chunk in tl.static_range(CHUNKS):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < 4 * H)[:, None] & (unit < H)[None, :]
        weight = tl.load(weight_hh + k[:, None] * H + unit[None, :], mask=there, other=0.0)
        weights = weights + (weight,)

    direct = tl.zeros((ROWS, UNITS), tl.float32)
    d_cell_state = tl.zeros((ROWS, UNITS), tl.float32)
    at = far * H + unit[None, :]
    if first > 0:
        direct += load(carry + at, inside)
        d_cell_state += load(carry + at + B.to(tl.int64) * H, inside)
    else:
        if d_last_hidden is not None:
            direct += load(d_last_hidden + at, inside)
        if d_last_cell is not None:
            d_cell_state += load(d_last_cell + at, inside)
    visit = first
    while visit < last:
        # dL/dh after the step: what the step visited before passes on through its gates
        d = direct
        if visit > 0:
            t = time_of(T - visit, T, turned)
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            for chunk in tl.static_range(CHUNKS):
                k = chunk * DEPTH + tl.arange(0, DEPTH)
                through = tl.load(
                    d_gates + (t * B + far) * (4 * H) + k[None, :],
                    mask=present[:, None] & (k < 4 * H)[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                through = operand(through, number, PRECISION)
                d = multiply_add(through, weights[chunk], d, PRECISION, INTERPRETED)
            if resets is not None:
                forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
                d = tl.where(forgotten, 0.0, d)
        if visit < T:
            t = time_of(T - 1 - visit, T, turned)
            if d_states is not None:
                d += load(d_states + (t * B + far) * H + unit[None, :], inside)
            slot = tape + (t * B + far) * (5 * H) + unit[None, :]
            # the cell state that the step found: a slot of the step before, or the initial one
            before = tape + (time_of(T - 2 - visit, T, turned) * B + far) * (5 * H) + 4 * H + unit[None, :]
            found_cell = load(before, only_if(visit < T - 1, inside))
            found_cell += load(cell + at, only_if(visit == T - 1, inside))
            if resets is not None:
                forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
                found_cell = tl.where(forgotten, 0.0, found_cell)
            d_input, d_forget, d_candidate, d_output, d_found_cell = gates_backward(
                d,
                d_cell_state,
                load(slot, inside),
                load(slot + H, inside),
                load(slot + 2 * H, inside),
                load(slot + 3 * H, inside),
                load(slot + 4 * H, inside),
                found_cell,
                APPROXIMATE,
            )
            direct = tl.zeros((ROWS, UNITS), tl.float32)
            if lengths is not None:
                ended = has_ended(lengths, row, present, t)[:, None]
                d_input = tl.where(ended, 0.0, d_input)
                d_forget = tl.where(ended, 0.0, d_forget)
                d_candidate = tl.where(ended, 0.0, d_candidate)
                d_output = tl.where(ended, 0.0, d_output)
                d_found_cell = tl.where(ended, d_cell_state, d_found_cell)
                direct = tl.where(ended, d, direct)
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
        else:
            store(d_hidden + at, d, inside)
            store(d_cell + at, d_cell_state, inside)
        visit += 1
    if last <= T:
        store(carry + at, direct, inside)
        store(carry + at + B.to(tl.int64) * H, d_cell_state, inside)
