"""The GRU's kernels on tensors: the contract of a backend (see `gatedcells_kernels.tape`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells_kernels.tape import GRU_GATE_GRADS, GRUTape, Keep
from gatedcells_kernels.triton import calls, launch
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
    T, B, _ = input.shape
    H = hidden.shape[-1]
    states = hidden.new_empty(T, B, H)
    tape = hidden.new_empty(T, B, len(GRUTape._fields), H) if keep == Keep.TAPE else hidden.new_empty(0)
    if states.numel() == 0:
        return states, tape
    given: dict[str, Any] = {
        "x_projection": linear(input, weight_ih, bias_ih).contiguous(),
        "hidden": hidden.contiguous(),
        "weight_hh": weight_hh.contiguous(),
        "bias_hh": calls.contiguous(bias_hh),
        "lengths": calls.as_lengths(lengths),
        "resets": calls.as_bytes(resets),
        "states": states,
        "tape": tape if keep == Keep.TAPE else None,
        "T": T, "B": B, "H": H, "reverse": int(reverse),
    }  # fmt: skip
    request = launch.Request("GRU", T, B, H, H, calls.numbers(hidden), reset_after)
    plan = launch.plan(request, launch.device(hidden.device.index))
    numerics = calls.numerics(hidden)
    if plan.kernel == "whole":
        calls.run_whole(gru_whole_forward, plan, given | numerics | {"RESET_AFTER": reset_after})
    elif plan.kernel == "library":
        _library_forward(given, reset_after, numerics["APPROXIMATE"])
    else:
        calls.run_slices(gru_slices_forward, plan, given | numerics, visits=T)
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
) -> tuple[Tensor, Tensor]:
    """The gates' gradients ``[T, B, 4, H]`` in the order GRU_GATE_GRADS, and dL/dh_0 ``[B, H]``."""
    T, B, H = states.shape
    d_gates = states.new_empty(T, B, len(GRU_GATE_GRADS), H)
    d_hidden = states.new_empty(B, H)
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
    request = launch.Request("GRU", T, B, H, H, calls.numbers(states), reset_after)
    plan = launch.plan(request, launch.device(states.device.index))
    numerics = calls.numerics(states)
    if plan.kernel == "whole":
        calls.run_whole(gru_whole_backward, plan, given | numerics | {"RESET_AFTER": reset_after})
    elif plan.kernel == "library":
        _library_backward(given, reset_after)
    else:
        carry = states.new_empty((B, H), dtype=torch.float32)
        calls.run_slices(gru_slices_backward, plan, given | numerics | {"carry": carry}, visits=T + 1)
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
