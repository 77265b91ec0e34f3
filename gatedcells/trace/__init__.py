"""Every number of every step of a GRU or LSTM: recorded, explained, checked."""

from gatedcells.trace.record import DirectionTrace as DirectionTrace
from gatedcells.trace.record import Trace as Trace
