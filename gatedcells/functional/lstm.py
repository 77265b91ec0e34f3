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
    """One step of an LSTM; the equations are in `gatedcells.reference.lstm`.

    Args:
        input: ``x``, ``[B, I]``.
        state: ``(h, c)``, ``[B, H]`` each (``h``: ``[B, P]`` with a projection).
        weight_ih, weight_hh: ``[4H, I]`` and ``[4H, H]`` or ``[4H, P]``: input, forget, candidate, output.
        bias_ih, bias_hh: ``[4H]`` each, or None for zeros.
        weight_hr: the projection ``[P, H]``, or None.
        backend: ``"auto"`` or a backend's name.

    Returns:
        ``(h', c')``.

    Raises:
        RuntimeError: a shape, dtype or device does not fit (and `BackendUnavailable`, a RuntimeError).
        ValueError: no such backend.
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
    """One direction of one LSTM layer over a batch of sequences.

    Args:
        input: ``[T, B, I]``, ``T >= 1``.
        state: ``(h_0, c_0)``, ``[B, H]`` each (``h_0``: ``[B, P]`` with a projection).
        weight_ih, weight_hh: ``[4H, I]`` and ``[4H, H]`` or ``[4H, P]``: input, forget, candidate, output.
        bias_ih, bias_hh: ``[4H]`` each, or None for zeros.
        weight_hr: the projection ``[P, H]``, or None.
        lengths: ``[B]`` integers in 0..T on the input's device: each row's number of valid steps. What
            the input holds beyond is not read; there a row keeps its states. None: all have T.
        resets: ``[T, B]`` bool on the input's device: True where a new sequence begins, so that the state
            before that step is forgotten (zeros); the result is that of the sequences one by one. None:
            no row has more than one sequence.
        reverse: run from each row's last valid step to its first.
        recompute: keep only the states for the backward pass, one number a unit and step (two: hidden and
            cell), and
            compute the gates again there. Where autograd itself goes through the steps (under a transform,
            in a graph of gradients) it keeps everything all the same.
        backend: ``"auto"`` or a backend's name.
        variant: what the cell does beyond its plain equations (`gatedcells.reference.variants`).
            Of one that does something the reference computes.
        precision: of float32's products, "ieee" or "tf32" (`gatedcells.precision`); None: not asked for.

    Returns:
        the hidden states after each step ``[T, B, H]`` or ``[T, B, P]``, in the input's order, and the
        pair of states last visited.

    Raises:
        RuntimeError: a shape, dtype or device does not fit (and `BackendUnavailable`, a RuntimeError).
        ValueError: a length is out of range, or no such backend.
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
