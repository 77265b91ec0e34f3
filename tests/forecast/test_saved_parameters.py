"""What a forecaster is made with is written so that it is read again, of whatever type it was."""

import json

import numpy as np
import pandas as pd
import pytest

from gatedcells.forecast import Forecaster, ForecastError, forecaster_files
from tests.support.own_series import made_up, small

QUANTILES = (0.1, 0.3, 0.5, 0.9)
GIVEN = {
    "a number for a truth": ({"verbose": 1, "identity": 0}, {"verbose": True, "identity": False}),
    "a whole number with a point": ({"horizon": 3.0, "hidden_size": 4.0}, {"horizon": 3, "hidden_size": 4}),
    "numbers of numpy": (
        {"seed": np.int64(3), "steps": np.int32(2), "lookback": np.int64(8),
         "learning_rate": np.float64(0.02), "calibration": np.float64(0.3)},
        {"seed": 3, "steps": 2, "lookback": 8, "learning_rate": 0.02, "calibration": 0.3},
    ),
    "arrays": (
        {"quantiles": np.array(QUANTILES), "level": np.array([80])}, {"quantiles": QUANTILES, "level": (80,)},
    ),
    "lists": ({"quantiles": list(QUANTILES), "level": [80.0]}, {"quantiles": QUANTILES, "level": (80.0,)}),
    "a duration": ({"freq": pd.Timedelta(minutes=60)}, {"freq": "h"}),
    "an offset": ({"freq": pd.offsets.Hour(1)}, {"freq": "h"}),
    "no lookback": ({"lookback": 0}, {"lookback": None}),
    "a zone": ({"tz": pd.Timestamp(0, tz="Europe/Berlin").tz}, {"tz": "Europe/Berlin"}),
    "text of numpy": (
        {"cell": np.str_("gru"), "static": np.array(["kind"])}, {"cell": "gru", "static": ("kind",)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_what_was_given_is_kept_and_what_is_read_means_the_same(name, tmp_path):
    given, plain = GIVEN[name]
    frame = made_up().assign(kind=lambda one: one.unique_id + "!")
    one = small(**given).fit(frame)
    one.save(tmp_path / "f")
    assert all(one.get_params()[key] is value for key, value in given.items())
    back = Forecaster.load(tmp_path / "f")
    for key, value in plain.items():
        assert (back.get_params()[key], type(back.get_params()[key])) == (value, type(value))
    pd.testing.assert_frame_equal(back.predict(), one.predict())
    back.save(tmp_path / "g")
    both = [json.loads((tmp_path / at / "forecaster.json").read_text()) for at in ("f", "g")]
    assert both[0]["parameters"] == both[1]["parameters"]
    assert repr(back).startswith("Forecaster(")
    assert repr(one).startswith("Forecaster(")
    pd.testing.assert_frame_equal(Forecaster(**back.get_params()).fit(frame).predict(), one.predict())


def test_names_of_columns_are_text():
    with pytest.raises(ForecastError, match="names of columns must be text, got 0"):
        small(known=(0,)).fit(made_up())


def test_a_forecaster_that_is_written_over_while_it_is_read_is_the_new_one(tmp_path, monkeypatch):
    """As by ``apply --update`` beside a program that serves its forecasts."""
    one = small().fit(made_up())
    one.save(tmp_path / "f")
    other = small(seed=1).fit(made_up())
    plain = forecaster_files.read_json

    def then_written_over(path, *expected):
        content = plain(path, *expected)
        monkeypatch.setattr(forecaster_files, "read_json", plain)
        other.save(tmp_path / "f")
        return content

    monkeypatch.setattr(forecaster_files, "read_json", then_written_over)
    pd.testing.assert_frame_equal(Forecaster.load(tmp_path / "f").predict(), other.predict())
