"""Which of our modules stands for which of torch's."""

from torch import nn

from gatedcells.cells import GRUCell, LSTMCell
from gatedcells.layers import GRU, LSTM

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.GRU: GRU,
    nn.LSTM: LSTM,
    nn.GRUCell: GRUCell,
    nn.LSTMCell: LSTMCell,
}
TORCHS = {ours: theirs for theirs, ours in OURS.items()}
