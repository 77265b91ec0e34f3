"""Small load files for tests of the forecaster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

EASTERN = "America/New_York"


def made_up_load(hours: int, seed: int = 0, size_mw: float = 1000.0) -> np.ndarray:
    """``[hours]`` a daily and weekly habit with noise."""
    t = np.arange(hours)
    noise = np.random.default_rng(seed).normal(0, 0.01, hours)
    habit = 1 + 0.2 * np.sin(2 * np.pi * t / 24) + 0.05 * np.sin(2 * np.pi * t / 168)
    return np.round(size_mw * habit * (1 + noise), 1)


def eastern_stamps(first_utc: str, hours: int) -> pd.DatetimeIndex:
    """Hour-ending wall-clock stamps, as PJM writes them, of consecutive UTC hours."""
    return ending_stamps(first_utc, hours, EASTERN)


def ending_stamps(first_utc: str, hours: int, tz: str) -> pd.DatetimeIndex:
    """Hour-ending wall-clock stamps of consecutive hours in a time zone."""
    starts = pd.date_range(pd.Timestamp(first_utc, tz="UTC"), periods=hours, freq="h")
    return starts.tz_convert(tz).tz_localize(None) + pd.Timedelta(hours=1)


def write_file(folder: Path, region: str, stamps, load, name: str | None = None) -> Path:
    """Write ``Datetime,<REGION>_MW``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{region}_hourly.csv")
    pd.DataFrame({"Datetime": stamps, f"{region}_MW": load}).to_csv(path, index=False)
    return path


def write_folder(folder: Path, regions: dict[str, int], first_utc: str = "2016-09-01 04:00") -> Path:
    """A folder with a made-up file for each region: its name and number of hours."""
    for seed, (region, hours) in enumerate(regions.items()):
        load = made_up_load(hours, seed, 500.0 * (seed + 1))
        write_file(folder, region, eastern_stamps(first_utc, hours), load)
    return folder
