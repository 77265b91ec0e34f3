"""The one place where the forecaster picks its recurrent layer, and how torch is set for it."""

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
def settled() -> Generator[None]:
    """Within the block torch is as in a new process, whatever the program around has made of it: networks and
    tensors are of float32 on the CPU where nothing else is named, and there are gradients. What is drawn
    within does not change what the program draws afterwards."""
    dtype = torch.get_default_dtype()
    device = torch.empty(0).device  # torch 2.6 cannot say its default device where one was set and unset
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.device("cpu") if device.type != "cpu" else nullcontext(),
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
