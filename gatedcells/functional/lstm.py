"""The LSTM as pure functions of tensors: check, choose a backend, run."""

from torch import Tensor
from torch.nn.functional import linear

from gatedcells import _autograd, _ops
from gatedcells.backends import AUTO, resolve
from gatedcells.functional.inputs import (
    LSTMTensors,
    to_autocast,
    what_to_keep,
    zero_beyond_lengths,
)
from gatedcells.reference import lstm, scan
from gatedcells.reference.time import boundaries
from gatedcells.reference.variants import PLAIN, Variant
from gatedcells.states import LSTMState
from gatedcells.validation import check_lstm, check_sequence


def lstm_step(
    input: Tensor,
    state: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    backend: str = AUTO,
) -> LSTMState:
    """Compute one step of an LSTM.

    The equations are in `gatedcells.reference.lstm` and in the docstring of `gatedcells.LSTM`.

    Args:
        input: ``x``, ``[B, I]``.
        state: the states before the step ``(h, c)``, ``[B, H]`` each (``h``: ``[B, P]`` with a projection).
        weight_ih, weight_hh: ``[4H, I]`` and ``[4H, H]`` (``[4H, P]`` with a projection), rows in the order
            input, forget, candidate, output.
        bias_ih, bias_hh: ``[4H]`` each, or None for zeros.
        weight_hr: the projection ``[P, H]``, or None.
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).

    Returns:
        the states after the step ``(h', c')``, shaped like ``state``.

    Raises:
        RuntimeError: a shape, dtype or device is wrong.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
        ValueError: there is no such backend.
    """
    if input.dim() != 2:
        raise RuntimeError(f"input must be [B, I], got {list(input.shape)}")
    tensors = LSTMTensors(input, *state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    check_lstm(*tensors)
    given = to_autocast(tensors)
    choice = resolve("LSTM", "step", given, backend)
    if choice.route == "operator":
        x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr = given
        one_step = LSTMTensors(x.unsqueeze(0), h, c, w_ih, w_hh, b_ih, b_hh, w_hr)
        return _run(one_step, None, None, False, False, choice.backend)[1]
    x_projection = linear(given.input, given.weight_ih, given.bias_ih)
    now = lstm.step(x_projection, given.hidden, given.cell, given.weight_hh, given.bias_hh, given.weight_hr)
    return LSTMState(now.hidden, now.cell)


def lstm_sequence(
    input: Tensor,
    state: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    reverse: bool = False,
    recompute: bool = False,
    backend: str = AUTO,
    variant: Variant = PLAIN,
    precision: str | None = None,
) -> tuple[Tensor, LSTMState]:
    """Run one direction of one LSTM layer over a batch of sequences.

    Args:
        input: ``[T, B, I]``, ``T >= 1``.
        state: the initial states ``(h_0, c_0)``, ``[B, H]`` each (``h_0``: ``[B, P]`` with a projection).
        weight_ih, weight_hh: ``[4H, I]`` and ``[4H, H]`` (``[4H, P]`` with a projection), rows in the order
            input, forget, candidate, output.
        bias_ih, bias_hh: ``[4H]`` each, or None for zeros.
        weight_hr: the projection ``[P, H]``, or None.
        lengths: integers ``[B]`` in 0..T on the input's device, each row's number of valid steps; None: all
            are T. The input beyond them is not read, and the states are kept there.
        resets: bool ``[T, B]`` on the input's device, True where a new sequence begins: the states before
            that step are replaced by zeros, so the result is that of running the sequences one by one. None:
            each row is one sequence.
        reverse: run from each row's last valid step to its first.
        recompute: keep only the states for the backward pass, two numbers per unit and step, and recompute
            the gates there. Where autograd differentiates the steps itself (under a transform, or with
            ``create_graph=True``), everything is kept nevertheless.
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).
        variant: a variant of the cell (`gatedcells.reference.variants`), computed by the reference backend;
            by default the plain cell.
        precision: of float32 matrix products, "ieee" or "tf32" (`gatedcells.precision`); None: as torch's
            flags say.

    Returns:
        the hidden states after each step ``[T, B, H]`` or ``[T, B, P]``, in the input's order, and the states
        ``(h, c)`` after the last step that was computed.

    Raises:
        RuntimeError: a shape, dtype or device is wrong.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
        ValueError: a length is out of range, or there is no such backend.
    """
    check_sequence(input, lengths, resets)
    input = zero_beyond_lengths(input, lengths)
    forgets = boundaries(resets, lengths, reverse)
    tensors = LSTMTensors(input, *state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    check_lstm(*tensors)
    given = to_autocast(tensors)
    choice = resolve("LSTM", "sequence", given, backend, variant.words(), precision)
    if choice.route == "operator":
        return _run(given, lengths, forgets, reverse, recompute, choice.backend)
    if choice.route == "again":
        states, *last = _autograd.variant_sequence(
            "LSTM", given, variant.to(given.input.dtype), lengths=lengths, resets=forgets, reverse=reverse
        )
        return states, LSTMState(*last)
    run = scan.scan_lstm if choice.route == "scan" else lstm.unroll
    states, last_hidden, last_cell = run(
        *given, lengths=lengths, resets=forgets, reverse=reverse, variant=variant.to(given.input.dtype)
    )
    return states, LSTMState(last_hidden, last_cell)


def _run(
    given: LSTMTensors,
    lengths: Tensor | None,
    forgets: Tensor | None,
    reverse: bool,
    recompute: bool,
    backend: str,
) -> tuple[Tensor, LSTMState]:
    keep = what_to_keep(given, recompute)
    direct = _autograd.LSTMSequence.apply if keep else _ops.run_lstm_sequence
    run = _ops.operator("lstm_sequence", given, direct)
    states, last_hidden, last_cell, _ = run(*given, lengths, forgets, reverse, keep, backend)
    return states, LSTMState(last_hidden, last_cell)
