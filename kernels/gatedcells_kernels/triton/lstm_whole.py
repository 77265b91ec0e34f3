"""A whole LSTM sequence in one program for each tile of rows: few hidden units, all weights stay on the chip.

As gru_whole.py, with the projection if there is one. Letters: T times, B rows, H hidden units, P what the
projection makes of them (H without one); a tile is ROWS x UNITS or ROWS x OUTPUTS, the next powers of two.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, multiply_add, operand, store
from gatedcells_kernels.triton.lstm_gates import gates, gates_backward
from gatedcells_kernels.triton.walk import forgets, has_ended, of, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "reverse"])
def lstm_whole_forward(
    x_projection,  # [T, B, 4H]: W x + b_i
    hidden,  # [B, P]
    cell,  # [B, H]
    weight_hh,  # [4H, P]
    bias_hh,  # [4H] or None
    weight_hr,  # [P, H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # out [T, B, P]
    last_cell,  # out [B, H]
    tape,  # out [T, B, SLOTS, H] or None
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    H: tl.constexpr,
    P: tl.constexpr,
    SLOTS: tl.constexpr,  # 5 to keep all, 1 to keep the cell states
    UNITS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """All steps of a tile of rows, forward: x_projection, hidden, cell -> states, last_cell, tape."""
    direction = tl.program_id(1)
    turned = reverse + direction
    x_projection = of(x_projection, direction, T * B, 4 * H)
    hidden = of(hidden, direction, B, P)
    cell = of(cell, direction, B, H)
    weight_hh = of(weight_hh, direction, 4 * H, P)
    if bias_hh is not None:
        bias_hh = of(bias_hh, direction, 4, H)
    if weight_hr is not None:
        weight_hr = of(weight_hr, direction, P, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    states = of(states, direction, T * B, P)
    last_cell = of(last_cell, direction, B, H)
    if tape is not None:
        tape = of(tape, direction, T * B, SLOTS * H)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    output_unit = tl.arange(0, OUTPUTS)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    output_inside = present[:, None] & (output_unit < P)[None, :]
    far = row[:, None].to(tl.int64)
    number: tl.constexpr = weight_hh.dtype.element_ty

    # U^T of each gate, [k, unit] with k among the outputs
    there = (output_unit < P)[:, None] & (unit < H)[None, :]
    weights = ()
    biases = ()
    for gate in tl.static_range(4):
        of_gate = weight_hh + (gate * H + unit)[None, :] * P + output_unit[:, None]
        weights = weights + (tl.load(of_gate, mask=there, other=0.0),)
        bias = tl.zeros((1, UNITS), tl.float32)
        if bias_hh is not None:
            bias += load(bias_hh + gate * H + unit, unit < H)[None, :]
        biases = biases + (bias,)
    if weight_hr is not None:
        there = (unit < H)[:, None] & (output_unit < P)[None, :]
        projection = tl.load(weight_hr + output_unit[None, :] * H + unit[:, None], mask=there, other=0.0)

    state = load(hidden + far * P + output_unit[None, :], output_inside)
    cell_state = load(cell + far * H + unit[None, :], inside)
    visit = 0
    while visit < T:
        t = time_of(visit, T, turned)
        x = x_projection + (t * B + far) * (4 * H) + unit[None, :]
        found = state
        found_cell = cell_state
        if resets is not None:
            forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
            found = tl.where(forgotten, 0.0, found)
            found_cell = tl.where(forgotten, 0.0, found_cell)
        h = operand(found, number, PRECISION)
        a_input = load(x, inside) + biases[0]
        a_forget = load(x + H, inside) + biases[1]
        a_candidate = load(x + 2 * H, inside) + biases[2]
        a_output = load(x + 3 * H, inside) + biases[3]
        # In a branch, always taken: else the weights are fetched from the chip into registers before the loop
        # and from there spilled.
        if visit >= 0:
            a_input = multiply_add(h, weights[0], a_input, PRECISION, INTERPRETED)
            a_forget = multiply_add(h, weights[1], a_forget, PRECISION, INTERPRETED)
            a_candidate = multiply_add(h, weights[2], a_candidate, PRECISION, INTERPRETED)
            a_output = multiply_add(h, weights[3], a_output, PRECISION, INTERPRETED)
        input, forget, candidate, output, new_cell, shown = gates(
            a_input, a_forget, a_candidate, a_output, found_cell, APPROXIMATE
        )
        now = shown
        if weight_hr is not None:
            now = tl.zeros((ROWS, OUTPUTS), tl.float32)
            if visit >= 0:
                m = operand(shown, number, PRECISION)
                now = multiply_add(m, projection, now, PRECISION, INTERPRETED)
        if lengths is not None:
            ended = has_ended(lengths, row, present, t)[:, None]
            now = tl.where(ended, state, now)
            new_cell = tl.where(ended, cell_state, new_cell)
        state = now
        cell_state = new_cell
        store(states + (t * B + far) * P + output_unit[None, :], state, output_inside)
        if tape is not None:
            slot = tape + (t * B + far) * (SLOTS * H) + unit[None, :]
            if SLOTS == 5:
                store(slot, input, inside)
                store(slot + H, forget, inside)
                store(slot + 2 * H, candidate, inside)
                store(slot + 3 * H, output, inside)
            store(slot + (SLOTS - 1) * H, cell_state, inside)
        visit += 1
    store(last_cell + far * H + unit[None, :], cell_state, inside)


@triton.jit(do_not_specialize=["T", "B", "reverse"])
def lstm_whole_backward(
    d_states,  # [T, B, P] or None
    d_last_hidden,  # [B, P] or None
    d_last_cell,  # [B, H] or None
    cell,  # [B, H]
    weight_hh,  # [4H, P]
    weight_hr,  # [P, H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    tape,  # [T, B, 5, H]
    d_gates,  # out [T, B, 4, H]: input, forget, candidate, output
    d_projected,  # out [T, B, P] with a projection, else None
    d_hidden,  # out [B, P]
    d_cell,  # out [B, H]
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    H: tl.constexpr,
    P: tl.constexpr,
    UNITS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """All steps of a tile of rows, backward: d_states, d_last_*, tape -> d_gates, d_hidden, d_cell."""
    direction = tl.program_id(1)
    turned = reverse + direction
    if d_states is not None:
        d_states = of(d_states, direction, T * B, P)
    if d_last_hidden is not None:
        d_last_hidden = of(d_last_hidden, direction, B, P)
    if d_last_cell is not None:
        d_last_cell = of(d_last_cell, direction, B, H)
    cell = of(cell, direction, B, H)
    weight_hh = of(weight_hh, direction, 4 * H, P)
    if weight_hr is not None:
        weight_hr = of(weight_hr, direction, P, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    tape = of(tape, direction, T * B, 5 * H)
    d_gates = of(d_gates, direction, T * B, 4 * H)
    if d_projected is not None:
        d_projected = of(d_projected, direction, T * B, P)
    d_hidden = of(d_hidden, direction, B, P)
    d_cell = of(d_cell, direction, B, H)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    output_unit = tl.arange(0, OUTPUTS)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    output_inside = present[:, None] & (output_unit < P)[None, :]
    far = row[:, None].to(tl.int64)
    number: tl.constexpr = weight_hh.dtype.element_ty

    # U of each gate, [k, output] with k the gate's unit
    there = (unit < H)[:, None] & (output_unit < P)[None, :]
    weights = ()
    for gate in tl.static_range(4):
        of_gate = weight_hh + (gate * H + unit)[:, None] * P + output_unit[None, :]
        weights = weights + (tl.load(of_gate, mask=there, other=0.0),)
    if weight_hr is not None:
        there = (output_unit < P)[:, None] & (unit < H)[None, :]
        projection = tl.load(weight_hr + output_unit[:, None] * H + unit[None, :], mask=there, other=0.0)

    d_state = tl.zeros((ROWS, OUTPUTS), tl.float32)
    if d_last_hidden is not None:
        d_state += load(d_last_hidden + far * P + output_unit[None, :], output_inside)
    d_cell_state = tl.zeros((ROWS, UNITS), tl.float32)
    if d_last_cell is not None:
        d_cell_state += load(d_last_cell + far * H + unit[None, :], inside)
    visit = T - 1
    while visit >= 0:
        t = time_of(visit, T, turned)
        d = d_state
        if d_states is not None:
            d += load(d_states + (t * B + far) * P + output_unit[None, :], output_inside)
        slot = tape + (t * B + far) * (5 * H) + unit[None, :]
        # the cell state that the step found: a slot of the step before, or the initial one
        before = tape + (time_of(visit - 1, T, turned) * B + far) * (5 * H) + 4 * H + unit[None, :]
        found_cell = load(before, only_if(visit > 0, inside))
        found_cell += load(cell + far * H + unit[None, :], only_if(visit == 0, inside))
        if resets is not None:
            forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
            found_cell = tl.where(forgotten, 0.0, found_cell)
        d_shown = d
        if weight_hr is not None:
            d_shown = tl.zeros((ROWS, UNITS), tl.float32)
            if visit < T:  # see above
                m = operand(d, number, PRECISION)
                d_shown = multiply_add(m, projection, d_shown, PRECISION, INTERPRETED)
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
        sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
        if visit < T:  # see above
            through = operand(d_input, number, PRECISION)
            sums = multiply_add(through, weights[0], sums, PRECISION, INTERPRETED)
            through = operand(d_forget, number, PRECISION)
            sums = multiply_add(through, weights[1], sums, PRECISION, INTERPRETED)
            through = operand(d_candidate, number, PRECISION)
            sums = multiply_add(through, weights[2], sums, PRECISION, INTERPRETED)
            through = operand(d_output, number, PRECISION)
            sums = multiply_add(through, weights[3], sums, PRECISION, INTERPRETED)
        if lengths is not None:
            sums = tl.where(ended, d, sums)
        if resets is not None:
            sums = tl.where(forgotten, 0.0, sums)
            d_found_cell = tl.where(forgotten, 0.0, d_found_cell)
        if d_projected is not None:
            left = d
            if lengths is not None:
                left = tl.where(ended, 0.0, d)
            store(d_projected + (t * B + far) * P + output_unit[None, :], left, output_inside)
        slot = d_gates + (t * B + far) * (4 * H) + unit[None, :]
        store(slot, d_input, inside)
        store(slot + H, d_forget, inside)
        store(slot + 2 * H, d_candidate, inside)
        store(slot + 3 * H, d_output, inside)
        d_state = sums
        d_cell_state = d_found_cell
        visit -= 1
    store(d_hidden + far * P + output_unit[None, :], d_state, output_inside)
    store(d_cell + far * H + unit[None, :], d_cell_state, inside)
