"""A backtest knows at each date what was known then."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast.backtest import Plan, ends_of, folds
from gatedcells.forecast.data import Clock, read_folder
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import scored
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.training import train
from gatedcells.forecast.trees import PooledTrees
from tests.support.load_files import eastern_stamps, made_up_load, write_file


@pytest.fixture
def series(small_folder):
    return read_folder(small_folder, Clock())


HOUR = pd.Timedelta(hours=1)


def stamps(one):
    return one.first_hour + HOUR * np.arange(len(one.load_mw))


@pytest.mark.parametrize("window", [None, 800])
def test_each_fold_trains_before_its_date_and_tests_after_it(series, window):
    plan = Plan(folds=3, span_hours=100, window_hours=window)
    end = max(ends_of(series))
    cut = folds(series, plan)
    assert [fold.origin for fold in cut] == [end - 300 * HOUR, end - 200 * HOUR, end - 100 * HOUR]
    for fold in cut:
        for region in fold.regions:
            original = next(one for one in series if one.region == region.name)
            when = stamps(region.series)
            assert (when[region.train] < fold.origin).all()
            assert (when[region.test] >= fold.origin).all()
            assert (when < fold.origin + 100 * HOUR).all()
            at = int((region.series.first_hour - original.first_hour) / HOUR)
            there = original.load_mw[at : at + len(when)]
            np.testing.assert_array_equal(region.series.load_mw, there)
            if window is not None:
                assert region.series.first_hour >= fold.origin - window * HOUR
                assert len(region.train) <= window - 90


def test_what_comes_after_a_span_changes_nothing(series):
    plan = Plan(folds=2, span_hours=100)
    later = []
    for one in series:
        load = one.load_mw.copy()
        load[stamps(one) >= plan.origins(series)[1]] *= 3
        later.append(replace(one, load_mw=load))
    recipe = FastRecipe(hidden_size=4, steps=3, batch_size=4)
    forecasts = []
    for given in (series, later):
        fold = folds(given, plan)[0]
        forecaster, _ = train(FastTask(recipe, fold.regions), seed=0)
        forecasts.append(forecaster.forecast_test(fold.regions, lambda _: None))
    for one, other in zip(*forecasts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_region_without_hours_on_both_sides_is_left_out_and_said(series):
    first, second = series
    short = replace(second, first_hour=second.first_hour - 5000 * HOUR)
    late = replace(second, region="LATE", first_hour=max(ends_of(series)) - 200 * HOUR,
                   load_mw=second.load_mw[:200], rows=second.rows[:200])  # fmt: skip
    (fold,) = folds([first, short, late], Plan(folds=1, span_hours=100))
    assert [region.name for region in fold.regions] == [first.region]
    assert fold.left_out == {second.region: "no hour after it", "LATE": "100 hours before it, 672 are needed"}
    with pytest.raises(ForecastError, match="nothing to test at .* UTC: .*: no hour after it"):
        folds([short], Plan(folds=1, span_hours=100, end=max(ends_of(series))))


def odd(series):
    """Series as those given, and of the second ones that have no score in the last 100 hours, or no scale."""
    first, second = series
    at = len(second.load_mw) - 50
    nothing, still, daily = second.load_mw.copy(), second.load_mw.copy(), second.load_mw.copy()
    nothing[at:], still[:at] = np.nan, 700.0
    daily[:at] = np.resize(daily[:24], at)
    late = max(ends_of(series)) - HOUR * len(second.load_mw)
    made = {"BLANK": nothing, "STILL": still, "DAILY": daily}
    return [
        first,
        *(replace(second, region=name, load_mw=load, first_hour=late) for name, load in made.items()),
    ]


def test_regions_that_cannot_be_scored_are_left_out_and_said(series):
    (fold,) = folds(odd(series), Plan(folds=1, span_hours=50))
    assert [region.name for region in fold.regions] == [series[0].region]
    still = "its load before it is that of a day before in every hour: no MASE"
    assert fold.left_out == {
        "BLANK": "no load above zero in any hour after it", "STILL": still, "DAILY": still,
    }  # fmt: skip
    with pytest.raises(ForecastError, match="nothing to test at .*: BLANK: no load above zero"):
        folds(odd(series)[1:], Plan(folds=1, span_hours=50))


def test_without_refitting_regions_that_the_first_network_does_not_know_are_said(series):
    first, second = series
    new = replace(second, region="NEW", first_hour=max(ends_of(series)) - HOUR * len(second.load_mw))
    late = replace(new, load_mw=new.load_mw[-800:], first_hour=max(ends_of(series)) - 800 * HOUR,
                   rows=np.arange(800))  # fmt: skip
    plan = Plan(folds=2, span_hours=100)
    refitted = folds([first, late], plan)
    assert [len(fold.regions) for fold in refitted] == [1, 2]
    once = folds([first, late], replace(plan, refit=False))
    assert [[region.name for region in fold.regions] for fold in once] == [[first.region]] * 2
    assert once[1].left_out == {"NEW": "the network of the first date does not know it"}
    early = replace(first, load_mw=first.load_mw[:-150], rows=first.rows[:-150])
    with pytest.raises(ForecastError, match="nothing to test at .*; NEW: the network of the first date does"):
        folds([early, late], replace(plan, refit=False))


def test_the_command_goes_on_without_regions_that_cannot_be_scored_and_names_them(tmp_path):
    stamps = eastern_stamps("2016-09-01 04:00", 1200)
    for seed, region in enumerate(("AEP", "BLANK", "STILL", "ZERO")):
        load = made_up_load(1200, seed)
        load[-60:] = {"BLANK": np.nan, "ZERO": 0.0}.get(region, load[-60:])
        load[:-60] = 500.0 if region == "STILL" else load[:-60]
        write_file(tmp_path / "data", region, stamps, load)
    text = run("--data", tmp_path / "data", "--folds", 1, "--span", 60, "--steps", 3, "--hidden-size", 4,
               "--threads", 1, "--out", tmp_path / "out")  # fmt: skip
    for region in ("BLANK", "ZERO"):
        assert f"without {region}, no load above zero in any hour after it" in text
    assert "without STILL, its load before it is that of a day before in every hour: no MASE" in text
    (fold,) = json.loads((tmp_path / "out" / "backtest.json").read_text())["folds"]
    assert list(fold["by_region"]["GRU"]) == ["AEP"]


def run(*arguments, status=0):
    done = CliRunner().invoke(main, ["forecast", "backtest", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return done.output


def test_the_command_scores_each_fold_and_goes_on_where_it_was(small_folder, tmp_path):
    options = ("--data", small_folder, "--folds", 2, "--span", 60, "--steps", 3, "--hidden-size", 4,
               "--threads", 1, "--out", tmp_path / "out")  # fmt: skip
    text = run(*options)
    cut = folds(read_folder(small_folder, Clock()), Plan(folds=2, span_hours=60))
    hours = [sum(len(region.test) for region in fold.regions) for fold in cut]
    assert min(hours) >= 50
    found = json.loads((tmp_path / "out" / "backtest.json").read_text())
    assert [one["test_hours"] for one in found["folds"]] == hours
    for name in ("GRU", "persistence", "ridge, 168 lags"):
        assert f"{found['folds'][1]['smape'][name]:.3f}" in text
    first, second = (tmp_path / "out" / f"fold-{number}.json" for number in (0, 1))
    kept, written = second.read_text(), first.stat().st_mtime_ns
    second.unlink()
    (tmp_path / "out" / "fold-1.safetensors").unlink()
    run(*options)
    assert second.read_text() == kept
    assert first.stat().st_mtime_ns == written
    assert "other settings or data" in run(*options, "--seed", 3, status=2)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert "is no backtest" in run(*options[:-1], tmp_path / "used", status=2)


def test_boosted_trees_are_fitted_at_each_date(small_folder, tmp_path):
    pytest.importorskip("lightgbm")
    out = tmp_path / "out"
    plain = ("--data", small_folder, "--folds", 2, "--span", 60, "--steps", 3, "--hidden-size", 4,
             "--threads", 1, "--out", out)  # fmt: skip
    options = (*plain, "--lightgbm", 3)
    text = run(*options)
    found = json.loads((out / "backtest.json").read_text())["folds"]
    regions = read_folder(small_folder, Clock())
    for fold, one in zip(folds(regions, Plan(folds=2, span_hours=60)), found, strict=True):
        expected = PooledTrees(3).forecast(fold.regions, lambda _: None, season=False)
        scores = scored("x", fold.regions, expected)
        assert one["smape"]["LightGBM, 3 trees"] == pytest.approx(scores.mean.smape, rel=1e-12)
    assert f"{found[1]['smape']['LightGBM, 3 trees']:.3f}" in text
    assert run(*options) == text
    assert "other settings or data" in run(*plain, status=2)
    assert "leave out --no-refit" in run(*options, "--no-refit", status=2)


def test_a_backtest_from_before_some_settings_goes_on(small_folder, tmp_path):
    options = ("--data", small_folder, "--folds", 1, "--span", 60, "--steps", 3, "--hidden-size", 4,
               "--threads", 1, "--out", tmp_path / "out")  # fmt: skip
    text = run(*options)
    path = tmp_path / "out" / "settings.json"
    settings = json.loads(path.read_text())
    del settings["policy"], settings["trees"]
    del settings["recipe"]["head_size"], settings["recipe"]["members"]
    path.write_text(json.dumps(settings))
    assert run(*options) == text


def test_without_refitting_one_network_forecasts_all_folds(small_folder, tmp_path):
    options = (
        "--data",
        small_folder,
        "--folds",
        2,
        "--span",
        60,
        "--steps",
        3,
        "--hidden-size",
        4,
        "--threads",
        1,
    )
    run(*options, "--no-refit", "--out", tmp_path / "once")
    run(*options, "--out", tmp_path / "anew")
    assert [path.name for path in sorted((tmp_path / "once").glob("*.safetensors"))] == ["fold-0.safetensors"]
    assert len(list((tmp_path / "anew").glob("*.safetensors"))) == 2
    once, anew = (
        json.loads((tmp_path / name / "backtest.json").read_text())["folds"] for name in ("once", "anew")
    )
    assert once[0] == anew[0]
    assert once[1]["smape"]["GRU"] != anew[1]["smape"]["GRU"]


def test_dates_that_make_no_sense_are_refused(small_folder, tmp_path):
    options = ("--data", small_folder, "--steps", 3, "--out", tmp_path / "out")
    assert "--end must be like" in run(*options, "--end", "some day", status=2)
    assert "nothing to test at" in run(*options, "--end", "1999-01-01", status=2)


@pytest.mark.parametrize(
    "stamp", ["", "NaT", "nan", "now", "today", "07/08/2018", "18-07-2018", "July 2018", "5"]
)
def test_an_end_that_is_no_iso_date_is_refused(stamp, small_folder, tmp_path):
    options = ("--data", small_folder, "--steps", 3, "--out", tmp_path / "out")
    assert f"--end must be like '2018-07-01 12:00', got {stamp!r}" in run(*options, "--end", stamp, status=2)


@pytest.mark.parametrize("stamp", ["0001-01-01", "9999-12-31 23:00", "9999-12-31T23:00-05:00"])
def test_an_end_in_a_far_year_is_refused(stamp, small_folder, tmp_path):
    text = run("--data", small_folder, "--out", tmp_path / "out", "--end", stamp, status=2)
    assert "expected a year from 1900 to 2200" in text


@pytest.mark.parametrize(
    ("stamp", "hour"),
    [("2016-10-20 12:00", 12), ("2016-10-20T12:00+02:00", 10), ("2016-10-20", 0), ("20161020", 0)],
)
def test_an_end_is_in_utc_or_has_an_offset(stamp, hour, small_folder, tmp_path):
    run("--data", small_folder, "--folds", 1, "--span", 48, "--steps", 2, "--hidden-size", 3, "--threads", 1,
        "--end", stamp, "--out", tmp_path / "out")  # fmt: skip
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["plan"]["end"] == f"2016-10-20T{hour:02d}:00:00+00:00"


@pytest.mark.parametrize(("folds", "span"), [(1, 100_000_000), (1, 10**12), (4, 10**30), (10**12, 1)])
def test_spans_beyond_any_date_are_refused(folds, span, small_folder, tmp_path):
    options = ("--data", small_folder, "--folds", folds, "--span", span, "--out", tmp_path / "out")
    expected = f"--folds {folds} of --span {span} are {folds * span:,} hours; expected at most 1,752,000"
    assert expected in run(*options, status=2)


def test_the_longest_span_that_is_not_refused_has_nothing_to_train_on(small_folder, tmp_path):
    options = ("--data", small_folder, "--folds", 1, "--span", 1_752_000, "--out", tmp_path / "out")
    assert "nothing to test at 1816-" in run(*options, status=2)
    assert "nothing to test at 1700-" in run(*options, "--end", "1900-01-01", status=2)
