"""The gates of one GRU step around matrix products that a library does: for many hidden units.

One program takes SIZE of the B x H numbers of a state. The state goes from step to step in float32; what
the next product reads is written beside it in the weights' dtype. With the reset gate before the matrix
product a step has two products, so its gates come in two launches. Letters: T times, B rows, H hidden units.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import load, store
from gatedcells_kernels.triton.gru_gates import (
    candidate_after,
    candidate_before,
    combine,
    combine_backward,
    reset_and_update,
    reset_backward,
)
from gatedcells_kernels.triton.walk import forgets, has_ended, only_if, time_of


@triton.jit(do_not_specialize=["T", "B", "visit", "reverse"])
def gru_pointwise_forward(
    x_projection,  # [T, B, 3H]: W x + b_i
    h_projection,  # [B, 3H]: U h; with the reset gate before, reset and update [B, 2H]
    gated_projection,  # [B, H]: U_n (r ⊙ h), in PHASE "candidate" only
    bias_hh,  # [3H] or None
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    state,  # in and out [B, H] float32: h as the step before left it
    gates,  # [2, B, H] float32: reset and update from phase "gates" to phase "candidate"
    operand,  # out [B, H]: what the next product reads, r ⊙ h in phase "gates", else the next step's h
    states,  # out [T, B, H]
    tape,  # out [T, B, 4, H] or None
    T,
    B,
    visit,
    reverse,  # 1 against the order of time
    H: tl.constexpr,
    SIZE: tl.constexpr,
    PHASE: tl.constexpr,  # "all" (reset after), "gates" and "candidate" (before)
    APPROXIMATE: tl.constexpr,
):
    """One step, or one half of it, forward: x_projection, h_projection, state -> state, states, tape."""
    number = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    row = number // H
    unit = number % H
    inside = row < B
    t = time_of(visit, T, reverse)
    x = x_projection + (t * B + row) * (3 * H) + unit
    old = load(state + number, inside)
    found = old
    if resets is not None:
        found = tl.where(forgets(resets, lengths, row, inside, t, B), 0.0, old)
    if PHASE == "candidate":
        reset = load(gates + number, inside)
        update = load(gates + B.to(tl.int64) * H + number, inside)
    else:
        width: tl.constexpr = 3 if PHASE == "all" else 2
        h = h_projection + row * (width * H) + unit
        h_reset = load(h, inside)
        h_update = load(h + H, inside)
        if bias_hh is not None:
            h_reset += load(bias_hh + unit, inside)
            h_update += load(bias_hh + H + unit, inside)
        reset, update = reset_and_update(load(x, inside), load(x + H, inside), h_reset, h_update, APPROXIMATE)
    if PHASE == "gates":
        store(gates + number, reset, inside)
        store(gates + B.to(tl.int64) * H + number, update, inside)
        store(operand + number, reset * found, inside)
    else:
        if PHASE == "all":
            h_candidate = load(h_projection + row * (3 * H) + 2 * H + unit, inside)
        else:
            h_candidate = load(gated_projection + number, inside)
        if bias_hh is not None:
            h_candidate += load(bias_hh + 2 * H + unit, inside)
        x_candidate = load(x + 2 * H, inside)
        if PHASE == "all":
            candidate = candidate_after(x_candidate, h_candidate, reset, APPROXIMATE)
        else:
            candidate = candidate_before(x_candidate, h_candidate, APPROXIMATE)
        now = combine(candidate, found, update)
        if lengths is not None:
            now = tl.where(has_ended(lengths, row, inside, t), old, now)
        store(state + number, now, inside)
        store(states + t.to(tl.int64) * B * H + number, now, inside)
        if tape is not None:
            slot = tape + (t * B + row) * (4 * H) + unit
            store(slot, reset, inside)
            store(slot + H, update, inside)
            store(slot + 2 * H, candidate, inside)
            store(slot + 3 * H, h_candidate, inside)
        after = now
        if resets is not None:
            following = time_of(visit + 1, T, reverse)
            there = only_if(visit + 1 < T, inside)
            after = tl.where(forgets(resets, lengths, row, there, following, B) & there, 0.0, now)
        store(operand + number, after, inside)


@triton.jit(do_not_specialize=["T", "B", "visit", "reverse"])
def gru_pointwise_backward(
    d_states,  # [T, B, H] or None
    hidden,  # [B, H]
    lengths,  # [B] int32 or None
    resets,  # [T, B] uint8 or None
    states,  # [T, B, H]
    tape,  # [T, B, 4, H]
    d_gates,  # out [T, B, 4, H]: candidate (input's half), reset, update, candidate (state's half)
    direct,  # in and out [B, H] float32: the part of dL/dh that does not go through a product
    product,  # [B, H]: what goes through one, of the step visited before; in PHASE "reset" dL/d(r ⊙ h)
    T,
    B,
    visit,
    reverse,  # 1 against the order of time
    H: tl.constexpr,
    SIZE: tl.constexpr,
    PHASE: tl.constexpr,  # "all" (reset after), "candidate" and "reset" (before)
):
    """One step, or one half of it, backward: d_states, direct, product, tape -> d_gates, direct."""
    number = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    row = number // H
    unit = number % H
    inside = row < B
    t = time_of(visit, T, reverse)
    slot = tape + (t * B + row) * (4 * H) + unit
    d_slot = d_gates + (t * B + row) * (4 * H) + unit
    reset = load(slot, inside)
    # the state that the step found: of the visit before, or the initial one
    before = time_of(visit - 1, T, reverse).to(tl.int64)
    found = load(states + before * B * H + number, only_if(visit > 0, inside))
    found += load(hidden + number, only_if(visit == 0, inside))
    if resets is not None:
        found = tl.where(forgets(resets, lengths, row, inside, t, B), 0.0, found)
    if PHASE == "reset":
        d_gated = load(product + number, inside)
        store(d_slot + H, reset_backward(d_gated * found, reset), inside)
        store(direct + number, load(direct + number, inside) + d_gated * reset, inside)
    else:
        update = load(slot + H, inside)
        candidate = load(slot + 2 * H, inside)
        d = load(direct + number, inside) + load(product + number, only_if(visit + 1 < T, inside))
        if resets is not None:
            later = time_of(visit + 1, T, reverse)
            there = only_if(visit + 1 < T, inside)
            d = tl.where(forgets(resets, lengths, row, there, later, B) & there, 0.0, d)
        if d_states is not None:
            d += load(d_states + t.to(tl.int64) * B * H + number, inside)
        d_candidate, d_update, passed = combine_backward(d, update, candidate, found)
        if lengths is not None:
            ended = has_ended(lengths, row, inside, t)
            d_candidate = tl.where(ended, 0.0, d_candidate)
            d_update = tl.where(ended, 0.0, d_update)
            passed = tl.where(ended, d, passed)
        store(direct + number, passed, inside)
        store(d_slot, d_candidate, inside)
        store(d_slot + 2 * H, d_update, inside)
        if PHASE == "all":
            h_candidate = load(slot + 3 * H, inside)
            store(d_slot + H, reset_backward(d_candidate * h_candidate, reset), inside)
            store(d_slot + 3 * H, d_candidate * reset, inside)
        else:
            store(d_slot + 3 * H, d_candidate, inside)
