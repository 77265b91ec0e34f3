"""A run folder that somebody changed, by accident or on purpose, is refused or changes no forecast."""

import copy
import json
import os
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gatedcells.cli import main
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.files import read_json, read_tensors
from gatedcells.forecast.prediction import predict_file
from gatedcells.forecast.runs import RunFolder
from gatedcells.forecast.training import Interrupted, train

SMALL = ["--steps", "6", "--batch-size", "8", "--hidden-size", "4", "--threads", "1", "--cell", "gru"]
FILES = ("config.json", "scales.json", "calibration.json", "metrics.json")


def gatedcells(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def run(small_folder, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("hostile") / "run"
    result = gatedcells("forecast", "--data", small_folder, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def content(run):
    return {name: json.loads((run / name).read_text()) for name in FILES}


@pytest.fixture(scope="module")
def forecast(run, small_folder):
    """Forecasts the hours after a file with a folder."""

    def predict(folder):
        return predict_file(RunFolder(folder), small_folder / "AEP_hourly.csv", hours=3, cell="gru")

    return predict


@pytest.fixture
def spoilt(run, tmp_path):
    """A copy to spoil."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("../../etc/passwd"),
    st.sampled_from([10**9, 10**30, -1, 0, 1e308, torch.nan, torch.inf, "\x00", "gru", "fill", "raise"]),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.text(max_size=5), SCALARS, max_size=3),
    st.just([0] * 100_000),
)


def places(tree, path=()):
    """Every place in JSON, its root too."""
    yield path
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


def changed(tree, path, value, how):
    if not path:
        return value
    tree = copy.deepcopy(tree)
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    if how == "delete":
        del holder[path[-1]]
    elif how == "add" and isinstance(holder, dict):
        holder[str(value)[:20]] = value
    else:
        holder[path[-1]] = value
    return tree


def outcome(forecast, folder):
    """A forecast, or None and why there is none; anything but a ForecastError goes on to the test."""
    try:
        return forecast(folder), ""
    except ForecastError as error:
        return None, str(error)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_changed_json_file_is_refused_or_changes_no_forecast(data, run, content, forecast):
    expected = forecast(run)
    name = data.draw(st.sampled_from(FILES))
    path = data.draw(st.sampled_from(list(places(content[name]))))
    how = data.draw(st.sampled_from(["replace", "replace", "delete", "add"]))
    text = json.dumps(changed(content[name], path, data.draw(VALUES), how))
    before = (run / name).read_bytes()
    (run / name).write_text(text)
    try:
        found, refusal = outcome(forecast, run)
    finally:
        (run / name).write_bytes(before)
    if found is None:
        assert "\n" not in refusal
        assert str(run) in refusal, "the message names the file"
        return
    if path[:2] not in (("data", "tz"), ("data", "stamp")):
        assert np.array_equal(found.load_mw, expected.load_mw)
    assert np.isfinite(found.load_mw).all()
    for low, high in zip(found.low_mw.values(), found.high_mw.values(), strict=True):
        assert not low > high


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_header_of_the_weights_is_refused_or_changes_no_forecast(data, run, forecast):
    expected = forecast(run)
    path = run / "gru" / "weights.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    at = data.draw(st.integers(0, header - 1))
    spoilt = bytearray(whole)
    spoilt[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(spoilt))
    try:
        found, refusal = outcome(forecast, run)
    finally:
        path.write_bytes(whole)
    assert str(run) in refusal if found is None else np.array_equal(found.load_mw, expected.load_mw)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recipe.hidden_size", "hidden_size is 1000000000; expected a whole number from 1 to 4,096"),
        ("recipe.batch_size", "batch_size is 1000000000; expected a whole number from 1 to 1,000,000"),
        ("recipe.chunk_hours", "chunk_hours is 1000000000; expected a whole number from 1 to 100,000"),
        ("recipe.members", "members is 1000000000; expected a whole number from 1 to 64"),
        ("recipe.steps", None),
        ("threads", "threads is 1000000000; expected a whole number from 1 to 1,024"),
        ("recipe.learning_rate", "learning_rate is 1000000000; expected a number from 0 to 1"),
    ],
)
def test_a_size_of_a_billion_is_refused_before_anything_is_made(spoilt, name, words):
    path = spoilt / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(changed(content, name.split("."), 10**9, "replace")))
    for arguments in (["--resume", spoilt], ["report", spoilt], ["predict", spoilt, "--data", "x.csv"]):
        result = gatedcells("forecast", *arguments)
        assert result.exit_code == 2, result.output
        assert words is None or words in result.output
        assert isinstance(result.exception, SystemExit)


def test_settings_that_together_need_too_much_are_refused(small_folder, tmp_path):
    huge = ["--hidden-size", "4096", "--batch-size", "100000", "--cell", "gru"]
    result = gatedcells("forecast", "--data", small_folder, "--out", tmp_path / "run", *huge)
    assert result.exit_code == 2
    assert "a training step keeps 39,321,600,000 values of hidden units; expected at most" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "NaN",
        '{"format": 1e999}',
        '{"format": 1, "recipe_name": []}',
        "1" * 5000,
    ],
)
def test_json_that_is_deep_endless_or_no_number_is_refused(spoilt, forecast, text):
    for name in FILES:
        before = (spoilt / name).read_bytes()
        (spoilt / name).write_text(text)
        with pytest.raises(ForecastError, match=name):
            forecast(spoilt)
        (spoilt / name).write_bytes(before)


def test_a_file_larger_than_a_run_writes_is_not_read(spoilt, forecast):
    for name, at_most in (("config.json", "268,435,456"), ("gru/weights.safetensors", "16,7")):
        before = (spoilt / name).read_bytes()
        os.truncate(spoilt / name, 10**12)  # no room is taken by what is not there
        with pytest.raises(ForecastError, match=f"has 1,000,000,000,000 bytes; expected at most {at_most}"):
            forecast(spoilt)
        (spoilt / name).write_bytes(before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_not_waited_for(spoilt, forecast):
    (spoilt / "config.json").unlink()
    os.mkfifo(spoilt / "config.json")
    with pytest.raises(ForecastError, match="config.json: is not a file"):
        forecast(spoilt)


@pytest.mark.parametrize("name", [*FILES, "gru/weights.safetensors", "gru"])
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(spoilt, forecast, tmp_path, name):
    shutil.move(spoilt / name, tmp_path / "elsewhere")
    (spoilt / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ForecastError, match="is a link to .*elsewhere.*; expected a file in the run folder itself"
    ):
        forecast(spoilt)
    (spoilt / name).unlink()
    shutil.move(tmp_path / "elsewhere", spoilt / "inside")
    (spoilt / name).symlink_to(spoilt / "inside")
    assert np.isfinite(forecast(spoilt).load_mw).all()
    (tmp_path / "link").symlink_to(spoilt)
    assert np.isfinite(forecast(tmp_path / "link").load_mw).all(), "the folder itself may be a link"
    (spoilt / name).unlink()
    (spoilt / name).symlink_to(spoilt / name)
    with pytest.raises(ForecastError):
        forecast(spoilt)


def test_nothing_is_written_through_a_link(spoilt, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(spoilt / "gru", outside)
    (outside / "weights.safetensors").unlink()
    (spoilt / "gru").symlink_to(outside)
    result = gatedcells("forecast", "--resume", spoilt)
    assert result.exit_code == 2
    assert "expected a file in the run folder itself" in " ".join(result.output.split())
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "a/b.csv"])
def test_a_data_file_in_another_folder_is_refused(spoilt, forecast, name):
    content = json.loads((spoilt / "config.json").read_text())
    content["data"]["sha256"] = {name: "0" * 64}
    (spoilt / "config.json").write_text(json.dumps(content))
    with pytest.raises(ForecastError, match="expected a name without a folder"):
        forecast(spoilt)
    assert gatedcells("step", "--run", spoilt, "--plain").exit_code == 2


@pytest.mark.parametrize("place", ["/proc/gatedcells/run", "config.json/run", "x" * 5000])
def test_a_folder_that_cannot_be_made_or_read_is_named(run, small_folder, place):
    place = place if place.startswith("/") else run / place
    result = gatedcells("forecast", "--data", small_folder, "--out", place, *SMALL)
    assert result.exit_code == 2, result.output
    assert "cannot be made" in result.output
    assert gatedcells("forecast", "--resume", place).exit_code == 2


def test_a_report_leaves_a_folder_that_cannot_be_written_as_it_is(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = gatedcells("forecast", "report", run, "--out", "/proc/gatedcells/report.html")
    assert result.exit_code == 2
    assert "/proc/gatedcells: cannot be made" in result.output
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_weights_trained_with_other_settings_or_scales_are_refused(spoilt, forecast):
    config = json.loads((spoilt / "config.json").read_text())
    config["recipe"]["lags_hours"][0] = 3
    (spoilt / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ForecastError, match=r"lags_hours was \[2, 12.* in training, and is \[3, 12.* in config"
    ):
        forecast(spoilt)
    config["recipe"]["lags_hours"][0] = 2
    (spoilt / "config.json").write_text(json.dumps(config))
    scales = json.loads((spoilt / "scales.json").read_text())
    scales["AEP"]["level"] += 0.1
    (spoilt / "scales.json").write_text(json.dumps(scales))
    with pytest.raises(ForecastError, match=r"scales.json is not the one of the training"):
        forecast(spoilt)


def test_weights_of_a_run_from_before_they_said_how_they_were_trained_are_read(spoilt, forecast):
    expected = forecast(spoilt).load_mw
    path = spoilt / "gru" / "weights.safetensors"
    save_file(load_file(path), path, {"train_seconds": "1.0"})
    assert np.array_equal(forecast(spoilt).load_mw, expected)


def test_weights_of_another_type_or_without_a_number_are_refused(spoilt, forecast):
    path = spoilt / "gru" / "weights.safetensors"
    # safetensors 0.4 reads them from the file when they are used, which by then is another
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(tensors | {"head.bias": tensors["head.bias"].double()}, path)
    with pytest.raises(ForecastError, match=r"head.bias is torch.float64; expected torch.float32"):
        forecast(spoilt)
    save_file(tensors | {"head.bias": tensors["head.bias"] * float("nan")}, path)
    with pytest.raises(ForecastError, match="head.bias holds numbers that are not finite"):
        forecast(spoilt)


@pytest.fixture(scope="module")
def checkpoint(small_regions, tmp_path_factory):
    """Of a training that was stopped after two of three steps, with its task."""
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.safetensors"
    task = FastTask(FastRecipe(hidden_size=4, lags_hours=(24,), steps=3, batch_size=4), small_regions)
    steps = iter([False, False, True])
    with pytest.raises(Interrupted):
        train(task, seed=1, checkpoint=path, should_stop=lambda: next(steps))
    assert read_json_note(path)["step"] == 2
    return path, task


def read_json_note(path):
    return json.loads(read_tensors(path)[1]["progress"])


SPOILS = {
    "step beyond the last": ({"step": 4}, {}, "step is 4 of 3"),
    "a step that is no number": ({"step": None}, {}, "step is None of 3"),
    "a step below none": ({"step": -1}, {}, "step is -1 of 3"),
    "endless seconds": ({"seconds": 1e999}, {}, "Infinity is no number"),
    "seconds in words": ({"seconds": "x"}, {}, "does not fit this training"),
    "weights of another shape": ({}, {"network.head.bias": torch.zeros(2)}, "size mismatch"),
    "weights of another type": ({}, {"network.head.bias": torch.zeros(1).double()}, "expected torch.float32"),
    "weights that are no numbers": ({}, {"network.head.bias": torch.tensor([torch.nan])}, "not finite"),
    "no weights": ({}, {"network.head.bias": None}, "Missing key"),
    "moments of another shape": ({}, {"optimizer.0.exp_avg": torch.zeros(3)}, "exp_avg of parameter 0"),
    "moments of another type": ({}, {"optimizer.5.exp_avg": torch.zeros(1).double()}, "of parameter 5"),
    "no moments": ({}, {"optimizer.1.exp_avg_sq": None}, "exp_avg_sq of parameter 1"),
    "moments of no parameter": ({}, {"optimizer.77.exp_avg": torch.zeros(1)}, "exp_avg of parameter 77"),
    "a name of no optimizer": ({}, {"optimizer.x.y.z": torch.zeros(1)}, "does not fit this training"),
    "a step of the optimizer below none": ({}, {"optimizer.0.step": torch.tensor(-3.0)}, "step is below 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILS)
def test_a_checkpoint_that_does_not_fit_is_refused_and_kept(name, checkpoint, tmp_path):
    good, task = checkpoint
    notes, tensors, words = SPOILS[name]
    path = tmp_path / "checkpoint.safetensors"
    content = {key: value for key, value in (load_file(good) | tensors).items() if value is not None}
    save_file(content, path, {"progress": json.dumps(read_json_note(good) | notes)})
    before = path.read_bytes()
    with pytest.raises(ForecastError, match=words):
        train(task, seed=1, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("note", [None, "", "[]", "[" * 100_000, "{}", '{"step": 1}', "\x00"])
def test_a_checkpoint_without_word_of_where_it_stands_is_refused(note, checkpoint, tmp_path):
    good, task = checkpoint
    path = tmp_path / "checkpoint.safetensors"
    save_file(load_file(good), path, None if note is None else {"progress": note})
    with pytest.raises(ForecastError, match="checkpoint.safetensors: (does not fit|not a whole)"):
        train(task, seed=1, checkpoint=path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_or_swollen_checkpoint_is_refused(share, checkpoint, tmp_path):
    good, task = checkpoint
    path = tmp_path / "checkpoint.safetensors"
    whole = good.read_bytes()
    for size in (int(share * len(whole)), len(whole) + 7, 10**12):
        path.write_bytes(whole)
        os.truncate(path, size)
        with pytest.raises(ForecastError, match=r"not a whole safetensors file|expected at most"):
            train(task, seed=1, checkpoint=path)


def test_a_good_checkpoint_goes_on_to_the_end(checkpoint, tmp_path):
    good, task = checkpoint
    shutil.copy(good, tmp_path / "checkpoint.safetensors")
    resumed, _ = train(task, seed=1, checkpoint=tmp_path / "checkpoint.safetensors")
    whole, _ = train(task, seed=1)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_a_backtests_folds_are_checked(small_folder, tmp_path):
    options = ["--folds", 1, "--span", 200, "--steps", 3, "--hidden-size", 4, "--threads", 1]
    arguments = ["forecast", "backtest", "--data", small_folder, "--out", tmp_path / "b", *options]
    assert gatedcells(*arguments).exit_code == 0
    path = tmp_path / "b" / "fold-0.json"
    good = read_json(path)
    for spoilt in (
        [],
        {},
        good | {"smape": 3},
        good | {"smape": {}},
        good | {"origin": "x"},
        good | {"test_hours": 1.5},
    ):
        path.write_text(json.dumps(spoilt))
        result = gatedcells(*arguments)
        assert result.exit_code == 2, spoilt
        assert "fold-0.json: not a fold of this backtest" in result.output
    path.write_text(json.dumps(good))
    settings_before = (tmp_path / "b" / "settings.json").read_text()
    content = json.loads(settings_before)
    del content["policy"]
    (tmp_path / "b" / "settings.json").write_text(json.dumps(content))
    assert gatedcells(*arguments).exit_code == 0, "a backtest from before there were policies goes on"
    assert gatedcells(*arguments, "--on-gap", "drop").exit_code == 2
