"""The kernels under the names that every backend has."""

from gatedcells_kernels.triton.gru import gru_backward as gru_backward
from gatedcells_kernels.triton.gru import gru_forward as gru_forward
from gatedcells_kernels.triton.lstm import lstm_backward as lstm_backward
from gatedcells_kernels.triton.lstm import lstm_forward as lstm_forward
