"""States and gates of every step, read from the tape that a backend keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from gatedcells import _ops
from gatedcells.functional.inputs import GRUTensors, LSTMTensors, what_to_keep, zero_beyond_lengths
from gatedcells.reference.time import boundaries
from gatedcells.validation import check_gru, check_lstm, check_sequence
from gatedcells_kernels.tape import GRUTape, Keep, LSTMTape

_TAPE = int(Keep.TAPE)


def are_differentiated(tensors: Iterable[Tensor | None]) -> bool:
    """Whether autograd will ask for a gradient with respect to any of the tensors."""
    return what_to_keep(tensors, False) != int(Keep.NOTHING)


class TapeReader:
    """Runs a layer's directions one after the other on a backend, in place of a
    `gatedcells.trace.recorder.Recorder`, and keeps states and gates, without gradients.

    Args:
        kind: "GRU" or "LSTM".
        names: the names of a direction's weights, in the layer's order.
        reset_after: where the GRU's reset gate acts.
        backend: the backend whose tape is read.
    """

    def __init__(self, kind: str, names: Sequence[str], *, reset_after: bool, backend: str) -> None:
        self._kind, self._names, self._reset_after, self._backend = kind, names, reset_after, backend
        # of each direction of each layer by name, [T, B, ...]; beyond a row's length they hold anything
        self.directions: list[dict[str, Tensor]] = []

    def one(
        self,
        input: Tensor,
        state: tuple[Tensor, ...],
        given: Sequence[Tensor],
        reverse: bool,
        lengths: Tensor | None,
        resets: Tensor | None,
        *_: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One direction: all hidden states ``[T, B, ...]`` and the last states.

        Raises:
            RuntimeError, ValueError: as `gatedcells.gru_sequence`.
        """
        check_sequence(input, lengths, resets)
        weights = dict(zip(self._names, given, strict=True))
        pair = weights["weight_ih"], weights["weight_hh"], weights.get("bias_ih"), weights.get("bias_hh")
        x = zero_beyond_lengths(input, lengths)
        where = lengths, boundaries(resets, lengths, reverse), reverse
        if self._kind == "GRU":
            gru = GRUTensors(x, state[0], *pair)
            check_gru(*gru)
            run = _ops.operator("gru_sequence", gru, _ops.run_gru_sequence)
            states, *last, tape = run(*gru, *where, self._reset_after, _TAPE, self._backend)
            kept = dict(zip(GRUTape._fields, tape.unbind(2), strict=True))
        else:
            lstm = LSTMTensors(x, state[0], state[1], *pair, weights.get("weight_hr"))
            check_lstm(*lstm)
            run = _ops.operator("lstm_sequence", lstm, _ops.run_lstm_sequence)
            states, *last, tape = run(*lstm, *where, _TAPE, self._backend)
            kept = dict(zip(LSTMTape._fields, tape.unbind(2), strict=True))
        self.directions.append({"hidden": states, **kept})
        return states, tuple(last)
