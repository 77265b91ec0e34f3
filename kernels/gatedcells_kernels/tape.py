"""What a forward pass keeps for its backward pass: the contract that every backend meets.

A tape is one tensor ``[T, B, S, H]``, S slots a step, in the order of the NamedTuple's fields; a
slot is ``GRUTape(*tape.unbind(2)).reset``. The letters are time, batch, slots and hidden units.
"""

from enum import IntEnum
from typing import Any, NamedTuple

# The order of the gates along a weight's first axis, in blocks of H rows (torch, cuDNN).
GRU_GATES = ("reset", "update", "candidate")
LSTM_GATES = ("input", "forget", "candidate", "output")

# The order in which a GRU's backward writes dL/d(pre-activations), [T, B, 4, H]: the first three
# are the input's half, the last three the hidden state's half, so both halves are one plain slice.
GRU_GATE_GRADS = ("x_candidate", "reset", "update", "h_candidate")


class Keep(IntEnum):
    """What a forward pass keeps.

    NOTHING: inference. TAPE: all that the backward pass reads. STATES: the states alone, from which the
    backward pass computes the rest again, some steps at a time; of the GRU these are the outputs, of the
    LSTM the cell states come beside them, a tape of one slot.
    """

    NOTHING = 0
    TAPE = 1
    STATES = 2


class GRUTape(NamedTuple):
    """Four slots a step. ``h_candidate`` is the hidden half of the candidate's pre-activation, which
    the reset gate's gradient needs when that gate acts after the matrix product."""

    reset: Any
    update: Any
    candidate: Any
    h_candidate: Any


class LSTMTape(NamedTuple):
    """Five slots a step: the gates, the candidate for the cell and the new cell state."""

    input: Any
    forget: Any
    candidate: Any
    output: Any
    cell: Any


# Slots a step of what an LSTM keeps.
LSTM_SLOTS = {Keep.NOTHING: 0, Keep.TAPE: len(LSTMTape._fields), Keep.STATES: 1}
