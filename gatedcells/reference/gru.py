"""The equations of the gated recurrent unit (GRU).

Two conventions are in use, which differ in where the reset gate acts:

``reset_after=True`` (default): *after* the matrix product, on its result. Cho et al. 2014,
    arXiv:1406.1078v1; cuDNN, ``torch.nn.GRU``, Keras ``reset_after=True``, ONNX
    ``linear_before_reset=1``::

        r  = σ(W_r x + b_ir + U_r h + b_hr)
        z  = σ(W_z x + b_iz + U_z h + b_hz)
        n  = tanh(W_n x + b_in + r ⊙ (U_n h + b_hn))
        h' = (1 − z) ⊙ n + z ⊙ h

``reset_after=False``: *before* the matrix product, on the state. Cho et al. 2014,
    arXiv:1406.1078v3; Chung et al. 2014, arXiv:1412.3555; Keras ``reset_after=False``, ONNX
    ``linear_before_reset=0``. Only the candidate differs::

        n  = tanh(W_n x + b_in + U_n (r ⊙ h) + b_hn)

The two are different functions of the same weights. Variants of the cell (layer normalisation, zoneout, ...)
are in `gatedcells.reference.variants`.

The rows of the weights have torch's gate order: reset, update, candidate. The letters of the shapes are
explained in `gatedcells.states`. Everything here is plain torch and differentiable any number of times; every
kernel is tested against it in float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells.reference.time import keep_beyond_length, remembered, stack_steps, time_order
from gatedcells.reference.variants import PLAIN, Variant, project


class GRUStep(NamedTuple):
    """Every intermediate of one GRU step, each ``[B, H]`` (of a whole sequence: ``[T, B, H]``).

    ``x_*`` and ``h_*`` are the two halves of a gate's pre-activation, biases included. With
    ``reset_after=False``, ``h_candidate`` is ``U_n (r ⊙ h) + b_hn``.
    """

    x_reset: Tensor
    x_update: Tensor
    x_candidate: Tensor
    h_reset: Tensor
    h_update: Tensor
    h_candidate: Tensor
    reset: Tensor
    update: Tensor
    candidate: Tensor
    hidden: Tensor


class GRUStepGrads(NamedTuple):
    """dL/d(pre-activation) of each gate and dL/dh, each ``[B, H]``.

    ``reset`` and ``update`` hold for both halves of their pre-activation; the candidate's halves
    differ by the factor r when the reset gate acts after the matrix product.
    """

    x_candidate: Tensor
    reset: Tensor
    update: Tensor
    h_candidate: Tensor
    hidden: Tensor


def step(
    x_projection: Tensor,
    hidden: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None = None,
    *,
    reset_after: bool = True,
    variant: Variant = PLAIN,
) -> GRUStep:
    """One step of the equations above.

    Args:
        x_projection: ``W x + b_i``, ``[B, 3H]``.
        hidden: the state ``h`` before the step, ``[B, H]``.
        weight_hh: ``U``, ``[3H, H]``.
        bias_hh: ``b_h``, ``[3H]``, or None for zeros.
        reset_after: which convention, see the top of this module.
        variant: what this step does beyond them.
    """
    H = hidden.shape[-1]
    seen, gain = variant.seen(hidden), variant.gain_hh
    x_reset, x_update, x_candidate = x_projection.chunk(3, dim=-1)
    if reset_after:
        h_projection = project(seen, weight_hh, bias_hh, gain, (2 * H, H))
        h_reset, h_update, h_candidate = h_projection.chunk(3, dim=-1)
        # r = σ(W_r x + b_ir + U_r h + b_hr), z likewise
        reset = variant.gate("reset", torch.sigmoid(x_reset + h_reset))
        update = variant.gate("update", torch.sigmoid(x_update + h_update))
        # n = tanh(W_n x + b_in + r ⊙ (U_n h + b_hn))
        candidate = variant.gate("candidate", torch.tanh(x_candidate + reset * h_candidate))
    else:
        weight_gates, weight_new = weight_hh.split((2 * H, H))
        bias_gates, bias_new = (None, None) if bias_hh is None else bias_hh.split((2 * H, H))
        gain_gates, gain_new = (None, None) if gain is None else gain.split((2 * H, H))
        h_reset, h_update = project(seen, weight_gates, bias_gates, gain_gates, (2 * H,)).chunk(2, dim=-1)
        reset = variant.gate("reset", torch.sigmoid(x_reset + h_reset))
        update = variant.gate("update", torch.sigmoid(x_update + h_update))
        # n = tanh(W_n x + b_in + U_n (r ⊙ h) + b_hn)
        h_candidate = project(reset * seen, weight_new, bias_new, gain_new, (H,))
        candidate = variant.gate("candidate", torch.tanh(x_candidate + h_candidate))
    # h' = (1 − z) ⊙ n + z ⊙ h
    new_hidden = variant.keep(0, torch.lerp(variant.write(candidate), hidden, update), hidden)
    return GRUStep(
        x_reset, x_update, x_candidate, h_reset, h_update, h_candidate,
        reset, update, candidate, new_hidden,
    )  # fmt: skip


def step_backward(
    d_new_hidden: Tensor,
    reset: Tensor,
    update: Tensor,
    candidate: Tensor,
    h_candidate: Tensor,
    hidden: Tensor,
    weight_hh: Tensor,
    *,
    reset_after: bool = True,
) -> GRUStepGrads:
    """The chain rule through `step`, by hand. ``d_v`` is dL/dv, ``da_v`` that of v's pre-activation.

    Args:
        d_new_hidden: dL/dh', ``[B, H]``.
        reset, update, candidate, h_candidate: the step's intermediates, ``[B, H]`` each
            (``h_candidate`` is not read with ``reset_after=False``).
        hidden: the state before the step, ``[B, H]``.
        weight_hh: ``U``, ``[3H, H]``.
        reset_after: which convention.
    """
    H = hidden.shape[-1]
    weight_gates, weight_new = weight_hh.split((2 * H, H))
    # h' = (1 − z) ⊙ n + z ⊙ h
    d_hidden = d_new_hidden * update
    d_candidate = d_new_hidden - d_hidden
    d_update = d_new_hidden * (hidden - candidate)
    # da_n = dn ⊙ (1 − n²);  da_z = dz ⊙ z ⊙ (1 − z)
    da_candidate = torch.ops.aten.tanh_backward(d_candidate, candidate)
    da_update = torch.ops.aten.sigmoid_backward(d_update, update)
    if reset_after:
        # a_n = x_n + r ⊙ h_n
        da_reset = torch.ops.aten.sigmoid_backward(da_candidate * h_candidate, reset)
        da_h_candidate = da_candidate * reset
        d_hidden = torch.addmm(d_hidden, da_h_candidate, weight_new)
    else:
        # a_n = x_n + U_n (r ⊙ h) + b_hn
        da_h_candidate = da_candidate
        d_reset_hidden = da_candidate @ weight_new
        da_reset = torch.ops.aten.sigmoid_backward(d_reset_hidden * hidden, reset)
        d_hidden = torch.addcmul(d_hidden, d_reset_hidden, reset)
    d_hidden = torch.addmm(d_hidden, torch.cat([da_reset, da_update], dim=-1), weight_gates)
    return GRUStepGrads(da_candidate, da_reset, da_update, da_h_candidate, d_hidden)


def project_input(input: Tensor, weight_ih: Tensor, bias_ih: Tensor | None, variant: Variant) -> Tensor:
    """``W x + b_i`` of all steps, ``[..., 3H]``, as the variant has it."""
    H = len(weight_ih) // 3
    return project(input, weight_ih, bias_ih, variant.gain_ih, (2 * H, H))


def iterate(
    x_projection: Tensor,
    hidden: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    reset_after: bool = True,
    variant: Variant = PLAIN,
) -> Iterator[tuple[int, GRUStep]]:
    """Yield ``(t, step)`` along one direction; arguments as in `sequence`, the input projected
    (``[T, B, 3H]``)."""
    for t in time_order(len(x_projection), reverse):
        found = remembered(hidden, t, resets, lengths)
        now = step(
            x_projection[t], found, weight_hh, bias_hh, reset_after=reset_after, variant=variant.step(t)
        )
        if lengths is not None:
            now = now._replace(hidden=keep_beyond_length(t, lengths, now.hidden, hidden))
        hidden = now.hidden
        yield t, now


def sequence(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    reset_after: bool = True,
) -> GRUStep:
    """`step` over time: one direction of one layer, every intermediate as ``[T, B, H]``.

    Args:
        input: ``[T, B, I]`` with ``T >= 1``.
        hidden: ``[B, H]``, the state before the first step.
        weight_ih, weight_hh, bias_ih, bias_hh: ``[3H, I]``, ``[3H, H]``, ``[3H]``, ``[3H]``.
        lengths: ``[B]`` integers, each row's number of valid steps; None if all have ``T``. Outside
            its valid steps a row keeps its state.
        resets: ``[T, B]`` bool: the rows that forget their state before the walk visits step t; None if
            none does.
        reverse: run from each row's last valid step to its first; the result is in the order of the
            input all the same.
        reset_after: which convention.
    """
    x_projection = linear(input, weight_ih, bias_ih)
    walk = iterate(
        x_projection,
        hidden,
        weight_hh,
        bias_hh,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        reset_after=reset_after,
    )
    return stack_steps([now for _, now in walk], reverse)


def unroll(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    reset_after: bool = True,
    variant: Variant = PLAIN,
) -> tuple[Tensor, Tensor]:
    """`sequence` without its intermediates: all states ``[T, B, H]`` and the last one visited ``[B, H]``."""
    x_projection = project_input(input, weight_ih, bias_ih, variant)
    walk = iterate(
        x_projection,
        hidden,
        weight_hh,
        bias_hh,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        reset_after=reset_after,
        variant=variant,
    )
    states = [now.hidden for _, now in walk]
    return torch.stack(states[::-1] if reverse else states), states[-1]
