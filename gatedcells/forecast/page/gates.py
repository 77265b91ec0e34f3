"""What the gates of a trained network do over a typical day."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.windows import Region

GATES = {"gru": ("reset", "update"), "lstm": ("input", "forget", "output")}
_DAYS = 14  # the last of the test part
_HOURS = 24
_NUMBERS = 20_000_000  # kept at a time


@dataclass(frozen=True)
class TypicalDay:
    """Gates of one layer, a mean over the last days of a region's test part.

    Attributes:
        region, cell: whose; layer: 0 is the one that reads the inputs.
        hours: how many steps the means are over.
        by_hour: for each gate ``[24, H]``, by the local hour that a step is about; NaN where there is none.
    """

    region: str
    cell: str
    layer: int
    hours: int
    by_hour: dict[str, FloatArray]

    def mean(self, gate: str) -> FloatArray:
        """``[24]`` over the units."""
        return self.by_hour[gate].mean(axis=1)

    def moving(self, count: int) -> list[tuple[int, str, float]]:
        """The units and gates that move most over the day: unit, gate, and how far, the furthest first; each
        unit once."""
        reach = {gate: np.nanmax(v, axis=0) - np.nanmin(v, axis=0) for gate, v in self.by_hour.items()}
        furthest = np.max(list(reach.values()), axis=0)
        found: list[tuple[int, str, float]] = []
        for unit in np.argsort(-furthest, kind="stable")[:count]:
            gate = max(reach, key=lambda name: float(reach[name][unit]))
            found.append((int(unit), gate, float(furthest[unit])))
        return found


def typical_days(forecaster: Any, cell: str, regions: Sequence[Region]) -> list[TypicalDay]:
    """Trace a network over the last days of each region; regions with too few hours are left out.

    Args:
        forecaster: of the fast or the article's recipe, trained.
        cell: ``"gru"`` or ``"lstm"``.
        regions: whose days.
    """
    found: list[TypicalDay] = []
    for region in regions:
        found += _days_of(forecaster, cell, region)
    return found


def _days_of(forecaster: Any, cell: str, region: Region) -> list[TypicalDay]:
    size, layer = len(region.load_mw), forecaster.rnn
    by_window = layer.batch_first  # of the article's recipe: a window a forecast, its last day is looked at
    days = min(_DAYS, len(region.test) // _HOURS, _NUMBERS // (layer.hidden_size * _HOURS * 16) or 1)
    if not days:
        return []
    ends = [size - _HOURS * day for day in reversed(range(days))]
    try:
        if by_window:
            parts = [forecaster.day(region.series, region.load_mw, end)[0] for end in ends]
            x, state = torch.cat(parts, dim=1), None
        else:
            x, state = forecaster.day(region.series, region.load_mw, size, _HOURS * days)
    except ForecastError:  # the region's history is shorter than a day and what it builds on
        return []
    with torch.no_grad():
        trace = layer.trace(x.transpose(0, 1) if by_window else x, state)
    hours = local_starts(region.series).hour.to_numpy()
    if by_window:  # a step reads its own hour, the last one that before the forecast's
        about = np.concatenate([hours[end - 1 - _HOURS : end - 1] for end in ends])
    else:  # a step forecasts its hour
        about = hours[size - _HOURS * days :]
    return [
        TypicalDay(
            region.name, cell, number, len(about),
            {gate: _by_hour(trace[number][gate], about) for gate in GATES[cell]},
        )
        for number in range(trace.layers)
    ]  # fmt: skip


def _by_hour(values: torch.Tensor, about: Any) -> FloatArray:
    """``[T, B, H]`` to ``[24, H]``: of each row the last steps, as many as belong to ``about`` together."""
    steps = len(about) // values.shape[1]
    rows = values[-steps:].transpose(0, 1).reshape(len(about), -1).double().numpy()
    means = np.full((_HOURS, rows.shape[1]), np.nan)
    for hour in range(_HOURS):
        if (about == hour).any():
            means[hour] = rows[about == hour].mean(axis=0)
    return means
