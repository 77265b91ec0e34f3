"""LightGBM beside the networks: on the same inputs, from the same hours."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast.errors import ForecastError
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
