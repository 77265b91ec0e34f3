"""The equations of the long short-term memory (LSTM).

Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, without peepholes; the
projection of Sak et al. 2014, arXiv:1402.1128. The same as cuDNN and ``torch.nn.LSTM``::

    i  = σ(W_i x + b_ii + U_i h + b_hi)        input gate: how much of g is written
    f  = σ(W_f x + b_if + U_f h + b_hf)        forget gate: how much of c is kept
    g  = tanh(W_g x + b_ig + U_g h + b_hg)     candidate for the cell
    o  = σ(W_o x + b_io + U_o h + b_ho)        output gate: how much of c is shown
    c' = f ⊙ c + i ⊙ g
    m  = o ⊙ tanh(c')
    h' = m,  or  V m  with a projection V = weight_hr

Variants of the cell (peepholes, zoneout, ...) are in `gatedcells.reference.variants`.

The rows of the weights have torch's gate order: input, forget, candidate, output. The letters of the shapes
are explained in `gatedcells.states`. Everything here is plain torch and differentiable any number of times;
every kernel is tested against it in float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatedcells.reference.time import keep_beyond_length, remembered, stack_steps, time_order
from gatedcells.reference.variants import PLAIN, Variant, project


class LSTMStep(NamedTuple):
    """Every intermediate of one LSTM step, each ``[B, H]`` (of a whole sequence: ``[T, B, H]``).

    ``x_*`` and ``h_*`` are the two halves of a gate's pre-activation, biases included; ``shown`` is
    ``m``; ``hidden`` is ``h'``, ``[B, P]`` with a projection and ``m`` itself without.
    """

    x_input: Tensor
    x_forget: Tensor
    x_candidate: Tensor
    x_output: Tensor
    h_input: Tensor
    h_forget: Tensor
    h_candidate: Tensor
    h_output: Tensor
    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor
    cell: Tensor
    tanh_cell: Tensor
    shown: Tensor
    hidden: Tensor


class LSTMStepGrads(NamedTuple):
    """dL/d(pre-activation) of each gate, dL/dh and dL/dc, each ``[B, H]`` (``hidden``: ``[B, P]``)."""

    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor
    hidden: Tensor
    cell: Tensor


def step(
    x_projection: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    variant: Variant = PLAIN,
) -> LSTMStep:
    """One step of the equations above.

    Args:
        x_projection: ``W x + b_i``, ``[B, 4H]``.
        hidden: the state ``h`` before the step, ``[B, H]``, or ``[B, P]`` with a projection.
        cell: the cell state ``c`` before the step, ``[B, H]``.
        weight_hh: ``U``, ``[4H, H]`` or ``[4H, P]``.
        bias_hh: ``b_h``, ``[4H]``, or None for zeros.
        weight_hr: ``V``, ``[P, H]``, or None for no projection.
        variant: what this step does beyond them.
    """
    h_projection = project(variant.seen(hidden), weight_hh, bias_hh, variant.gain_hh, (len(weight_hh),))
    x_input, x_forget, x_candidate, x_output = x_projection.chunk(4, dim=-1)
    h_input, h_forget, h_candidate, h_output = h_projection.chunk(4, dim=-1)
    peephole = variant.peephole
    if peephole is not None:
        h_input, h_forget = h_input + peephole[0] * cell, h_forget + peephole[1] * cell
    # i, f, o = σ(W x + b_i + U h + b_h);  g = tanh(the same)
    input = variant.gate("input", torch.sigmoid(x_input + h_input))
    forget = variant.gate("forget", torch.sigmoid(x_forget + h_forget))
    candidate = variant.gate("candidate", torch.tanh(x_candidate + h_candidate))
    # c' = f ⊙ c + i ⊙ g
    new_cell = forget * cell + input * variant.write(candidate)
    if peephole is not None:
        h_output = h_output + peephole[2] * new_cell
    output = variant.gate("output", torch.sigmoid(x_output + h_output))
    # m = o ⊙ tanh(c');  h' = m or V m
    tanh_cell = torch.tanh(variant.shown(new_cell))
    shown = output * tanh_cell
    new_hidden = variant.keep(0, shown if weight_hr is None else linear(shown, weight_hr), hidden)
    new_cell = variant.keep(1, new_cell, cell)
    return LSTMStep(
        x_input, x_forget, x_candidate, x_output, h_input, h_forget, h_candidate, h_output,
        input, forget, candidate, output, new_cell, tanh_cell, shown, new_hidden,
    )  # fmt: skip


def step_backward(
    d_new_hidden: Tensor,
    d_new_cell: Tensor,
    input: Tensor,
    forget: Tensor,
    candidate: Tensor,
    output: Tensor,
    new_cell: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None = None,
) -> LSTMStepGrads:
    """The chain rule through `step`, by hand. ``d_v`` is dL/dv, ``da_v`` that of v's pre-activation.

    Args:
        d_new_hidden: dL/dh', ``[B, H]`` or ``[B, P]``.
        d_new_cell: the part of dL/dc' that comes from the step after this one, ``[B, H]``.
        input, forget, candidate, output, new_cell: the step's intermediates, ``[B, H]`` each.
        cell: the cell state before the step, ``[B, H]``.
        weight_hh, weight_hr: ``U`` and ``V``, as in `step`.
    """
    # h' = V m;  m = o ⊙ tanh(c')
    d_shown = d_new_hidden if weight_hr is None else d_new_hidden @ weight_hr
    tanh_cell = torch.tanh(new_cell)
    d_output = d_shown * tanh_cell
    d_new_cell = d_new_cell + torch.ops.aten.tanh_backward(d_shown * output, tanh_cell)
    # c' = f ⊙ c + i ⊙ g
    d_forget = d_new_cell * cell
    d_input = d_new_cell * candidate
    d_candidate = d_new_cell * input
    d_cell = d_new_cell * forget
    # da = d ⊙ s (1 − s) through a sigmoid, d ⊙ (1 − g²) through the tanh
    da_input = torch.ops.aten.sigmoid_backward(d_input, input)
    da_forget = torch.ops.aten.sigmoid_backward(d_forget, forget)
    da_candidate = torch.ops.aten.tanh_backward(d_candidate, candidate)
    da_output = torch.ops.aten.sigmoid_backward(d_output, output)
    d_hidden = torch.cat([da_input, da_forget, da_candidate, da_output], dim=-1) @ weight_hh
    return LSTMStepGrads(da_input, da_forget, da_candidate, da_output, d_hidden, d_cell)


def project_input(input: Tensor, weight_ih: Tensor, bias_ih: Tensor | None, variant: Variant) -> Tensor:
    """``W x + b_i`` of all steps, ``[..., 4H]``, as the variant has it."""
    return project(input, weight_ih, bias_ih, variant.gain_ih, (len(weight_ih),))


def iterate(
    x_projection: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    variant: Variant = PLAIN,
) -> Iterator[tuple[int, LSTMStep]]:
    """Yield ``(t, step)`` along one direction; arguments as in `sequence`, the input projected
    (``[T, B, 4H]``)."""
    for t in time_order(len(x_projection), reverse):
        found = remembered(hidden, t, resets, lengths), remembered(cell, t, resets, lengths)
        now = step(x_projection[t], *found, weight_hh, bias_hh, weight_hr, variant=variant.step(t))
        if lengths is not None:
            now = now._replace(
                hidden=keep_beyond_length(t, lengths, now.hidden, hidden),
                cell=keep_beyond_length(t, lengths, now.cell, cell),
            )
        hidden, cell = now.hidden, now.cell
        yield t, now


def sequence(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
) -> LSTMStep:
    """`step` over time: one direction of one layer, every intermediate as ``[T, B, H]``.

    Args:
        input: ``[T, B, I]`` with ``T >= 1``.
        hidden, cell: the states before the first step, ``[B, H]`` (``hidden``: ``[B, P]`` with a
            projection).
        weight_ih, weight_hh, bias_ih, bias_hh: ``[4H, I]``, ``[4H, H]`` or ``[4H, P]``, ``[4H]``, ``[4H]``.
        weight_hr: ``[P, H]``, or None for no projection.
        lengths: ``[B]`` integers, each row's number of valid steps; None if all have ``T``. Outside
            its valid steps a row keeps its states.
        resets: ``[T, B]`` bool: the rows that forget their state before the walk visits step t; None if
            none does.
        reverse: run from each row's last valid step to its first; the result is in the order of the
            input all the same.
    """
    x_projection = linear(input, weight_ih, bias_ih)
    walk = iterate(
        x_projection,
        hidden,
        cell,
        weight_hh,
        bias_hh,
        weight_hr,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
    )
    return stack_steps([now for _, now in walk], reverse)


def unroll(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    variant: Variant = PLAIN,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sequence` without its intermediates: all hidden states ``[T, B, H]`` or ``[T, B, P]``, and the
    hidden and cell state last visited."""
    x_projection = project_input(input, weight_ih, bias_ih, variant)
    walk = iterate(
        x_projection,
        hidden,
        cell,
        weight_hh,
        bias_hh,
        weight_hr,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        variant=variant,
    )
    steps = [now for _, now in walk]
    states = [now.hidden for now in steps]
    return torch.stack(states[::-1] if reverse else states), states[-1], steps[-1].cell
