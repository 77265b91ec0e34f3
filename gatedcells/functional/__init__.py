"""The GRU and the LSTM as pure functions of tensors: one step, or one direction over a sequence."""

from gatedcells.functional.gru import gru_sequence as gru_sequence
from gatedcells.functional.gru import gru_step as gru_step
from gatedcells.functional.lstm import lstm_sequence as lstm_sequence
from gatedcells.functional.lstm import lstm_step as lstm_step
