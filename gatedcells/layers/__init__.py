"""Drop-ins for ``torch.nn.GRU`` and ``torch.nn.LSTM``."""

from gatedcells.layers.gru import GRU as GRU
from gatedcells.layers.lstm import LSTM as LSTM
