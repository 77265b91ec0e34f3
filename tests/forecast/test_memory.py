"""What a long series takes of memory beside the numbers that are kept."""

import tracemalloc
import weakref

import numpy as np
import pandas as pd

from gatedcells.forecast import Forecaster, fitting, panel_inputs
from gatedcells.forecast.data import Clock
from gatedcells.forecast.grid import Grid
from gatedcells.forecast.panel_inputs import PanelInputs, calendar_inputs


def test_a_calendar_takes_no_memory_of_its_length_beside_itself_and_is_the_same_in_parts(monkeypatch):
    grid, steps = Grid(60, 0, False, Clock("Europe/Berlin", "beginning")), np.arange(40_000)
    whole = calendar_inputs(grid, steps, "DE")
    monkeypatch.setattr(panel_inputs, "_BLOCK", 4_001, raising=False)
    tracemalloc.start()
    try:
        parts = calendar_inputs(grid, steps, "DE")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(parts, whole)
    assert peak < 2 * parts.nbytes  # made at once it took more


def test_what_training_read_is_gone_before_calibration_reads_as_much(monkeypatch):
    made = []
    calibrated, begin = fitting._calibrated, PanelInputs.__init__

    def noted(self, *args, **options):
        begin(self, *args, **options)
        made.append(weakref.ref(self))

    def looked_at(*args):
        assert made
        assert all(one() is None for one in made)
        return calibrated(*args)

    monkeypatch.setattr(PanelInputs, "__init__", noted)
    monkeypatch.setattr(fitting, "_calibrated", looked_at)
    hours = pd.date_range("2024-01-01", periods=400, freq="h")
    frame = pd.DataFrame({"ds": hours, "y": np.arange(400.0) % 24})
    Forecaster(horizon=4, steps=2, hidden_size=4).fit(frame)
