"""What is made of holes and spikes is what was asked for, said aloud, and kept with the run."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells.cli import main
from gatedcells.forecast.backtest import Plan, folds
from gatedcells.forecast.data import read_file
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.flaws import REMEDIES
from gatedcells.forecast.policy import DEFAULT, ON_GAP, ON_OUTLIER, Policy
from gatedcells.forecast.windows import LOOKBACK, prepare
from tests.support.load_files import eastern_stamps, made_up_load, write_file

HOURS = 1100
SMALL = ["--steps", "6", "--batch-size", "8", "--hidden-size", "4", "--threads", "1", "--cell", "gru"]


def flawed(folder, region="AEP"):
    """A hole in the training part (no row), one in the test part (a zero), and a spike in each."""
    load = made_up_load(HOURS)
    load[1040] = 0.0
    load[[500, 1090]] *= 1.5
    keep = np.arange(HOURS) != 400
    return write_file(folder, region, eastern_stamps("2016-09-01 04:00", HOURS)[keep], load[keep])


@pytest.fixture
def series(tmp_path):
    return read_file(flawed(tmp_path))


def gatedcells(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], env={"COLUMNS": "110"})


def test_by_default_holes_are_filled_and_spikes_repaired_as_always(series):
    (region,), (asked,) = prepare([series]), prepare([series], policy=Policy("fill", "repair"))
    assert Policy("fill", "repair") == DEFAULT
    assert DEFAULT.remedies() == REMEDIES
    assert np.flatnonzero(~region.usable).tolist() == [400, 500, 1040]
    assert 400 not in region.train
    assert np.isnan(region.actual_mw[region.test == 1040])
    assert np.array_equal(region.load_mw, asked.load_mw)
    assert not any(len(part) for part in region.dropped)


@settings(max_examples=40)
@given(
    holes=st.lists(st.integers(0, HOURS - 1), max_size=4, unique=True),
    reach=st.integers(0, 338),
    seed=st.integers(0, 5),
)
def test_drop_leaves_out_exactly_the_hours_that_look_back_on_a_hole(tmp_path_factory, holes, reach, seed):
    load = made_up_load(HOURS, seed)
    load[holes] = np.nan
    path = write_file(tmp_path_factory.mktemp("x"), "AEP", eastern_stamps("2016-09-01 04:00", HOURS), load)
    one = read_file(path)
    hours = max(reach, LOOKBACK)
    (filled,) = prepare([one])
    clean = [t for t in range(HOURS) if np.isfinite(load[max(t - hours, 0) : t + 1]).all()]
    train, test = np.intersect1d(filled.train, clean), np.intersect1d(filled.test, clean)
    if not len(train) or not len(test):
        with pytest.raises(ForecastError, match="--on-gap drop leaves no hour to (train|test) on"):
            prepare([one], policy=Policy("drop"), reach_hours=reach)
        return
    (region,) = prepare([one], policy=Policy("drop"), reach_hours=reach)
    assert np.array_equal(region.train, train)
    assert np.array_equal(region.test, test)
    assert np.isfinite(region.actual_mw).all()
    assert np.array_equal(np.flatnonzero(region.usable), clean)
    assert region.train_end == filled.train_end
    assert np.array_equal(np.union1d(train, region.dropped[0]), filled.train)
    assert np.array_equal(np.union1d(test, region.dropped[1]), filled.test)
    assert np.array_equal(region.load_mw, filled.load_mw)


def test_a_network_is_supervised_at_the_hours_that_are_left_and_at_no_other(series):
    recipe = FastRecipe(hidden_size=4, lags_hours=(24,), chunk_hours=48, batch_size=4, burn_in_hours=6)
    hole_and_after = [*range(400, 491), 500, *range(1040, HOURS)]
    for policy, expected in ((Policy(), [400, 500, 1040]), (Policy("drop"), hole_and_after)):
        (region,) = prepare([series], policy=policy, reach_hours=recipe.hours_needed)
        supervised = FastTask(recipe, [region])._usable.numpy()
        assert np.flatnonzero(~supervised).tolist() == expected


def test_keep_leaves_spikes_in_and_repair_leaves_those_of_the_test_part(series):
    (repaired,), (kept,) = prepare([series]), prepare([series], policy=Policy(on_outlier="keep"))
    raw = series.load_mw
    assert kept.load_mw[500] == raw[500] != repaired.load_mw[500]
    assert kept.usable[500]
    assert not repaired.usable[500]
    assert kept.load_mw[1090] == repaired.load_mw[1090] == raw[1090]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy("raise"), "2016-09-17 17:00:00 has no row (the first of 2 holes)"),
        (Policy(on_outlier="raise"), "2016-09-21 21:00:00 has {spike:g} MW, the median of the five around"),
    ],
)
def test_raise_names_file_stamp_and_value(series, policy, words):
    with pytest.raises(ForecastError) as caught:
        prepare([series], policy=policy)
    words = f"AEP_hourly.csv: the hour stamped {words.format(spike=series.load_mw[500])}"
    assert str(caught.value).startswith(words)
    with pytest.raises(ForecastError, match="the hour stamped"):
        folds([series], Plan(folds=1, span_hours=100), policy)


@pytest.mark.parametrize(("cell", "words"), [("0", "has 0 MW"), ("-3.5", "has -3.5 MW"), ("", "is blank")])
def test_raise_names_a_load_that_is_no_load(tmp_path, cell, words):
    load = made_up_load(200).astype(object)
    load[150] = cell
    path = write_file(tmp_path, "AEP", eastern_stamps("2016-09-01 04:00", 200), load)
    with pytest.raises(ForecastError, match=f"stamped 2016-09-07 07:00:00 {words}; expected a positive"):
        prepare([read_file(path)], policy=Policy("raise"))


def test_raise_lets_a_whole_file_pass(tmp_path):
    path = write_file(tmp_path, "AEP", eastern_stamps("2016-09-01 04:00", 400), made_up_load(400))
    (region,) = prepare([read_file(path)], policy=Policy("raise", "raise"))
    assert region.usable.all()


def test_there_is_no_other_policy():
    with pytest.raises(ForecastError, match="on-gap must be one of fill, drop, raise, got 'guess'"):
        Policy("guess")
    with pytest.raises(ForecastError, match="on-outlier must be one of repair, keep, raise, got 'drop'"):
        Policy(on_outlier="drop")


def test_a_backtest_drops_too_and_says_which_region_has_nothing_left(series, tmp_path):
    whole = read_file(
        write_file(tmp_path / "b", "DOM", eastern_stamps("2016-09-01 04:00", HOURS), made_up_load(HOURS))
    )
    (fold,) = folds([series, whole], Plan(folds=1, span_hours=60), Policy("drop"), 338)
    assert [region.name for region in fold.regions] == ["DOM"]
    assert fold.left_out == {"AEP": "--on-gap drop leaves no hour on one side of it"}
    (fold,) = folds([series, whole], Plan(folds=1, span_hours=60), Policy("fill"), 338)
    assert [region.name for region in fold.regions] == ["AEP", "DOM"]


def test_a_run_says_its_policy_keeps_it_and_goes_by_it(tmp_path):
    out, asked = tmp_path / "run", ["--on-gap", "drop", "--on-outlier", "keep"]
    load = made_up_load(HOURS)
    load[500] = np.nan
    path = write_file(tmp_path / "data", "AEP", eastern_stamps("2016-09-01 04:00", HOURS), load)
    result = gatedcells("forecast", "--data", tmp_path / "data", "--out", out, *SMALL, *asked)
    assert result.exit_code == 0, result.output
    assert "Policy: --on-gap drop, --on-outlier keep." in result.output
    assert "339 training and 0 test hours look back on a hole and are left out." in result.output
    assert json.loads((out / "config.json").read_text())["policy"] == {"on_gap": "drop", "on_outlier": "keep"}
    (out / "gru" / "weights.safetensors").unlink()
    again = gatedcells("forecast", "--resume", out)
    assert "339 training and 0 test hours" in again.output
    assert gatedcells("forecast", "--resume", out, "--on-gap", "fill").exit_code == 2
    assert gatedcells("forecast", "predict", out, "--data", path).exit_code == 0
    load[1000] = np.nan
    write_file(tmp_path / "data", "AEP", eastern_stamps("2016-09-01 04:00", HOURS), load)
    refused = gatedcells("forecast", "predict", out, "--data", path)
    assert refused.exit_code == 2
    assert "1 of the 338 hours that the network looks back at are missing" in refused.output


@pytest.mark.parametrize(("option", "value"), [("--on-gap", "raise"), ("--on-outlier", "raise")])
def test_a_refused_file_leaves_no_run_folder(tmp_path, option, value):
    flawed(tmp_path / "data")
    for command in (["forecast"], ["forecast", "backtest", "--span", 100, "--folds", 1]):
        arguments = [*command, "--data", tmp_path / "data", "--out", tmp_path / "run", option, value]
        result = gatedcells(*arguments)
        assert result.exit_code == 2, result.output
        assert "AEP_hourly.csv: the hour stamped" in result.output
        assert not (tmp_path / "run").exists()


def test_the_articles_recipe_keeps_spikes_unless_asked_not_to(tmp_path):
    flawed(tmp_path / "data")
    small = ["--epochs", 1, "--fraction", 0.02, "--hidden-size", 4, "--batch-size", 8, "--cell", "gru"]
    for asked, kept in (([], "keep"), (["--on-outlier", "repair"], "repair")):
        out = tmp_path / kept
        small += ["--data", tmp_path / "data"]
        result = gatedcells("forecast", "--article", "--out", out, *small, *asked)
        assert result.exit_code == 0, result.output
        assert f"Policy: --on-gap fill, --on-outlier {kept}." in result.output
        assert ("spikes are kept" in " ".join(result.output.split())) == (kept == "keep")


def test_the_price_of_bitcoin_has_no_such_policy(tmp_path):
    result = gatedcells("forecast", "--recipe", "bitcoin", "--on-gap", "drop", "--data", tmp_path)
    assert result.exit_code == 2
    assert "--on-gap belongs to the recipes for load, not to bitcoin" in result.output


def test_every_policy_is_said_in_the_table_of_flaws():
    for on_gap in ON_GAP:
        for on_outlier in ON_OUTLIER:
            said = Policy(on_gap, on_outlier).remedies()
            assert set(said) == set(REMEDIES)
            assert said["spikes"].endswith(ON_OUTLIER[on_outlier])
            assert said["missing_hours"].endswith(ON_GAP[on_gap])
