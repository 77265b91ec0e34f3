"""The LSTM's kernels on tensors: the contract of a backend (see `gatedcells_kernels.tape`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells_kernels.tape import LSTM_GATES, LSTM_SLOTS, Keep
from gatedcells_kernels.triton import calls, launch
from gatedcells_kernels.triton.lstm_pointwise import lstm_pointwise_backward, lstm_pointwise_forward
from gatedcells_kernels.triton.lstm_projected_backward_slices import lstm_projected_slices_backward
from gatedcells_kernels.triton.lstm_projected_slices import lstm_projected_slices_forward
from gatedcells_kernels.triton.lstm_slices import lstm_slices_backward, lstm_slices_forward
from gatedcells_kernels.triton.lstm_whole import lstm_whole_backward, lstm_whole_forward


def lstm_forward(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    keep: Keep,
) -> tuple[Tensor, Tensor, Tensor]:
    """All hidden states ``[T, B, H]`` or ``[T, B, P]``, the last cell state ``[B, H]`` and what is kept:
    the tape ``[T, B, 5, H]``, the cell states ``[T, B, 1, H]``, or nothing."""
    x_projection = linear(input, weight_ih, bias_ih)
    return _forward(x_projection, hidden, cell, weight_hh, bias_hh, weight_hr, lengths, resets, reverse, keep)


def lstm_both_forward(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    keep: Keep,
) -> tuple[Tensor, Tensor, Tensor]:
    """`lstm_forward` in both directions, the second against the order of time, in one grid where they fit:
    all but the input and the lengths, and all that is returned, with an axis of two in front."""
    x_projection = calls.both_projections(input, weight_ih, bias_ih)
    stacked = (x_projection, hidden, cell, weight_hh, bias_hh, weight_hr, resets)
    if launch.in_one_grid(_request(x_projection, hidden, cell, weight_hr), calls.device(hidden)):
        return _forward(*stacked[:6], lengths, resets, False, keep)
    found: list[tuple[Tensor, ...]] = []
    for d in (0, 1):
        x, h, c, w, b, v, r = calls.direction(d, *stacked)
        assert x is not None
        assert h is not None
        assert c is not None
        assert w is not None
        found.append(_forward(x, h, c, w, b, v, lengths, r, d == 1, keep))
    states, last_cell, tape = calls.stacked(found)
    return states, last_cell, tape


def _request(like: Tensor, hidden: Tensor, cell: Tensor, weight_hr: Tensor | None) -> launch.Request:
    """For a tensor ``[T, B, ...]``, or two in one."""
    T, B = like.shape[hidden.dim() - 2 :][:2]
    H, P = cell.shape[-1], hidden.shape[-1]
    return launch.Request(
        "LSTM", T, B, H, P, calls.numbers(hidden),
        directions=hidden.dim() - 1, projected=weight_hr is not None,
    )  # fmt: skip


def _forward(
    x_projection: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    keep: Keep,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction, or both stacked."""
    request = _request(x_projection, hidden, cell, weight_hr)
    T, B, H, P, slots = request.T, request.B, request.H, request.P, LSTM_SLOTS[keep]
    both = hidden.shape[:-2]
    states = hidden.new_empty(*both, T, B, P)
    last_cell = cell.new_empty(cell.shape)
    tape = hidden.new_empty((*both, T, B, slots, H) if keep else (0,))
    if cell.numel() == 0:
        return states, last_cell, tape
    given: dict[str, Any] = {
        "x_projection": x_projection.contiguous(),
        "hidden": hidden.contiguous(),
        "cell": cell.contiguous(),
        "weight_hh": weight_hh.contiguous(),
        "bias_hh": calls.contiguous(bias_hh),
        "lengths": calls.as_lengths(lengths),
        "resets": calls.as_bytes(resets),
        "states": states,
        "last_cell": last_cell,
        "tape": tape if keep else None,
        "T": T, "B": B, "H": H, "SLOTS": slots, "reverse": int(reverse),
    }  # fmt: skip
    plan = launch.plan(request, calls.device(hidden))
    numerics = calls.numerics(hidden)
    projection = {"P": P, "weight_hr": calls.contiguous(weight_hr)}
    if plan.kernel == "whole":
        calls.run_whole(lstm_whole_forward, plan, given | numerics | projection)
    elif plan.kernel == "library":
        _library_forward(given, weight_hr, numerics["APPROXIMATE"])
    else:
        given |= numerics | {"carry": torch.empty_like(given["cell"], dtype=torch.float32)}
        if weight_hr is None:
            calls.run_slices(lstm_slices_forward, plan, given, visits=T)
        else:
            given |= projection | {"shown": torch.empty_like(given["cell"])}
            calls.run_slices(lstm_projected_slices_forward, plan, given, visits=2 * T)
    return states, last_cell, tape


def _library_forward(given: dict[str, Any], weight_hr: Tensor | None, approximate: bool) -> None:
    hidden, weight_hh, B, H, states = (given[n] for n in ("hidden", "weight_hh", "B", "H", "states"))
    operand = calls.as_found(hidden, given)
    shown = operand if weight_hr is None else hidden.new_empty(B, H)
    cell = given["cell"].to(torch.float32, copy=True)
    given = given | {
        "cell": cell, "state": hidden.to(torch.float32, copy=True), "operand": shown,
        "h_projection": hidden.new_empty(B, 4 * H), "APPROXIMATE": approximate,
        "states": states if weight_hr is None else None,
    }  # fmt: skip
    before = hidden
    for visit in range(given["T"]):
        torch.mm(operand, weight_hh.t(), out=given["h_projection"])
        calls.run_pointwise(lstm_pointwise_forward, given, visit=visit)
        if weight_hr is not None:
            t = calls.time_of(visit, given)
            now = torch.mm(shown, weight_hr.t(), out=states[t])
            if given["lengths"] is not None:
                now.copy_(calls.unless_ended(now, before, t, given))
            before = operand = now
            if given["resets"] is not None and visit + 1 < given["T"]:
                operand = calls.as_found(now, given, visit + 1)
    given["last_cell"].copy_(cell)


def lstm_backward(
    d_states: Tensor | None,
    d_last_hidden: Tensor | None,
    d_last_cell: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reverse: bool,
    initial: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gates' gradients ``[T, B, 4, H]`` in the order LSTM_GATES; dL/dh of every step as it leaves
    the projection ``[T, B, P]`` (empty without one); dL/dh_0 and dL/dc_0 (if not ``initial``, anything).
    Of tensors that hold both directions, both (see `lstm_both_backward`)."""
    request = _request(states, hidden, cell, weight_hr)
    T, B, H, P = request.T, request.B, request.H, request.P
    both = hidden.shape[:-2]
    d_gates = states.new_empty(*both, T, B, len(LSTM_GATES), H)
    d_projected = states.new_empty(states.shape if weight_hr is not None else (0,))
    d_hidden, d_cell = states.new_empty(*both, B, P), cell.new_empty(*both, B, H)
    if cell.numel() == 0:
        return d_gates, d_projected, d_hidden, d_cell
    given: dict[str, Any] = {
        "d_states": calls.contiguous(d_states),
        "d_last_hidden": calls.contiguous(d_last_hidden),
        "d_last_cell": calls.contiguous(d_last_cell),
        "cell": cell.contiguous(),
        "weight_hh": weight_hh.contiguous(),
        "lengths": calls.as_lengths(lengths),
        "resets": calls.as_bytes(resets),
        "tape": tape.contiguous(),
        "d_gates": d_gates,
        "d_hidden": d_hidden,
        "d_cell": d_cell,
        "T": T, "B": B, "H": H, "reverse": int(reverse),
    }  # fmt: skip
    plan = launch.plan(request, calls.device(states))
    numerics = calls.numerics(states)
    projected = d_projected if weight_hr is not None else None
    projection = {"P": P, "weight_hr": calls.contiguous(weight_hr), "d_projected": projected}
    if plan.kernel == "whole":
        calls.run_whole(lstm_whole_backward, plan, given | numerics | projection)
    elif plan.kernel == "library":
        _library_backward(given, weight_hr, projected, numerics["APPROXIMATE"])
    elif weight_hr is None:
        given |= numerics | {"carry": cell.new_empty((*both, 2, B, H), dtype=torch.float32)}
        calls.run_slices(lstm_slices_backward, plan, given, visits=T + 1)
    else:
        given |= numerics | projection
        given |= {
            "carry": cell.new_empty((*both, B, P), dtype=torch.float32),
            "carry_cell": cell.new_empty((*both, B, H), dtype=torch.float32),
        }
        calls.run_slices(lstm_projected_slices_backward, plan, given, visits=2 * T + 1)
    return d_gates, d_projected, d_hidden, d_cell


def lstm_both_backward(
    d_states: Tensor | None,
    d_last_hidden: Tensor | None,
    d_last_cell: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`lstm_backward` of both directions, as `lstm_both_forward` stacks them."""
    stacked = (d_states, d_last_hidden, d_last_cell, hidden, cell, weight_hh, weight_hr, resets, states, tape)
    if launch.in_one_grid(_request(states, hidden, cell, weight_hr), calls.device(hidden)):
        return lstm_backward(*stacked[:7], lengths, *stacked[7:], False)
    found: list[tuple[Tensor, ...]] = []
    for d in (0, 1):
        d_s, d_h, d_c, h, c, w, v, r, s, kept = calls.direction(d, *stacked)
        assert h is not None
        assert c is not None
        assert w is not None
        assert s is not None
        assert kept is not None
        found.append(lstm_backward(d_s, d_h, d_c, h, c, w, v, lengths, r, s, kept, d == 1))
    d_gates, d_projected, d_hidden, d_cell = calls.stacked(found)
    return d_gates, d_projected, d_hidden, d_cell


def _library_backward(
    given: dict[str, Any], weight_hr: Tensor | None, d_projected: Tensor | None, approximate: bool
) -> None:
    weight_hh, d_gates, d_states = (given[n] for n in ("weight_hh", "d_gates", "d_states"))
    B, H, d_hidden, d_initial_cell = (given[n] for n in ("B", "H", "d_hidden", "d_cell"))
    d_cell = given["cell"].new_zeros((B, H), dtype=torch.float32)
    d = torch.zeros_like(d_hidden, dtype=torch.float32)
    if given["d_last_cell"] is not None:
        d_cell += given["d_last_cell"]
    if given["d_last_hidden"] is not None:
        d += given["d_last_hidden"]
    d_shown = d_cell.new_empty(B, H)
    given = given | {"d_cell": d_cell, "d_shown": d_shown, "APPROXIMATE": approximate}
    for visit in reversed(range(given["T"])):
        t = calls.time_of(visit, given)
        if d_states is not None:
            d = d + d_states[t]
        if weight_hr is None:
            d_shown.copy_(d)
        else:
            assert d_projected is not None
            d_projected[t] = calls.unless_ended(d, torch.zeros_like(d), t, given)
            d_shown.copy_(torch.mm(d.to(weight_hr.dtype), weight_hr))
        calls.run_pointwise(lstm_pointwise_backward, given, visit=visit)
        through = torch.mm(d_gates[t].flatten(1), weight_hh).float()
        d = calls.as_found(calls.unless_ended(through, d, t, given), given, visit)
    d_hidden.copy_(d)
    d_initial_cell.copy_(d_cell)
