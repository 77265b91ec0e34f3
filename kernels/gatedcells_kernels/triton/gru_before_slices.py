"""A GRU sequence with the reset gate before the matrix product, the hidden units cut into slices.

As gru_slices.py, but a step is two visits, because the candidate's product reads r ⊙ h of all units: one for
reset and update, one for candidate and state, a meeting after each (MEET) or a launch each. What goes from
one program to another: the states and the gates' gradients through the output, r ⊙ h through one buffer; it
is written again only after all have met who read it. Letters: T times, B rows, H hidden units; a tile is
ROWS x UNITS, the sums over hidden units go DEPTH at a time.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, multiply_add, operand, store
from gatedcells_kernels.triton.gru_gates import (
    candidate_before,
    combine,
    combine_backward,
    reset_and_update,
    reset_backward,
)
from gatedcells_kernels.triton.meeting import arrive, wait_for
from gatedcells_kernels.triton.walk import forgets, has_ended, of, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "reverse", "first", "last"])
def gru_before_slices_forward(
    x_projection,  # [T, B, 3H]: W x + b_i
    hidden,  # [B, H]
    weight_hh,  # [3H, H]
    bias_hh,  # [3H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # out [T, B, H]
    tape,  # out [T, B, 4, H] or None
    gated,  # [B, H]: r ⊙ h of the step, from one visit to the next
    carry,  # [B, H] float32: the update gate between launches
    counters,  # zeros, one for each direction and tile of rows; read with MEET only
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    first,  # the first visit of this launch: 2T in all, two a step
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
    """Some visits of a slice of units and a tile of rows, forward: x_projection, hidden -> states, tape."""
    direction = tl.program_id(2)
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
    gated = of(gated, direction, B, H)
    carry = of(carry, direction, B, H)
    CHUNKS: tl.constexpr = (H + DEPTH - 1) // DEPTH
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    counter = counters + direction * tl.num_programs(1) + tl.program_id(1)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    far = row[:, None].to(tl.int64)
    at = far * H + unit[None, :]
    number: tl.constexpr = weight_hh.dtype.element_ty

    # W^T by chunks of k; reset and update side by side, so that one product yields both
    pair = tl.arange(0, 2 * UNITS)
    paired = tl.program_id(0) * UNITS + pair // 2
    w_gates = ()
    w_candidate = ()
    for chunk in tl.static_range(CHUNKS):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        of_pair = weight_hh + ((pair % 2) * H + paired)[None, :] * H + k[:, None]
        there = (k < H)[:, None] & (paired < H)[None, :]
        w_gates = w_gates + (tl.load(of_pair, mask=there, other=0.0),)
        of_candidate = weight_hh + (2 * H + unit)[None, :] * H + k[:, None]
        there = (k < H)[:, None] & (unit < H)[None, :]
        w_candidate = w_candidate + (tl.load(of_candidate, mask=there, other=0.0),)
    b_reset = tl.zeros((1, UNITS), tl.float32)
    b_update = b_reset
    b_candidate = b_reset
    if bias_hh is not None:
        b_reset = load(bias_hh + unit, unit < H)[None, :]
        b_update = load(bias_hh + H + unit, unit < H)[None, :]
        b_candidate = load(bias_hh + 2 * H + unit, unit < H)[None, :]

    source = hidden
    if first > 1:
        source = states + time_of(first // 2 - 1, T, turned).to(tl.int64) * B * H
    state = load(source + at, inside)
    update = tl.zeros((ROWS, UNITS), tl.float32)
    if first % 2 == 1:
        update += load(carry + at, inside)
    visit = first
    while visit < last:
        t = time_of(visit // 2, T, turned)
        x = x_projection + (t * B + far) * (3 * H) + unit[None, :]
        found = state
        if resets is not None:
            forgotten = forgets(resets, lengths, row, present, t, B)[:, None]
            found = tl.where(forgotten, 0.0, state)
        if visit % 2 == 0:
            # under way while the program waits
            x_reset = load(x, inside)
            x_update = load(x + H, inside)
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            h_gates = tl.zeros((ROWS, 2 * UNITS), tl.float32)
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
                h_gates = multiply_add(h, w_gates[chunk], h_gates, PRECISION, INTERPRETED)
            h_reset, h_update = tl.split(tl.reshape(h_gates, (ROWS, UNITS, 2)))
            reset, update = reset_and_update(
                x_reset, x_update, h_reset + b_reset, h_update + b_update, APPROXIMATE
            )
            store(gated + at, reset * found, inside)
            if MEET:
                arrive(counter)
            if tape is not None:
                slot = tape + (t * B + far) * (4 * H) + unit[None, :]
                store(slot, reset, inside)
                store(slot + H, update, inside)
        else:
            x_candidate = load(x + 2 * H, inside)
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            h_candidate = tl.zeros((ROWS, UNITS), tl.float32)
            for chunk in tl.static_range(CHUNKS):
                k = chunk * DEPTH + tl.arange(0, DEPTH)
                h = tl.load(
                    gated + far * H + k[None, :],
                    mask=present[:, None] & (k < H)[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                h = operand(h, number, PRECISION)
                h_candidate = multiply_add(h, w_candidate[chunk], h_candidate, PRECISION, INTERPRETED)
            h_candidate += b_candidate
            candidate = candidate_before(x_candidate, h_candidate, APPROXIMATE)
            now = combine(candidate, found, update)
            if lengths is not None:
                now = tl.where(has_ended(lengths, row, present, t)[:, None], state, now)
            state = now
            source = states + t.to(tl.int64) * B * H
            store(source + at, state, inside)
            if MEET:
                arrive(counter)
            if tape is not None:
                slot = tape + (t * B + far) * (4 * H) + unit[None, :]
                store(slot + 2 * H, candidate, inside)
                store(slot + 3 * H, h_candidate, inside)
        visit += 1
    if last % 2 == 1:
        store(carry + at, update, inside)


@triton.jit(do_not_specialize=["T", "B", "reverse", "first", "last"])
def gru_before_slices_backward(
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
    carry,  # [B, H] float32: the direct part of dL/dh between launches
    counters,  # zeros, one for each direction and tile of rows; read with MEET only
    T,
    B,
    reverse,  # 1 against the order of time; of two directions 0, the second is turned
    first,  # the first visit of this launch, counted from the last step: 2T + 1 in all
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
    """Some visits of a slice of units and a tile of rows, backward: d_states, tape -> d_gates, d_hidden."""
    direction = tl.program_id(2)
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
    carry = of(carry, direction, B, H)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    counter = counters + direction * tl.num_programs(1) + tl.program_id(1)
    present = row < B
    inside = present[:, None] & (unit < H)[None, :]
    far = row[:, None].to(tl.int64)
    at = far * H + unit[None, :]
    number: tl.constexpr = weight_hh.dtype.element_ty

    # W's columns of this slice: by chunks of the 2H reset and update gates, and of the H candidates
    GATES: tl.constexpr = (2 * H + DEPTH - 1) // DEPTH
    CANDIDATES: tl.constexpr = (H + DEPTH - 1) // DEPTH
    w_gates = ()
    w_candidate = ()
    for chunk in tl.static_range(GATES):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < 2 * H)[:, None] & (unit < H)[None, :]
        w_gates = w_gates + (tl.load(weight_hh + k[:, None] * H + unit[None, :], mask=there, other=0.0),)
    for chunk in tl.static_range(CANDIDATES):
        k = chunk * DEPTH + tl.arange(0, DEPTH)
        there = (k < H)[:, None] & (unit < H)[None, :]
        of_candidate = weight_hh + (2 * H + k)[:, None] * H + unit[None, :]
        w_candidate = w_candidate + (tl.load(of_candidate, mask=there, other=0.0),)

    direct = tl.zeros((ROWS, UNITS), tl.float32)
    if first > 0:
        direct += load(carry + at, inside)
    elif d_last is not None:
        direct += load(d_last + at, inside)
    visit = first
    while visit < last:
        step = visit // 2
        # the last visit has no step any more; it looks at the one before
        t = time_of(tl.maximum(T - 1 - step, 0), T, turned)
        slot = tape + (t * B + far) * (4 * H) + unit[None, :]
        d_slot = d_gates + (t * B + far) * (4 * H) + unit[None, :]
        # the state that the step found: of the step before, or the initial one
        before = states + (time_of(T - 2 - step, T, turned) * B + far) * H + unit[None, :]
        found = load(before, only_if(step < T - 1, inside))
        found += load(hidden + at, only_if(step >= T - 1, inside))
        if resets is not None:
            found = tl.where(forgets(resets, lengths, row, present, t, B)[:, None], 0.0, found)
        if visit % 2 == 0:
            # dL/dh after the step: what the step visited before passes on through its gates, and directly
            d = direct
            if step > 0:
                later = time_of(T - step, T, turned)
                if MEET:
                    wait_for(counter, (visit - first) * tl.num_programs(0))
                sums = tl.zeros((ROWS, UNITS), tl.float32)  # see gru_slices.py
                for chunk in tl.static_range(GATES):
                    k = chunk * DEPTH + tl.arange(0, DEPTH)
                    through = tl.load(
                        d_gates + (later * B + far) * (4 * H) + H + k[None, :],
                        mask=present[:, None] & (k < 2 * H)[None, :],
                        other=0.0,
                        cache_modifier=".cg",
                    )
                    through = operand(through, number, PRECISION)
                    sums = multiply_add(through, w_gates[chunk], sums, PRECISION, INTERPRETED)
                d += sums
                if resets is not None:
                    d = tl.where(forgets(resets, lengths, row, present, later, B)[:, None], 0.0, d)
            if step < T:
                if d_states is not None:
                    d += load(d_states + (t * B + far) * H + unit[None, :], inside)
                update = load(slot + H, inside)
                candidate = load(slot + 2 * H, inside)
                d_candidate, d_update, direct = combine_backward(d, update, candidate, found)
                if lengths is not None:
                    ended = has_ended(lengths, row, present, t)[:, None]
                    d_candidate = tl.where(ended, 0.0, d_candidate)
                    d_update = tl.where(ended, 0.0, d_update)
                    direct = tl.where(ended, d, direct)
                store(d_slot, d_candidate, inside)
                store(d_slot + 2 * H, d_update, inside)
                store(d_slot + 3 * H, d_candidate, inside)
                if MEET:
                    arrive(counter)
            else:
                store(d_hidden + at, d, inside)
        else:
            reset = load(slot, inside)
            if MEET:
                wait_for(counter, (visit - first) * tl.num_programs(0))
            d_gated = tl.zeros((ROWS, UNITS), tl.float32)
            for chunk in tl.static_range(CANDIDATES):
                k = chunk * DEPTH + tl.arange(0, DEPTH)
                through = tl.load(
                    d_gates + (t * B + far) * (4 * H) + 3 * H + k[None, :],
                    mask=present[:, None] & (k < H)[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                through = operand(through, number, PRECISION)
                d_gated = multiply_add(through, w_candidate[chunk], d_gated, PRECISION, INTERPRETED)
            # of a row that has ended these are zeros
            direct += d_gated * reset
            store(d_slot + H, reset_backward(d_gated * found, reset), inside)
            if MEET:
                arrive(counter)
        visit += 1
    if last <= 2 * T:
        store(carry + at, direct, inside)
