"""A whole GRU sequence in one program for each tile of rows: few hidden units, all weights stay on the chip.

No program waits for another: each has all hidden units of its rows, and the state never leaves the
registers but for being written out. Letters: T times, B rows, H hidden units; a tile is ROWS x UNITS,
UNITS the next power of two from H on.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, multiply_add, operand, store
from gatedcells_kernels.triton.gru_gates import (
    candidate_after,
    candidate_before,
    combine,
    combine_backward,
    reset_and_update,
    reset_backward,
)
from gatedcells_kernels.triton.walk import forgets, has_ended, of, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "reverse"])
def gru_whole_forward(
    x_projection,  # [T, B, 3H]: W x + b_i
    hidden,  # [B, H]
    weight_hh,  # [3H, H]
    bias_hh,  # [3H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # out [T, B, H]
    tape,  # out [T, B, 4, H] or None
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    H: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    RESET_AFTER: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """All steps of a tile of rows, forward: x_projection, hidden -> states, tape."""
    direction = tl.program_id(1)
    turned = reverse + direction
    x_projection = of(x_projection, direction, T * B, 3 * H)
    hidden = of(hidden, direction, B, H)
    weight_hh = of(weight_hh, direction, 3 * H, H)
    if bias_hh is not None:
        bias_hh = of(bias_hh, direction, 3, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    states = of(states, direction, T * B, H)
    if tape is not None:
        tape = of(tape, direction, T * B, 4 * H)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    far = row[:, None].to(tl.int64)
    number: tl.constexpr = weight_hh.dtype.element_ty

    # W^T of each gate, [k, unit]
    square = (unit < H)[:, None] & (unit < H)[None, :]
    of_reset = weight_hh + unit[None, :] * H + unit[:, None]
    w_reset = tl.load(of_reset, mask=square, other=0.0)
    w_update = tl.load(of_reset + H * H, mask=square, other=0.0)
    w_candidate = tl.load(of_reset + 2 * H * H, mask=square, other=0.0)
    b_reset = tl.zeros((1, UNITS), tl.float32)
    b_update = b_reset
    b_candidate = b_reset
    if bias_hh is not None:
        b_reset = load(bias_hh + unit, unit < H)[None, :]
        b_update = load(bias_hh + H + unit, unit < H)[None, :]
        b_candidate = load(bias_hh + 2 * H + unit, unit < H)[None, :]

    state = load(hidden + far * H + unit[None, :], inside)
    x = x_projection + (time_of(0, T, turned) * B + far) * (3 * H) + unit[None, :]
    x_reset = load(x, inside)
    x_update = load(x + H, inside)
    x_candidate = load(x + 2 * H, inside)
    visit = 0
    while visit < T:
        t = time_of(visit, T, turned)
        # what the next step reads is under way while this one computes
        follows = only_if(visit + 1 < T, inside)
        x = x_projection + (time_of(visit + 1, T, turned) * B + far) * (3 * H) + unit[None, :]
        next_reset = load(x, follows)
        next_update = load(x + H, follows)
        next_candidate = load(x + 2 * H, follows)

        found = state
        if resets is not None:
            found = tl.where(forgets(resets, lengths, row, present, t, B)[:, None], 0.0, state)
        h = operand(found, number, PRECISION)
        h_reset = tl.zeros((ROWS, UNITS), tl.float32)
        h_update = h_reset
        h_candidate = h_reset
        # In a branch, always taken: else the weights are fetched from the chip into registers before the loop
        # and from there spilled.
        if visit >= 0:
            h_reset = multiply_add(h, w_reset, h_reset, PRECISION, INTERPRETED)
            h_update = multiply_add(h, w_update, h_update, PRECISION, INTERPRETED)
            if RESET_AFTER:
                h_candidate = multiply_add(h, w_candidate, h_candidate, PRECISION, INTERPRETED)
        reset, update = reset_and_update(
            x_reset, x_update, h_reset + b_reset, h_update + b_update, APPROXIMATE
        )
        if RESET_AFTER:
            h_candidate += b_candidate
            candidate = candidate_after(x_candidate, h_candidate, reset, APPROXIMATE)
        else:
            if visit >= 0:
                gated = operand(reset * found, number, PRECISION)
                h_candidate = multiply_add(gated, w_candidate, h_candidate, PRECISION, INTERPRETED)
            h_candidate += b_candidate
            candidate = candidate_before(x_candidate, h_candidate, APPROXIMATE)
        now = combine(candidate, found, update)
        if lengths is not None:
            now = tl.where(has_ended(lengths, row, present, t)[:, None], state, now)
        state = now
        store(states + (t * B + far) * H + unit[None, :], state, inside)
        if tape is not None:
            slot = tape + (t * B + far) * (4 * H) + unit[None, :]
            store(slot, reset, inside)
            store(slot + H, update, inside)
            store(slot + 2 * H, candidate, inside)
            store(slot + 3 * H, h_candidate, inside)
        x_reset = next_reset
        x_update = next_update
        x_candidate = next_candidate
        visit += 1


@triton.jit(do_not_specialize=["T", "B", "reverse"])
def gru_whole_backward(
    d_states,  # [T, B, H] or None
    d_last,  # [B, H] or None
    hidden,  # [B, H]
    weight_hh,  # [3H, H]
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # [T, B, H]
    tape,  # [T, B, 4, H]
    d_gates,  # out [T, B, 4, H]: candidate (input's half), reset, update, candidate (state's half)
    d_hidden,  # out [B, H]
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    H: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    RESET_AFTER: tl.constexpr,
    PRECISION: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """All steps of a tile of rows, backward: d_states, d_last, tape -> d_gates, d_hidden."""
    direction = tl.program_id(1)
    turned = reverse + direction
    if d_states is not None:
        d_states = of(d_states, direction, T * B, H)
    if d_last is not None:
        d_last = of(d_last, direction, B, H)
    hidden = of(hidden, direction, B, H)
    weight_hh = of(weight_hh, direction, 3 * H, H)
    if resets is not None:
        resets = of(resets, direction, T, B)
    states = of(states, direction, T * B, H)
    tape = of(tape, direction, T * B, 4 * H)
    d_gates = of(d_gates, direction, T * B, 4 * H)
    d_hidden = of(d_hidden, direction, B, H)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    far = row[:, None].to(tl.int64)
    number: tl.constexpr = weight_hh.dtype.element_ty

    # W of each gate, [k, unit] with k the gate's unit
    square = (unit < H)[:, None] & (unit < H)[None, :]
    of_reset = weight_hh + unit[:, None] * H + unit[None, :]
    w_reset = tl.load(of_reset, mask=square, other=0.0)
    w_update = tl.load(of_reset + H * H, mask=square, other=0.0)
    w_candidate = tl.load(of_reset + 2 * H * H, mask=square, other=0.0)
    d_state = tl.zeros((ROWS, UNITS), tl.float32)
    if d_last is not None:
        d_state = load(d_last + far * H + unit[None, :], inside)
    visit = T - 1
    while visit >= 0:
        t = time_of(visit, T, turned)
        at = (t * B + far) * H + unit[None, :]
        d = d_state
        if d_states is not None:
            d += load(d_states + at, inside)
        slot = tape + (t * B + far) * (4 * H) + unit[None, :]
        reset = load(slot, inside)
        update = load(slot + H, inside)
        candidate = load(slot + 2 * H, inside)
        # the state that the step found: of the visit before, or the initial one
        before = states + (time_of(visit - 1, T, turned) * B + far) * H + unit[None, :]
        found = load(before, only_if(visit > 0, inside))
        found += load(hidden + far * H + unit[None, :], only_if(visit == 0, inside))
        if resets is not None:
            forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
            found = tl.where(forgotten, 0.0, found)
        d_candidate, d_update, direct = combine_backward(d, update, candidate, found)
        if lengths is not None:
            ended = has_ended(lengths, row, present, t)[:, None]
            d_candidate = tl.where(ended, 0.0, d_candidate)
            d_update = tl.where(ended, 0.0, d_update)
            direct = tl.where(ended, d, direct)
        if RESET_AFTER:
            h_candidate = load(slot + 3 * H, inside)
            d_reset = reset_backward(d_candidate * h_candidate, reset)
            d_h_candidate = d_candidate * reset
        else:
            d_h_candidate = d_candidate
            d_gated = tl.zeros((ROWS, UNITS), tl.float32)
            if visit < T:  # see above
                through = operand(d_candidate, number, PRECISION)
                d_gated = multiply_add(through, w_candidate, d_gated, PRECISION, INTERPRETED)
            d_reset = reset_backward(d_gated * found, reset)
            direct += d_gated * reset
        # from zero on: else each small term of a float32 product is rounded to the digits of direct
        sums = tl.zeros((ROWS, UNITS), tl.float32)
        if visit < T:  # see above
            if RESET_AFTER:
                through = operand(d_h_candidate, number, PRECISION)
                sums = multiply_add(through, w_candidate, sums, PRECISION, INTERPRETED)
            through = operand(d_reset, number, PRECISION)
            sums = multiply_add(through, w_reset, sums, PRECISION, INTERPRETED)
            through = operand(d_update, number, PRECISION)
            sums = multiply_add(through, w_update, sums, PRECISION, INTERPRETED)
        d_state = direct + sums
        if resets is not None:
            d_state = tl.where(forgotten, 0.0, d_state)
        slot = d_gates + (t * B + far) * (4 * H) + unit[None, :]
        store(slot, d_candidate, inside)
        store(slot + H, d_reset, inside)
        store(slot + 2 * H, d_update, inside)
        store(slot + 3 * H, d_h_candidate, inside)
        visit -= 1
    store(d_hidden + far * H + unit[None, :], d_state, inside)
