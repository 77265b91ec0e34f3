"""Names shared by every layer of the library: the legend of shapes and the LSTM's state.

The letters used in every docstring and shape comment:

====== ===========================================
letter meaning
====== ===========================================
``T``  time steps of a sequence
``B``  batch: sequences processed side by side
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
    """The two states that an LSTM carries from step to step; unpacks as ``(h, c)``.

    Attributes:
        hidden: ``[B, H]``, or ``[B, P]`` with a projection: the hidden state, which is also the output.
        cell: ``[B, H]``: the cell state, internal to the LSTM (Hochreiter & Schmidhuber 1997).
    """

    hidden: Tensor
    cell: Tensor


AnyState = TypeVar("AnyState")


def detach_state(state: AnyState) -> AnyState:
    """Detach a state from its graph, between the chunks of a stream that is trained on chunk by chunk.

    This is truncated backpropagation through time (Williams & Peng 1990): the values are carried over to the
    next chunk, the gradient is not.

    Args:
        state: a tensor, or any nesting of tuples (NamedTuples too), lists and dicts of them; None stays None.

    Returns:
        The same structure; its tensors share memory with the given ones.

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
