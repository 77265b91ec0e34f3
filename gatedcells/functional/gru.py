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
    """Compute one step of a GRU.

    The equations are in `gatedcells.reference.gru` and in the docstring of `gatedcells.GRU`.

    Args:
        input: ``x``, ``[B, I]``.
        hidden: the state before the step, ``h``, ``[B, H]``.
        weight_ih, weight_hh: ``[3H, I]`` and ``[3H, H]``, rows in the order reset, update, candidate.
        bias_ih, bias_hh: ``[3H]`` each, or None for zeros.
        reset_after: whether the reset gate acts after the matrix product (torch and cuDNN,
            arXiv:1406.1078v1) or before it (arXiv:1406.1078v3).
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).

    Returns:
        the state after the step, ``h'``, ``[B, H]``.

    Raises:
        RuntimeError: a shape, dtype or device is wrong.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
        ValueError: there is no such backend.
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
    """Run one direction of one GRU layer over a batch of sequences.

    Args:
        input: ``[T, B, I]``, ``T >= 1``.
        hidden: the initial state ``h_0``, ``[B, H]``.
        weight_ih, weight_hh: ``[3H, I]`` and ``[3H, H]``, rows in the order reset, update, candidate.
        bias_ih, bias_hh: ``[3H]`` each, or None for zeros.
        lengths: integers ``[B]`` in 0..T on the input's device, each row's number of valid steps; None: all
            are T. The input beyond them is not read, and the state is kept there.
        resets: bool ``[T, B]`` on the input's device, True where a new sequence begins: the state before that
            step is replaced by zeros, so the result is that of running the sequences one by one. None: each
            row is one sequence.
        reverse: run from each row's last valid step to its first.
        reset_after: whether the reset gate acts after the matrix product (torch and cuDNN,
            arXiv:1406.1078v1) or before it (arXiv:1406.1078v3).
        recompute: keep only the states for the backward pass, one number per unit and step, and recompute the
            gates there. Where autograd differentiates the steps itself (under a transform, or with
            ``create_graph=True``), everything is kept nevertheless.
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).
        variant: a variant of the cell (`gatedcells.reference.variants`), computed by the reference backend;
            by default the plain cell.
        precision: of float32 matrix products, "ieee" or "tf32" (`gatedcells.precision`); None: as torch's
            flags say.

    Returns:
        the states after each step ``[T, B, H]``, in the input's order, and the state after the last step that
        was computed, ``[B, H]``.

    Raises:
        RuntimeError: a shape, dtype or device is wrong.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
        ValueError: a length is out of range, or there is no such backend.
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
