"""The equations of the GRU and of the LSTM, written once: the oracle for everything else."""

from gatedcells.reference.gru import GRUStep as GRUStep
from gatedcells.reference.lstm import LSTMStep as LSTMStep
