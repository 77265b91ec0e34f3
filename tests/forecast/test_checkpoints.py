"""A training that was stopped goes on as the same one and is taken for no other; its file goes at the end."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError, fitting, training
from gatedcells.forecast.files import read_tensors, write_tensors
from gatedcells.forecast.rolling import laid_out
from tests.support.own_series import made_up, small

OTHER = "is of another training .other series or settings.; delete it to train anew"


@pytest.fixture
def stopped(monkeypatch):
    """Within the call training stops after so many steps, as at Ctrl-C."""

    def call(steps, function):
        plain, asked = training.train, iter([False] * steps + [True])
        with monkeypatch.context() as patch:
            patch.setattr(
                training, "train", lambda *a, **k: plain(*a, **{**k, "should_stop": lambda: next(asked)})
            )
            return function()

    return call


@pytest.fixture
def half(tmp_path, stopped):
    path = tmp_path / "half.safetensors"
    with pytest.raises(KeyboardInterrupt):
        stopped(2, lambda: small().fit(frame(), checkpoint=path))
    return path


def frame():
    made = made_up(level=30.0)
    values = np.random.default_rng(0).normal(5, 2, (2, len(made)))
    return made.assign(t=values[0], wind=values[1], kind=made.unique_id + "!")


def one_changed(column, row=10):
    made = frame()
    made.loc[row, column] += 1e-9
    return made


SERIES = {
    "a value": lambda: one_changed("y"),
    "a value held out": lambda: one_changed("y", row=88),
    "a name": lambda: frame().replace({"unique_id": {"b": "c"}}),
    "the stamps": lambda: frame().assign(ds=lambda one: one.ds + pd.Timedelta(days=7)),
    "the frequency": lambda: made_up(freq="30min", level=30.0),
    "where a series ends": lambda: frame().drop(index=[159]),
}  # fmt: skip


@pytest.mark.parametrize("noted", [True, False], ids=["", "by a version that noted no loss"])
def test_a_training_stopped_behind_its_last_step_goes_on_to_a_forecaster_that_can_be_saved(
    noted, tmp_path, monkeypatch
):
    """As by Ctrl-C while it calibrates; no signal, which a process in the background may ignore."""
    whole = small().fit(frame())
    path = tmp_path / "done.safetensors"

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_calibrated", stopped)
        with pytest.raises(KeyboardInterrupt):
            small().fit(frame(), checkpoint=path)
    if not noted:
        tensors, notes = read_tensors(path)
        kept = json.loads(notes["progress"])
        del kept["loss"]
        write_tensors(path, tensors, {"progress": json.dumps(kept)})
    again = small().fit(frame(), checkpoint=path)
    assert not path.exists()
    loaded = Forecaster.load(again.save(tmp_path / "f"))
    pd.testing.assert_frame_equal(loaded.predict(), whole.predict())
    assert loaded.loss_ == whole.loss_ if noted else np.isnan(loaded.loss_)


@pytest.mark.parametrize("name", SERIES)
def test_a_checkpoint_is_of_the_series_that_it_was_trained_on(half, name):
    with pytest.raises(ForecastError, match=f"half.safetensors: {OTHER}"):
        small().fit(SERIES[name](), checkpoint=half)
    small().fit(frame(), checkpoint=half)


@pytest.mark.parametrize(
    "changed",
    [{"learning_rate": 0.02}, {"scaling": "standard"}, {"calibration": 0.2}, {"tz": "Europe/Berlin"},
     {"quantiles": (0.1, 0.5, 0.9, 0.975), "level": (80,)}, {"on_outlier": "repair"}, {"lookback": 9}],
)  # fmt: skip
def test_a_checkpoint_is_of_the_settings_that_it_was_trained_with(half, changed):
    with pytest.raises(ForecastError, match=OTHER):
        small(**changed).fit(frame(), checkpoint=half)


@pytest.mark.parametrize("name", ["t", "wind", "kind"])
def test_a_checkpoint_is_of_the_covariates_that_it_was_trained_with(tmp_path, stopped, name):
    options = {"known": ("t",), "past": ("wind",), "static": ("kind",)}
    path = tmp_path / "half.safetensors"
    with pytest.raises(KeyboardInterrupt):
        stopped(2, lambda: small(**options).fit(frame(), checkpoint=path))
    other = frame().assign(kind=lambda one: one.kind + "?") if name == "kind" else one_changed(name)
    with pytest.raises(ForecastError, match=OTHER):
        small(**options).fit(other, checkpoint=path)
    small(**options).fit(frame(), checkpoint=path)


def test_other_levels_go_on_and_the_file_goes_when_all_is_finished(half):
    found = small(level=(80,)).fit(frame(), checkpoint=half).predict()
    pd.testing.assert_frame_equal(found, small(level=(80,)).fit(frame()).predict())
    assert not half.exists()
    small().fit(frame(), checkpoint=half)
    assert not half.exists()


def test_the_second_of_two_trainings_with_one_file_is_a_training(tmp_path):
    """Before, the finished checkpoint of the first was what the second came to."""
    path = tmp_path / "x.safetensors"
    small().fit(frame(), checkpoint=path)
    other = frame().assign(y=lambda one: one.y[::-1].to_numpy())
    found = small().fit(other, checkpoint=path)
    pd.testing.assert_frame_equal(found.predict(), small().fit(other).predict())
    assert found.train_seconds_ > 0


def test_a_finished_checkpoint_of_other_series_is_refused(tmp_path):
    path, one = tmp_path / "x.safetensors", small()
    one.fit_laid_out(*laid_out(one, frame()), path)
    assert path.exists()  # whoever calls this has more to finish
    with pytest.raises(ForecastError, match=OTHER):
        small().fit(one_changed("y"), checkpoint=path)


def test_a_checkpoint_of_before_has_no_digest_and_goes_on(half):
    tensors, notes = read_tensors(half)
    kept = json.loads(notes["progress"])
    assert (kept["step"], len(kept["settings"].pop("digest"))) == (2, 64)
    write_tensors(half, tensors, {"progress": json.dumps(kept)})
    found = small().fit(frame(), checkpoint=half).predict()
    pd.testing.assert_frame_equal(found, small().fit(frame()).predict())


def test_a_folder_of_files_is_told_from_another(tmp_path, stopped):
    pytest.importorskip("pyarrow")
    folder, path = tmp_path / "f", tmp_path / "half.safetensors"
    folder.mkdir()
    for name, part in frame().groupby("unique_id"):
        part.to_parquet(folder / f"{name}.parquet")
    with pytest.raises(KeyboardInterrupt):
        stopped(2, lambda: small().fit(folder, checkpoint=path))
    (folder / "b.parquet").rename(folder / "0.parquet")
    with pytest.raises(ForecastError, match=OTHER):
        small().fit(folder, checkpoint=path)
    (folder / "0.parquet").rename(folder / "b.parquet")
    small().fit(folder, checkpoint=path)
    assert not path.exists()


# the command

OPTIONS = {
    "--horizon": 3, "--lookback": 8, "--hidden-size": 4, "--steps": 3, "--batch-size": 4, "--threads": 1,
    "--calibration": 0.3, "--scaling": "standard", "--level": 80, "--device": "cpu",
}  # fmt: skip


def fit(path, out, **changed):
    given = OPTIONS | {f"--{name}": value for name, value in changed.items()}
    words = [str(word) for pair in given.items() for word in pair]
    return CliRunner().invoke(
        main, ["forecast", "fit", str(path), "--out", str(out), "--no-identity", *words]
    )


def test_the_command_that_was_stopped_goes_on_to_the_same_forecaster(tmp_path, stopped):
    path, out = tmp_path / "x.csv", tmp_path / "model"
    frame().to_csv(path, index=False)
    done = stopped(2, lambda: fit(path, out))
    assert (done.exit_code, done.output.splitlines()[-1]) == (130, "Stopped. The same command goes on.")
    assert [one.name for one in out.iterdir()] == ["checkpoint.safetensors"]
    (out / ".checkpoint-0123456789ab.safetensors").write_bytes(b"killed in the writing")
    other = fit(path, out, steps=4)
    assert other.exit_code == 2
    assert "checkpoint.safetensors: is of another training (steps 3, seed 0); delete it" in other.output
    done = fit(path, out)
    assert done.exit_code == 0, done.output
    assert not (out / "checkpoint.safetensors").exists()
    expected = small(scaling="standard", level=(80,), identity=False).fit(path)
    found = Forecaster.load(out)
    pd.testing.assert_frame_equal(found.predict(), expected.predict())
    given, wanted = found.get_params(), expected.get_params()
    assert {name: (given[name], wanted[name]) for name in given if given[name] != wanted[name]} == {}


def test_a_folder_with_more_than_a_checkpoint_is_no_forecaster(tmp_path):
    path, out = tmp_path / "x.csv", tmp_path / "model"
    frame().to_csv(path, index=False)
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes(b"")
    (out / "thesis.txt").write_text("mine")
    done = fit(path, out)
    assert (done.exit_code, "exists already and is no forecaster" in done.output) == (2, True)


def test_the_command_takes_what_its_errors_advise(tmp_path):
    path = tmp_path / "x.csv"
    made_up().to_csv(path, index=False)
    done = fit(path, tmp_path / "f", scaling="log")
    assert (done.exit_code, "fit with scaling='standard'" in done.output) == (2, True)
    done = fit(path, tmp_path / "f", level=90)
    assert (done.exit_code, "a level of 90 lies between" in done.output) == (2, True)
    assert fit(path, tmp_path / "f").exit_code == 0
