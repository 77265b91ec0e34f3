"""``forecast fit`` into a folder that holds a forecaster, and what ``forecast apply`` says of its options."""

import itertools
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, training
from tests.support.own_series import made_up

OPTIONS = ["--horizon", 2, "--lookback", 4, "--hidden-size", 2, "--steps", 2, "--threads", 1]
REFUSED = "holds a forecaster with other settings or data, or that was updated with new values; choose"


def gatedcells(*words):
    return CliRunner().invoke(main, ["forecast", *map(str, words)])


@pytest.fixture
def made(tmp_path):
    """The file and the folder of a forecaster."""
    path, out = tmp_path / "x.csv", tmp_path / "f"
    made_up((120,)).head(100).to_csv(path, index=False)
    done = gatedcells("fit", path, "--out", out, *OPTIONS)
    assert done.exit_code == 0, done.output
    return path, out


def content(folder):
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def refused(out, *words):
    before = content(out)
    done = gatedcells("fit", *words)
    assert (done.exit_code, REFUSED in done.output) == (2, True), done.output
    assert "or replace it with --overwrite" in done.output
    assert content(out) == before


def test_the_same_command_fits_again_and_another_is_refused_unless_told(made, tmp_path):
    path, out = made
    before = Forecaster.load(out).predict()
    assert gatedcells("fit", path, "--out", out, *OPTIONS).exit_code == 0
    pd.testing.assert_frame_equal(Forecaster.load(out).predict(), before)
    refused(out, path, "--out", out, *OPTIONS, "--seed", 1)
    made_up((110,)).to_csv(tmp_path / "y.csv", index=False)
    refused(out, tmp_path / "y.csv", "--out", out, *OPTIONS)
    done = gatedcells("fit", tmp_path / "y.csv", "--out", out, *OPTIONS, "--overwrite")
    assert done.exit_code == 0, done.output
    assert Forecaster.load(out).predict().ds[0] == made_up((111,)).ds.max()


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("how", [Killed, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("at", [0, 1, 2], ids=["the last checkpoint", "the tensors", "the settings"])
def test_stopped_while_it_writes_the_same_command_goes_on_and_no_step_is_lost(
    how, at, tmp_path, made, monkeypatch
):
    path, whole = made
    out, replace = tmp_path / "stopped", os.replace
    asked = itertools.count()

    def stopped(beside, name):
        if next(asked) != at:
            return replace(beside, name)
        if how is Killed:  # which leaves what it had under way
            shutil.copy(beside, Path(beside).with_stem(f".{Path(name).stem}-0123456789ab"))
        raise how(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        if how is Killed:
            with pytest.raises(Killed):
                gatedcells("fit", path, "--out", out, *OPTIONS)
        else:
            done = gatedcells("fit", path, "--out", out, *OPTIONS)
            expected = (
                (130, "Stopped. The same command goes on.") if how is KeyboardInterrupt else (2, "No space")
            )
            assert (done.exit_code, expected[1] in done.output) == (expected[0], True), done.output
    with monkeypatch.context() as patch:
        if at > 0:
            patch.setattr(training, "_one_step", lambda *_: pytest.fail("trained again"))
        done = gatedcells("fit", path, "--out", out, *OPTIONS)
    assert done.exit_code == 0, done.output
    assert {one for one in content(out) if not one.startswith(".")} == set(content(whole))
    pd.testing.assert_frame_equal(Forecaster.load(out).predict(), Forecaster.load(whole).predict())


def test_values_that_were_told_since_are_not_lost(made, tmp_path):
    path, out = made
    made_up((120,)).tail(20).to_csv(tmp_path / "came.csv", index=False)
    done = gatedcells("apply", out, "--data", tmp_path / "came.csv", "--update")
    assert done.exit_code == 0, done.output
    refused(out, path, "--out", out, *OPTIONS)


def test_an_update_does_not_undo_one_that_came_in_between(made, tmp_path, monkeypatch):
    _, out = made
    for name, size in (("one", 120), ("two", 110)):
        made_up((size,)).tail(size - 100).to_csv(tmp_path / f"{name}.csv", index=False)
    plain, command = Forecaster.update, ("apply", out, "--update", "--data")

    def one_in_between(forecaster, frame):
        monkeypatch.setattr(Forecaster, "update", plain)
        done = gatedcells(*command, tmp_path / "one.csv")
        assert done.exit_code == 0, done.output
        return plain(forecaster, frame)

    monkeypatch.setattr(Forecaster, "update", one_in_between)
    done = gatedcells(*command, tmp_path / "two.csv")
    assert (done.exit_code, "another command has written to it meanwhile" in done.output) == (2, True)
    assert Forecaster.load(out).predict().ds[0] == made_up((121,)).ds.max()


def test_files_of_a_folder_are_not_compared(made, tmp_path):
    pytest.importorskip("pyarrow")
    _, out = made
    parts = tmp_path / "parts"
    parts.mkdir()
    made_up((100,)).to_parquet(parts / "x.parquet")
    refused(out, parts, "--out", out, *OPTIONS)


def test_a_damaged_forecaster_is_replaced_when_told(made):
    path, out = made
    (out / "forecaster.json").write_text("{")
    done = gatedcells("fit", path, "--out", out, *OPTIONS)
    assert (done.exit_code, "not readable as JSON" in done.output) == (2, True)
    assert gatedcells("fit", path, "--out", out, *OPTIONS, "--overwrite").exit_code == 0
    assert len(Forecaster.load(out).predict()) == 2


def test_a_seed_too_large_is_refused(tmp_path):
    done = gatedcells("fit", "x.csv", "--out", tmp_path / "f", "--seed", "9" * 23)
    assert done.exit_code == 2
    assert "is not in the range 0<=x<=9223372036854775807" in done.output


def test_what_is_known_ahead_is_asked_for_as_the_option_that_gives_it(made, tmp_path):
    path, out = made
    frame = pd.read_csv(path).assign(price=1.0, rain=2.0)
    frame.to_csv(path, index=False)
    done = gatedcells("fit", path, "--out", tmp_path / "g", *OPTIONS, "--known", "price", "--known", "rain")
    assert done.exit_code == 0, done.output
    done = gatedcells("apply", tmp_path / "g", "--update", "--data", path)
    assert done.exit_code == 2
    words = (
        "fitted with --known price --known rain: give their values for the 2 steps to come as --future FILE"
    )
    assert words in done.output
    assert "h is 3" in gatedcells("apply", tmp_path / "g", "--h", 3).output
    done = gatedcells("apply", out, "--future", path)
    assert (done.exit_code, "--future was given, but" in done.output) == (2, True)
