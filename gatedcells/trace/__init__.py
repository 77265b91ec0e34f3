"""Traces: every intermediate value of each step of a GRU or LSTM, recorded, explained and checked."""

from gatedcells.trace.record import DirectionTrace as DirectionTrace
from gatedcells.trace.record import Trace as Trace
