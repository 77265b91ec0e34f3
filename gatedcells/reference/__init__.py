"""The equations of the GRU and the LSTM in plain torch, against which every kernel is tested."""

from gatedcells.reference.gru import GRUStep as GRUStep
from gatedcells.reference.lstm import LSTMStep as LSTMStep
