"""LightGBM beside the networks: on the same inputs, from the same hours."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast.bitcoin import BitcoinRecipe
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.runs import Config, RunFolder
from gatedcells.forecast.trees import PooledTrees


def test_without_lightgbm_it_says_what_to_install(monkeypatch, small_folder, tmp_path):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ForecastError, match="--lightgbm needs LightGBM: pip install lightgbm"):
        PooledTrees(5)
    done = CliRunner().invoke(
        main, ["forecast", "--data", str(small_folder), "--lightgbm", "5", "--out", str(tmp_path / "run")]
    )
    assert done.exit_code == 2
    assert "pip install lightgbm" in done.output
    assert not (tmp_path / "run").exists()


def test_trees_learn_and_are_told_nothing_of_the_test_part(small_regions):
    pytest.importorskip("lightgbm")
    seen = []
    trees = PooledTrees(30)
    found = trees.forecast(small_regions, seen.append)
    assert seen == list(range(1, 31))
    for region, forecast in zip(small_regions, found, strict=True):
        actual = region.actual_mw
        known = np.isfinite(actual)
        persistence = np.abs(region.load_mw[region.test - 1] - actual)[known].mean()
        assert np.abs(forecast - actual)[known].mean() < 0.8 * persistence
    changed = []
    for region in small_regions:
        load = region.load_mw.copy()
        load[region.test[10] :] *= 2
        changed.append(type(region)(region.series, load, region.train, region.test, region.usable))
    again = trees.forecast(changed, lambda _: None)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one[:11], other[:11])


def test_the_command_shows_them_beside_the_networks(small_folder, tmp_path):
    pytest.importorskip("lightgbm")
    done = CliRunner().invoke(
        main,
        ["forecast", "--data", str(small_folder), "--cell", "gru", "--steps", "2", "--hidden-size", "4",
         "--threads", "1", "--lightgbm", "3", "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "LightGBM, 3 trees" in done.output


RUN = ("--cell", "gru", "--steps", "2", "--hidden-size", "4")


def gatedcells(*arguments, status=0):
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return " ".join(done.output.split())


def models_of(run):
    return json.loads((run / "metrics.json").read_text())["models"]


@pytest.fixture
def fitted(monkeypatch):
    """The settings of every LightGBM that is fitted: trees, threads, seed, holidays."""
    pytest.importorskip("lightgbm")
    found, forecast = [], PooledTrees.forecast

    def told(self, *arguments, **options):
        found.append((self.trees, self._threads, self._seed, self._recipe.holidays))
        return forecast(self, *arguments, **options)

    monkeypatch.setattr(PooledTrees, "forecast", told)
    return found


def test_they_have_the_settings_of_their_run_and_are_fitted_again_when_it_goes_on(
    small_folder, tmp_path, fitted
):
    run = tmp_path / "run"
    gatedcells(
        "--data", small_folder, "--out", run, *RUN, "--threads", 1, "--seed", 5, "--holidays", "DE",
        "--lightgbm", 3,
    )  # fmt: skip
    assert fitted == [(3, 1, 5, "DE")]
    scores = models_of(run)
    # as after a Ctrl-C in the training of the network
    for name in ("metrics.json", "report.html", "gru/weights.safetensors"):
        (run / name).unlink()
    assert "LightGBM, 3 trees" in gatedcells("--resume", run)
    assert fitted == [(3, 1, 5, "DE")] * 2
    assert models_of(run)["LightGBM, 3 trees"]["by_region"] == scores["LightGBM, 3 trees"]["by_region"]
    assert "LightGBM, 3 trees" in (run / "report.html").read_text(encoding="utf-8")
    told = gatedcells("--resume", run, "--lightgbm", 4, status=2)
    assert "began with --lightgbm 3, got --lightgbm 4; leave it out" in told
    assert "LightGBM, 3 trees" in gatedcells("--resume", run, "--lightgbm", 3)


def test_a_run_without_them_takes_them_up_when_it_goes_on(small_folder, tmp_path, fitted):
    run = tmp_path / "run"
    gatedcells("--data", small_folder, "--out", run, *RUN, "--threads", 1, "--seed", 5, "--holidays", "none")
    assert not fitted
    gatedcells("--resume", run, "--lightgbm", 3)
    assert RunFolder(run).config().trees == 3
    gatedcells("--resume", run)
    assert fitted == [(3, 1, 5, "none")] * 2
    assert "LightGBM, 3 trees" in models_of(run)


def test_scores_that_were_written_stay_when_a_run_of_before_goes_on(small_folder, tmp_path, fitted):
    run = tmp_path / "run"
    gatedcells("--data", small_folder, "--out", run, *RUN, "--threads", 1, "--lightgbm", 3)
    content = json.loads((run / "config.json").read_text())
    del content["trees"]
    (run / "config.json").write_text(json.dumps(content))
    scores = models_of(run)
    output = gatedcells("--resume", run)
    assert len(fitted) == 1
    assert "LightGBM, 3 trees: as scored before" in output
    assert models_of(run) == scores
    assert "LightGBM, 3 trees" in (run / "report.html").read_text(encoding="utf-8")


def test_a_run_of_prices_takes_none(tmp_path):
    pytest.importorskip("lightgbm")
    run = RunFolder(tmp_path / "run")
    data = {"kind": "prices", "place": str(tmp_path / "nowhere"), "sha256": {}}
    run.create(Config("bitcoin", BitcoinRecipe(), ("gru",), 0, 1, data, {}))
    told = gatedcells("--resume", run.path, "--lightgbm", 3, status=2)
    assert "--lightgbm belongs to the recipes for load, not to bitcoin" in told
    assert run.config().trees is None


def test_that_lightgbm_is_not_there_is_told_before_anything_is_read(monkeypatch, small_folder, tmp_path):
    run = tmp_path / "run"
    gatedcells("--data", small_folder, "--out", run, *RUN, "--threads", 1)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    for options in (
        ("--data", tmp_path / "nowhere", "--lightgbm", 3),
        ("--resume", run, "--data", tmp_path / "nowhere", "--lightgbm", 3),
    ):
        assert "pip install lightgbm" in gatedcells(*options, status=2)
    assert RunFolder(run).config().trees is None
    RunFolder(run).save_config(replace(RunFolder(run).config(), trees=3))
    assert "pip install lightgbm" in gatedcells("--resume", run, "--data", tmp_path / "nowhere", status=2)
