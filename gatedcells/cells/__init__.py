"""Drop-in replacements for ``torch.nn.GRUCell`` and ``torch.nn.LSTMCell``."""

from gatedcells.cells.gru import GRUCell as GRUCell
from gatedcells.cells.lstm import LSTMCell as LSTMCell
