"""The letters of shapes, the LSTM's state and `detach_state`.

These letters are used in all docstrings and shape comments:

====== ===========================================
letter meaning
====== ===========================================
``T``  time steps of a sequence
``B``  batch: number of sequences
``I``  input features
``H``  hidden units
``P``  projected hidden units (LSTM ``proj_size``)
``G``  gates: 3 for the GRU, 4 for the LSTM
``D``  directions: 2 if bidirectional, else 1
``L``  layers
====== ===========================================
"""

from typing import Any, NamedTuple, TypeVar

from torch import Tensor


class LSTMState(NamedTuple):
    """The two states of an LSTM; unpacks as ``(h, c)``.

    Attributes:
        hidden: ``[B, H]``, or ``[B, P]`` with a projection: the hidden state, which is also the output.
        cell: ``[B, H]``: the cell state, internal to the LSTM (Hochreiter & Schmidhuber 1997).
    """

    hidden: Tensor
    cell: Tensor


AnyState = TypeVar("AnyState")


def detach_state(state: AnyState) -> AnyState:
    """Detach a state from its graph, between two chunks of a sequence that is trained on in chunks.

    This is truncated backpropagation through time (Williams & Peng 1990): the values are passed on to the
    next chunk, the gradient is not.

    Args:
        state: a tensor, or any nesting of tuples (NamedTuples too), lists and dicts of them; None stays None.

    Returns:
        the same structure; its tensors share memory with the given ones.

    Raises:
        TypeError: ``state`` contains anything else.
    """
    found: Any
    if state is None:
        found = None
    elif isinstance(state, Tensor):
        found = state.detach()
    elif isinstance(state, dict):
        found = {name: detach_state(part) for name, part in state.items()}
    elif isinstance(state, (tuple, list)):
        parts = [detach_state(part) for part in state]
        found = type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    else:
        raise TypeError(f"state must be made of tensors, tuples, lists and dicts, got {type(state).__name__}")
    return found
