"""A run folder gives back what was put in, and refuses what it cannot trust."""

import json
from dataclasses import replace
from datetime import datetime

import pytest
import torch

from gatedcells.forecast import run_cli
from gatedcells.forecast.article import ArticleRecipe, ArticleTask
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.runs import Config, RunFolder

DATA = {"kind": "files", "place": "x", "sha256": {}, "tz": "UTC", "stamp": "ending"}
FAST = Config(
    "fast", FastRecipe(hidden_size=8, lags_hours=(24,)), ("gru", "lstm"), 3, 2, DATA, {"torch": "2"}
)
ARTICLE = replace(FAST, recipe_name="article", recipe=ArticleRecipe(hidden_size=6, layers=1), cells=("lstm",))


@pytest.mark.parametrize("config", [FAST, ARTICLE], ids=["fast", "article"])
def test_settings_and_forecasters_come_back_as_saved(tmp_path, small_regions, config):
    run = RunFolder(tmp_path / "run")
    run.create(config)
    assert run.config() == config
    cell = config.cells[-1]
    recipe = config.recipe_for(cell)
    task = FastTask(recipe, small_regions) if config is FAST else ArticleTask(recipe, small_regions)
    forecaster = task.forecaster()
    run.save_scales(task.scales)
    run.checkpoint(cell).parent.mkdir()
    run.checkpoint(cell).write_text("")
    run.save_forecaster(cell, forecaster, 12.5)
    assert not run.checkpoint(cell).exists()
    back, seconds = run.forecaster(run.config(), cell)
    assert seconds == 12.5
    assert back.scales == forecaster.scales
    expected = forecaster.forecast_test(small_regions, lambda _: None)
    found = back.forecast_test(small_regions, lambda _: None)
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("setting", ["members", "head_size"])
def test_a_run_from_before_there_was_a_setting_is_read_as_what_it_was(tmp_path, setting):
    run = RunFolder(tmp_path / "run")
    run.create(FAST)
    content = json.loads((run.path / "config.json").read_text())
    del content["recipe"][setting]
    (run.path / "config.json").write_text(json.dumps(content))
    assert run.config() == FAST


def test_a_run_from_before_lightgbm_was_a_setting_has_none(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(replace(FAST, trees=30))
    assert run.config().trees == 30
    content = json.loads((run.path / "config.json").read_text())
    del content["trees"]
    (run.path / "config.json").write_text(json.dumps(content))
    assert run.config() == FAST


def test_a_folder_that_is_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ForecastError, match="exists already; choose another folder, or go on with --resume"):
        RunFolder(tmp_path).create(FAST)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ForecastError, match="exists already"):
        RunFolder(tmp_path / "notes.txt").create(FAST)


def spoil(run, **changed):
    path = run.path / "config.json"
    content = json.loads(path.read_text())
    for key, value in changed.items():
        holder, *inner = key.split("__")
        if inner:
            content[holder][inner[0]] = value
        else:
            content[holder] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "is of format 2; this version of gatedcells reads format 1"),
        ({"format": None}, "is of format None"),
        ({"recipe_name": "magic"}, "settings that this version cannot read .*magic"),
        ({"recipe__hidden_size": "64"}, "hidden_size"),
        ({"recipe__hidden_size": -1}, "hidden_size is -1"),
        ({"recipe__hidden_size": 10**12}, "hidden_size is 1000000000000"),
        ({"recipe__hidden_size": True}, "hidden_size is True"),
        ({"recipe__lags_hours": [10**9]}, "lags_hours"),
        ({"recipe__learning_rate": [1]}, "learning_rate"),
        ({"recipe__unheard_of": 1}, "unheard_of.* unknown or missing"),
        ({"cells": ["gru", "rnn"]}, "cells"),
        ({"cells": []}, "cells"),
        ({"cells": ["../../elsewhere"]}, "cells"),
        ({"seed": "x"}, "cannot read"),
        ({"data": 3}, "cannot read"),
        ({"trees": 0}, "trees is 0; expected a whole number from 1"),
        ({"trees": "3"}, "trees is '3'"),
    ],
)
def test_settings_of_another_version_or_hand_are_refused(tmp_path, changed, message):
    run = RunFolder(tmp_path / "run")
    run.create(FAST)
    spoil(run, **changed)
    with pytest.raises(ForecastError, match=message):
        run.config()


def test_what_is_not_a_run_folder_is_named(tmp_path):
    with pytest.raises(ForecastError, match=r"config.json: no such file; expected a run folder"):
        RunFolder(tmp_path).config()
    for text in ("not json", "", "[1]", "\x00"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ForecastError, match=r"config.json: (not readable as JSON|is of format None)"):
            RunFolder(tmp_path).config()


@pytest.fixture
def trained(tmp_path, small_regions):
    run = RunFolder(tmp_path / "run")
    run.create(FAST)
    task = FastTask(FAST.recipe_for("gru"), small_regions)
    run.save_scales(task.scales)
    run.save_forecaster("gru", task.forecaster(), 1.0)
    return run


def test_an_untrained_or_unknown_cell_is_named(trained):
    with pytest.raises(ForecastError, match="its lstm is not trained yet; go on with --resume"):
        trained.forecaster(FAST, "lstm")
    with pytest.raises(ForecastError, match="has no lstm, only gru"):
        trained.forecaster(replace(FAST, cells=("gru",)), "lstm")


def test_weights_that_do_not_fit_are_refused_before_they_take_memory(trained):
    huge = replace(FAST, recipe=replace(FAST.recipe, hidden_size=1_000_000))
    with pytest.raises(ForecastError, match="does not fit the run's settings"):
        trained.forecaster(huge, "gru")
    path = trained.weights("gru")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ForecastError, match="not a whole safetensors file"):
        trained.forecaster(FAST, "gru")


@pytest.mark.parametrize(
    "text", ["{}", '{"AEP": {"level": "a"}}', '{"AEP": 3}', "[]", '{"AEP": {"unheard": 1.0}}']
)
def test_scales_that_make_no_sense_are_refused(trained, text):
    (trained.path / "scales.json").write_text(text)
    with pytest.raises(ForecastError, match=r"not the scales of a fast run|does not fit the run's settings"):
        trained.forecaster(FAST, "gru")


def test_a_pickle_in_the_place_of_weights_is_not_executed(trained, tmp_path):
    target = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return (target.write_text, ("x",))

    torch.save(Attack(), trained.weights("gru"))
    with pytest.raises(ForecastError, match="not a whole safetensors file"):
        trained.forecaster(FAST, "gru")
    assert not target.exists()


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 5, 6, 7, 8, 9)

    monkeypatch.setattr(run_cli, "datetime", Then)
    monkeypatch.chdir(tmp_path)
    runs = [run_cli._new_folder({"out": None}, replace(FAST, seed=seed)) for seed in range(3)]
    assert [run.path.name for run in runs] == ["20240506-070809", "20240506-070809-2", "20240506-070809-3"]
    assert [run.config().seed for run in runs] == [0, 1, 2]
