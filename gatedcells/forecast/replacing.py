"""Whether a forecaster may take the place of the one in a folder."""

from pathlib import Path

import numpy as np

from gatedcells.forecast import forecaster_files
from gatedcells.forecast.continuing import last_values
from gatedcells.forecast.forecaster import Forecaster
from gatedcells.forecast.forecaster_parameters import written
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.rolling import laid_out


def replaces_its_like(folder: Path, forecaster: Forecaster, file: Path) -> bool:
    """Whether the folder holds no forecaster, or one with these settings that goes on from the values of
    ``file``; the files of a folder are not compared.

    Raises:
        ForecastError: what is there, or the file, cannot be read.
    """
    if not forecaster_files.holds_one(folder):
        return True
    before = Forecaster.load(folder)
    forecaster.checked()
    if file.is_dir() or _settings(before) != _settings(forecaster):
        return False
    panel, _, _ = laid_out(forecaster, file)
    return _same(last_values(panel, before.model_.reach), before._context)


def _settings(forecaster: Forecaster) -> dict[str, object]:
    plain = written(forecaster.get_params(), Forecaster().get_params())
    return {name: value for name, value in plain.items() if name != "verbose"}


def _same(one: Panel, other: Panel) -> bool:
    names = ("first", "offsets", "y", "known", "past")
    return (one.grid, one.ids) == (other.grid, other.ids) and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in names
    )
