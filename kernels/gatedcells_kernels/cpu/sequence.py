"""The kernels under the names that every backend has."""

from gatedcells_kernels.cpu.gru import GRUInference as GRUInference
from gatedcells_kernels.cpu.gru import GRUTraining as GRUTraining
from gatedcells_kernels.cpu.gru import gru_backward as gru_backward
from gatedcells_kernels.cpu.gru import gru_forward as gru_forward
from gatedcells_kernels.cpu.lstm import LSTMInference as LSTMInference
from gatedcells_kernels.cpu.lstm import LSTMTraining as LSTMTraining
from gatedcells_kernels.cpu.lstm import lstm_backward as lstm_backward
from gatedcells_kernels.cpu.lstm import lstm_forward as lstm_forward
from gatedcells_kernels.cpu.memory import BLOCKS as BLOCKS
from gatedcells_kernels.cpu.packing import forget as forget
from gatedcells_kernels.cpu.products import input_gradient as input_gradient
from gatedcells_kernels.cpu.products import weight_gradients as weight_gradients
