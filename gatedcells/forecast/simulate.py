"""Twelve made-up regions with the habits of a load curve, for machines without data and without a network.

Daily and weekly habit, heating and cooling on a wandering temperature, holidays at half strength, noise.
The numbers are nobody's; scores on them say nothing about real load.
"""

import numpy as np
import pandas as pd

from gatedcells.forecast.calendar import Calendar, holiday_flags
from gatedcells.forecast.data import Clock, FloatArray, LoadSeries, utc_hour
from gatedcells.forecast.flaws import Flaws

_YEARS = 2
_FIRST_HOUR = utc_hour(403_229)  # 2016-01-01 05:00, midnight in the East
_NAMES = tuple(f"SIM{number:02d}" for number in range(1, 13))


def simulate_regions(clock: Clock | None = None, seed: int = 0) -> list[LoadSeries]:
    """Twelve series of two years of hours, between 1 and 30 GW; the same for the same seed."""
    clock = clock or Clock()
    generator = np.random.default_rng(seed)
    hours = 24 * 365 * _YEARS
    weather = _wander(generator, hours, memory_hours=72)  # shared: neighbours have one sky
    sizes_mw = np.geomspace(1_500, 30_000, len(_NAMES))
    return [
        _region(name, float(size), weather, generator, clock)
        for name, size in zip(_NAMES, sizes_mw, strict=True)
    ]


def _region(
    name: str, size_mw: float, weather: FloatArray, generator: np.random.Generator, clock: Clock
) -> LoadSeries:
    hours = len(weather)
    starts = pd.date_range(_FIRST_HOUR, periods=hours, freq="h").tz_convert(clock.tz).tz_localize(None)
    calendar = Calendar.of(starts)
    hour = calendar.hour + generator.normal(0, 0.3)
    morning, evening = np.exp(-(((hour - 9) / 3.5) ** 2)), np.exp(-(((hour - 18.5) / 3.5) ** 2))
    free = np.maximum(calendar.weekday >= 5, holiday_flags(starts, "US")[:, 0] / 2)
    habit = (0.18 * morning + 0.22 * evening) * (1 - generator.uniform(0.2, 0.45) * free)
    season = -12 * np.cos(2 * np.pi * (calendar.day_of_year - 20) / 365.25)
    celsius = 13 + season + 4 * np.sin(2 * np.pi * (hour - 9) / 24) + 4 * weather
    celsius += 1.5 * _wander(generator, hours, memory_hours=48)
    cooling, heating = np.maximum(celsius - 19, 0), np.maximum(15 - celsius, 0)
    comfort = 0.022 * cooling * (1 + 0.5 * evening) + 0.008 * heating * (1 + morning)
    noise = 0.004 * _wander(generator, hours, memory_hours=3) + 0.002 * generator.normal(size=hours)
    load_mw = np.round(size_mw * (0.62 + habit + comfort) * (1 + noise), 1)
    return LoadSeries(name, f"{name} (simulated)", clock, _FIRST_HOUR, load_mw, np.arange(hours), Flaws())


def _wander(generator: np.random.Generator, hours: int, memory_hours: float) -> FloatArray:
    """``[hours]`` a first-order autoregression of unit spread that forgets in ``memory_hours``."""
    keep = np.exp(-1 / memory_hours)
    shocks = generator.normal(size=hours) * np.sqrt(1 - keep**2)
    path = np.empty(hours)
    value = generator.normal()
    for t in range(hours):
        value = keep * value + shocks[t]
        path[t] = value
    return path
