"""Stamps with a time zone where those fitted on had none, or without: read with tz=, else refused."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError
from tests.support.own_series import made_up, small

ZONE = "Europe/Berlin"


def aware(frame):
    return frame.assign(ds=frame.ds.dt.tz_localize(ZONE))


@pytest.fixture(scope="module")
def frame():
    return made_up((120, 110))


@pytest.mark.parametrize("freq", ["h", "D"])
@pytest.mark.parametrize("zoned", [True, False])
def test_without_tz_stamps_of_the_other_kind_are_refused_and_nothing_changes(freq, zoned, tmp_path):
    frame = made_up((120, 110), freq)
    own, other = (aware(frame), frame) if zoned else (frame, aware(frame))
    one = small().fit(own)
    before, widths = one.predict(), one.model_.margins.widths
    back = Forecaster.load(one.save(tmp_path / "f"))
    have, had = ("without", "with") if zoned else ("with", "without")
    for asked in (one, back):
        for ask in (lambda one=asked: one.predict(frame=other), lambda one=asked: one.update(other)):
            with pytest.raises(
                ForecastError,
                match=f"^ds has stamps {have} a time zone, and those fitted on were {had} one: ",
            ):
                ask()
        pd.testing.assert_frame_equal(asked.predict(), before)
        np.testing.assert_array_equal(asked.model_.margins.widths, widths)
        asked.update(own)
        pd.testing.assert_frame_equal(asked.predict(), before)


def test_with_tz_either_are_read_as_the_same_hours(frame):
    one, other = small(tz=ZONE).fit(frame), small(tz=ZONE).fit(aware(frame))
    found = [asked.predict(frame=given) for asked in (one, other) for given in (frame, aware(frame))]
    for forecast in found:
        np.testing.assert_array_equal(forecast.GRU, found[0].GRU)
    assert list(found[0].ds.dt.tz_localize(ZONE)) == list(found[1].ds)
    one.update(aware(frame))
    other.update(frame)


def test_the_command_refuses_the_mix_and_leaves_the_folder_as_it_was(frame, tmp_path):
    one = small().fit(aware(frame))
    one.save(tmp_path / "f")
    frame.to_csv(tmp_path / "naive.csv", index=False)
    options = ["forecast", "apply", str(tmp_path / "f"), "--data", str(tmp_path / "naive.csv"), "--update"]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 2
    assert "ds has stamps without a time zone, and those fitted on were with one" in done.output
    pd.testing.assert_frame_equal(Forecaster.load(tmp_path / "f").predict(), one.predict())
