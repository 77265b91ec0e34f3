"""The GRU as pure functions of tensors: check, choose a backend, run."""

from torch import Tensor
from torch.nn.functional import linear

from gatedcells import _autograd, _ops
from gatedcells.backends import AUTO, resolve
from gatedcells.functional.inputs import (
    GRUTensors,
    to_autocast,
    what_to_keep,
    zero_beyond_lengths,
)
from gatedcells.reference import gru, scan
from gatedcells.reference.time import boundaries
from gatedcells.reference.variants import PLAIN, Variant
from gatedcells.validation import check_gru, check_sequence


def gru_step(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    reset_after: bool = True,
    backend: str = AUTO,
) -> Tensor:
    """One step of a GRU.

    The equations, and the two places that the reset gate can have, are in `gatedcells.reference.gru`.

    Args:
        input: ``x``, ``[B, I]``.
        hidden: ``h``, ``[B, H]``.
        weight_ih, weight_hh: ``[3H, I]`` and ``[3H, H]``: reset, update, candidate.
        bias_ih, bias_hh: ``[3H]`` each, or None for zeros.
        reset_after: True for torch's and cuDNN's GRU, False for Cho et al.'s v3.
        backend: ``"auto"`` or a backend's name.

    Returns:
        ``h'``, ``[B, H]``.

    Raises:
        RuntimeError: a shape, dtype or device does not fit (and `BackendUnavailable`, a RuntimeError).
        ValueError: no such backend.
    """
    if input.dim() != 2:
        raise RuntimeError(f"input must be [B, I], got {list(input.shape)}")
    tensors = GRUTensors(input, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    check_gru(*tensors)
    given = to_autocast(tensors)
    choice = resolve("GRU", "step", given, backend)
    if choice.route == "operator":
        x, h, w_ih, w_hh, b_ih, b_hh = given
        one_step = GRUTensors(x.unsqueeze(0), h, w_ih, w_hh, b_ih, b_hh)
        return _run(one_step, None, None, False, reset_after, False, choice.backend)[1]
    x_projection = linear(given.input, given.weight_ih, given.bias_ih)
    return gru.step(
        x_projection, given.hidden, given.weight_hh, given.bias_hh, reset_after=reset_after
    ).hidden


def gru_sequence(
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
    recompute: bool = False,
    backend: str = AUTO,
    variant: Variant = PLAIN,
    precision: str | None = None,
) -> tuple[Tensor, Tensor]:
    """One direction of one GRU layer over a batch of sequences.

    Args:
        input: ``[T, B, I]``, ``T >= 1``.
        hidden: ``h_0``, ``[B, H]``.
        weight_ih, weight_hh: ``[3H, I]`` and ``[3H, H]``: reset, update, candidate.
        bias_ih, bias_hh: ``[3H]`` each, or None for zeros.
        lengths: ``[B]`` integers in 0..T on the input's device: each row's number of valid steps. What
            the input holds beyond is not read; there a row keeps its state. None: all have T.
        resets: ``[T, B]`` bool on the input's device: True where a new sequence begins, so that the state
            before that step is forgotten (zeros); the result is that of the sequences one by one. None:
            no row has more than one sequence.
        reverse: run from each row's last valid step to its first.
        reset_after: True for torch's and cuDNN's GRU, False for Cho et al.'s v3.
        recompute: keep only the states for the backward pass, one number a unit and step, and
            compute the gates again there. Where autograd itself goes through the steps (under a transform,
            in a graph of gradients) it keeps everything all the same.
        backend: ``"auto"`` or a backend's name.
        variant: what the cell does beyond its plain equations (`gatedcells.reference.variants`).
            Of one that does something the reference computes.
        precision: of float32's products, "ieee" or "tf32" (`gatedcells.precision`); None: not asked for.

    Returns:
        the states after each step ``[T, B, H]``, in the input's order, and the last one visited
        ``[B, H]``.

    Raises:
        RuntimeError: a shape, dtype or device does not fit (and `BackendUnavailable`, a RuntimeError).
        ValueError: a length is out of range, or no such backend.
    """
    check_sequence(input, lengths, resets)
    input = zero_beyond_lengths(input, lengths)
    forgets = boundaries(resets, lengths, reverse)
    tensors = GRUTensors(input, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    check_gru(*tensors)
    given = to_autocast(tensors)
    choice = resolve("GRU", "sequence", given, backend, variant.words(), precision)
    if choice.route == "operator":
        return _run(given, lengths, forgets, reverse, reset_after, recompute, choice.backend)
    if choice.route == "again":
        states, last = _autograd.variant_sequence(
            "GRU", given, variant.to(given.input.dtype), lengths=lengths, resets=forgets, reverse=reverse,
            reset_after=reset_after,
        )  # fmt: skip
        return states, last
    run = scan.scan_gru if choice.route == "scan" else gru.unroll
    return run(
        *given,
        lengths=lengths,
        resets=forgets,
        reverse=reverse,
        reset_after=reset_after,
        variant=variant.to(given.input.dtype),
    )


def _run(
    given: GRUTensors,
    lengths: Tensor | None,
    forgets: Tensor | None,
    reverse: bool,
    reset_after: bool,
    recompute: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    keep = what_to_keep(given, recompute)
    direct = _autograd.GRUSequence.apply if keep else _ops.run_gru_sequence
    run = _ops.operator("gru_sequence", given, direct)
    states, last, _ = run(*given, lengths, forgets, reverse, reset_after, keep, backend)
    return states, last
