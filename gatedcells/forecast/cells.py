"""The one place where the forecaster picks its recurrent layer, and the type of its numbers."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

import gatedcells
from gatedcells.forecast.errors import ForecastError

State = Any  # h of a GRU, (h, c) of an LSTM
CELLS = ("gru", "lstm")


def recurrent_layer(cell: str, input_size: int, hidden_size: int, **options: Any) -> Any:
    """A `gatedcells.GRU` or `gatedcells.LSTM`.

    Raises:
        ForecastError: no such cell.
    """
    if cell not in CELLS:
        raise ForecastError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
    layer = gatedcells.GRU if cell == "gru" else gatedcells.LSTM
    return layer(input_size, hidden_size, **options)


@contextmanager
def in_float32() -> Generator[None]:
    """Within the block networks and tensors are of float32 on the CPU where nothing else is named, whatever
    the program around has made torch's defaults."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if device.type != "cpu" else nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)
