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

from typing import NamedTuple

from torch import Tensor


class LSTMState(NamedTuple):
    """The two states that an LSTM carries from step to step; unpacks as ``(h, c)``.

    Attributes:
        hidden: ``[B, H]``, or ``[B, P]`` with a projection. What the LSTM shows to the outside.
        cell: ``[B, H]``. What it keeps to itself (Hochreiter & Schmidhuber 1997).
    """

    hidden: Tensor
    cell: Tensor
