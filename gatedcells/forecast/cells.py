"""The one place where the forecaster picks its recurrent layer."""

from typing import Any

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
