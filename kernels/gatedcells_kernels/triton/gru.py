"""The GRU's kernels on tensors: the contract of a backend (see `gatedcells_kernels.tape`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells_kernels.tape import GRU_GATE_GRADS, GRUTape, Keep
from gatedcells_kernels.triton import calls, launch
from gatedcells_kernels.triton.gru_before_slices import gru_before_slices_backward, gru_before_slices_forward
from gatedcells_kernels.triton.gru_pointwise import gru_pointwise_backward, gru_pointwise_forward
from gatedcells_kernels.triton.gru_slices import gru_slices_backward, gru_slices_forward
from gatedcells_kernels.triton.gru_whole import gru_whole_backward, gru_whole_forward


def gru_forward(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    reset_after: bool,
    keep: Keep,
) -> tuple[Tensor, Tensor]:
    """All states ``[T, B, H]`` and the tape ``[T, B, 4, H]`` (empty unless ``keep`` is TAPE)."""
    x_projection = linear(input, weight_ih, bias_ih)
    return _forward(x_projection, hidden, weight_hh, bias_hh, lengths, resets, reverse, reset_after, keep)


def gru_both_forward(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reset_after: bool,
    keep: Keep,
) -> tuple[Tensor, Tensor]:
    """`gru_forward` in both directions, the second against the order of time, in one grid where they fit:
    all but the input and the lengths, and all that is returned, with an axis of two in front."""
    x_projection = calls.both_projections(input, weight_ih, bias_ih)
    stacked = (x_projection, hidden, weight_hh, bias_hh, resets)
    if launch.in_one_grid(_request(x_projection, hidden, reset_after), calls.device(hidden)):
        return _forward(*stacked[:4], lengths, resets, False, reset_after, keep)
    found: list[tuple[Tensor, ...]] = []
    for d in (0, 1):
        x, h, w, b, r = calls.direction(d, *stacked)
        assert x is not None
        assert h is not None
        assert w is not None
        found.append(_forward(x, h, w, b, lengths, r, d == 1, reset_after, keep))
    states, tape = calls.stacked(found)
    return states, tape


def _request(like: Tensor, hidden: Tensor, reset_after: bool) -> launch.Request:
    """For a tensor ``[T, B, ...]``, or two in one."""
    T, B, H = *like.shape[hidden.dim() - 2 :][:2], hidden.shape[-1]
    return launch.Request("GRU", T, B, H, H, calls.numbers(hidden), reset_after, hidden.dim() - 1)


def _forward(
    x_projection: Tensor,
    hidden: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    reset_after: bool,
    keep: Keep,
) -> tuple[Tensor, Tensor]:
    """One direction, or both stacked."""
    request = _request(x_projection, hidden, reset_after)
    T, B, H, slots = request.T, request.B, request.H, len(GRUTape._fields)
    both = hidden.shape[:-2]
    states = hidden.new_empty(*both, T, B, H)
    tape = hidden.new_empty((*both, T, B, slots, H) if keep == Keep.TAPE else (0,))
    if states.numel() == 0:
        return states, tape
    given: dict[str, Any] = {
        "x_projection": x_projection.contiguous(),
        "hidden": hidden.contiguous(),
        "weight_hh": weight_hh.contiguous(),
        "bias_hh": calls.contiguous(bias_hh),
        "lengths": calls.as_lengths(lengths),
        "resets": calls.as_bytes(resets),
        "states": states,
        "tape": tape if keep == Keep.TAPE else None,
        "T": T, "B": B, "H": H, "reverse": int(reverse),
    }  # fmt: skip
    plan = launch.plan(request, calls.device(hidden))
    numerics = calls.numerics(hidden)
    if plan.kernel == "whole":
        calls.run_whole(gru_whole_forward, plan, given | numerics | {"RESET_AFTER": reset_after})
    elif plan.kernel == "library":
        _library_forward(given, reset_after, numerics["APPROXIMATE"])
    elif reset_after:
        calls.run_slices(gru_slices_forward, plan, given | numerics, visits=T)
    else:
        between = {
            "gated": torch.empty_like(given["hidden"]),
            "carry": torch.empty_like(given["hidden"], dtype=torch.float32),
        }
        calls.run_slices(gru_before_slices_forward, plan, given | numerics | between, visits=2 * T)
    return states, tape


def _library_forward(given: dict[str, Any], reset_after: bool, approximate: bool) -> None:
    hidden, weight_hh, B, H = given["hidden"], given["weight_hh"], given["B"], given["H"]
    given = {name: value for name, value in given.items() if name not in ("hidden", "weight_hh")}
    operand = calls.as_found(hidden, given)
    given |= {
        "state": hidden.to(torch.float32, copy=True), "operand": operand, "APPROXIMATE": approximate,
        "gates": hidden.new_empty((2, B, H), dtype=torch.float32),
        "h_projection": hidden.new_empty(B, (3 if reset_after else 2) * H),
        "gated_projection": hidden.new_empty(B, H),
    }  # fmt: skip
    of_gates = weight_hh if reset_after else weight_hh[: 2 * H]
    for visit in range(given["T"]):
        torch.mm(operand, of_gates.t(), out=given["h_projection"])
        if reset_after:
            calls.run_pointwise(gru_pointwise_forward, given, visit=visit, PHASE="all")
        else:
            calls.run_pointwise(gru_pointwise_forward, given, visit=visit, PHASE="gates")
            torch.mm(operand, weight_hh[2 * H :].t(), out=given["gated_projection"])
            calls.run_pointwise(gru_pointwise_forward, given, visit=visit, PHASE="candidate")


def gru_backward(
    d_states: Tensor | None,
    d_last: Tensor | None,
    hidden: Tensor,
    weight_hh: Tensor,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reverse: bool,
    reset_after: bool,
    initial: bool = True,
) -> tuple[Tensor, Tensor]:
    """The gates' gradients ``[T, B, 4, H]`` in the order GRU_GATE_GRADS, and dL/dh_0 ``[B, H]`` (if not
    ``initial``, anything); of tensors that hold both directions, both (see `gru_both_backward`)."""
    request = _request(states, hidden, reset_after)
    T, B, H, slots = request.T, request.B, request.H, len(GRU_GATE_GRADS)
    both = hidden.shape[:-2]
    d_gates = states.new_empty(*both, T, B, slots, H)
    d_hidden = states.new_empty(*both, B, H)
    if states.numel() == 0:
        return d_gates, d_hidden
    given: dict[str, Any] = {
        "d_states": calls.contiguous(d_states),
        "d_last": calls.contiguous(d_last),
        "hidden": hidden.contiguous(),
        "weight_hh": weight_hh.contiguous(),
        "lengths": calls.as_lengths(lengths),
        "resets": calls.as_bytes(resets),
        "states": states.contiguous(),
        "tape": tape.contiguous(),
        "d_gates": d_gates,
        "d_hidden": d_hidden,
        "T": T, "B": B, "H": H, "reverse": int(reverse),
    }  # fmt: skip
    plan = launch.plan(request, calls.device(states))
    numerics = calls.numerics(states)
    if plan.kernel == "whole":
        calls.run_whole(gru_whole_backward, plan, given | numerics | {"RESET_AFTER": reset_after})
    elif plan.kernel == "library":
        _library_backward(given, reset_after)
    else:
        given |= numerics | {"carry": states.new_empty((*both, B, H), dtype=torch.float32)}
        if reset_after:
            calls.run_slices(gru_slices_backward, plan, given, visits=T + 1)
        else:
            calls.run_slices(gru_before_slices_backward, plan, given, visits=2 * T + 1)
    return d_gates, d_hidden


def gru_both_backward(
    d_states: Tensor | None,
    d_last: Tensor | None,
    hidden: Tensor,
    weight_hh: Tensor,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reset_after: bool,
) -> tuple[Tensor, Tensor]:
    """`gru_backward` of both directions, as `gru_both_forward` stacks them."""
    stacked = (d_states, d_last, hidden, weight_hh, resets, states, tape)
    if launch.in_one_grid(_request(states, hidden, reset_after), calls.device(hidden)):
        return gru_backward(*stacked[:4], lengths, *stacked[4:], False, reset_after)
    found: list[tuple[Tensor, ...]] = []
    for d in (0, 1):
        d_s, d_l, h, w, r, s, kept = calls.direction(d, *stacked)
        assert h is not None
        assert w is not None
        assert s is not None
        assert kept is not None
        found.append(gru_backward(d_s, d_l, h, w, lengths, r, s, kept, d == 1, reset_after))
    d_gates, d_hidden = calls.stacked(found)
    return d_gates, d_hidden


def _library_backward(given: dict[str, Any], reset_after: bool) -> None:
    weight_hh, hidden, d_gates, d_last = (given[n] for n in ("weight_hh", "hidden", "d_gates", "d_last"))
    T, H, d_hidden = given["T"], given["H"], given["d_hidden"]
    names = ("weight_hh", "d_last", "d_hidden")
    given = {name: value for name, value in given.items() if name not in names}
    direct = torch.zeros_like(hidden, dtype=torch.float32)
    if d_last is not None:
        direct += d_last
    product, d_gated = torch.empty_like(hidden), torch.empty_like(hidden)
    given |= {"direct": direct, "product": product}
    for visit in reversed(range(T)):
        d_rows = d_gates[calls.time_of(visit, given)].flatten(1)  # [B, 4H]
        if reset_after:
            calls.run_pointwise(gru_pointwise_backward, given, visit=visit, PHASE="all")
            torch.mm(d_rows[:, H:], weight_hh, out=product)
        else:
            calls.run_pointwise(gru_pointwise_backward, given, visit=visit, PHASE="candidate")
            torch.mm(d_rows[:, 3 * H :], weight_hh[2 * H :], out=d_gated)
            calls.run_pointwise(
                gru_pointwise_backward, given | {"product": d_gated}, visit=visit, PHASE="reset"
            )
            torch.mm(d_rows[:, H : 3 * H], weight_hh[: 2 * H], out=product)
    d_hidden.copy_(calls.as_found(direct + product, given))
