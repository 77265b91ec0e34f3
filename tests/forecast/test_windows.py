"""Splits, repair and features use the past only."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells.forecast.article import ArticleRecipe, ArticleTask, columns
from gatedcells.forecast.calendar import holiday_flags, local_starts
from gatedcells.forecast.data import read_file
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.features import feature_table, input_size
from gatedcells.forecast.flaws import spike_mask
from gatedcells.forecast.policy import Policy
from gatedcells.forecast.scaling import LogScale, MinMax
from gatedcells.forecast.windows import fill_from_the_past, prepare
from tests.support.load_files import eastern_stamps, made_up_load, write_file


@pytest.fixture
def series(tmp_path):
    hours = 900
    load = made_up_load(hours)
    load[[50, 300, 301]] = np.nan
    load[400] *= 1.5  # a spike to train on
    load[880] *= 1.5  # a spike to forecast
    return read_file(write_file(tmp_path, "AEP", eastern_stamps("2016-09-01 04:00", hours), load))


def test_the_last_tenth_of_the_targets_is_the_test_part(series):
    (region,) = prepare([series], lookback=90)
    targets = np.concatenate([region.train, region.test])
    assert np.array_equal(targets, series.rows[90:])
    assert len(region.test) == int(0.1 * (len(series.rows) - 90))
    assert region.train_end == region.test[0] == region.train[-1] + 1


def test_a_series_shorter_than_lookback_and_ten_targets_is_refused(tmp_path):
    stamps, load = eastern_stamps("2016-09-01", 100), made_up_load(100)
    assert prepare([read_file(write_file(tmp_path, "A", stamps, load))])[0].test.size == 1
    with pytest.raises(
        ForecastError, match="A_hourly.csv: 99 rows; expected at least 100: a lookback of 90 hours"
    ):
        prepare([read_file(write_file(tmp_path, "A", stamps[:99], load[:99]))])


def test_holes_and_training_spikes_are_filled_from_the_past_and_test_spikes_are_kept(series):
    (region,) = prepare([series])
    y, raw = region.load_mw, series.load_mw
    assert not region.usable[[50, 300, 301, 400]].any()
    assert region.usable.sum() == len(y) - 4
    for t in (50, 300, 301, 400):
        assert y[t] == pytest.approx(y[t - 1] * y[t - 24] / y[t - 25])
    assert y[880] == raw[880]
    assert np.isnan(region.actual_mw).sum() == 0
    untouched = np.setdiff1d(np.arange(len(y)), [50, 300, 301, 400])
    assert np.array_equal(y[untouched], raw[untouched])
    (kept,) = prepare([series], policy=Policy(on_outlier="keep"))
    assert kept.load_mw[400] == raw[400]


def test_a_missing_start_and_an_empty_series():
    load = np.array([np.nan, 5.0, np.nan, 7.0])
    filled = fill_from_the_past(load, np.isfinite(load), "x.csv")
    assert filled.tolist() == [5.0, 5.0, 5.0, 7.0]
    with pytest.raises(ForecastError, match="x.csv: no positive load in the whole file"):
        fill_from_the_past(load * np.nan, np.zeros(4, dtype=bool), "x.csv")


@settings(max_examples=40)
@given(change_at=st.integers(100, 890), seed=st.integers(0, 99))
def test_what_comes_later_changes_nothing_that_came_before(tmp_path_factory, change_at, seed):
    """Repair, features and scales of a time are the same whatever the future holds."""
    hours = 900
    stamps = eastern_stamps("2016-09-01 04:00", hours)
    load = made_up_load(hours, seed)
    missing = np.random.default_rng(seed).choice(hours, 30)
    load[missing] = np.nan
    other = load.copy()
    other[change_at:] = made_up_load(hours - change_at, seed + 1, 7000.0)
    other[hours - 1] = load[hours - 1] = 1.0
    folder = tmp_path_factory.mktemp("x")
    both = [read_file(write_file(folder, "AEP", stamps, values)) for values in (load, other)]
    filled = [fill_from_the_past(s.load_mw, np.isfinite(s.load_mw), "x") for s in both]
    assert np.array_equal(filled[0][:change_at], filled[1][:change_at])
    scale = LogScale(6.0, 0.2, 0.05)
    options = {"lags_hours": (24, 48), "country": "US", "season": True}
    tables = [
        feature_table(s, y, scale, np.arange(change_at + 1), region=0, regions=1, **options)
        for s, y in zip(both, filled, strict=True)
    ]
    # the step that forecasts the first changed hour still knows nothing of it
    rows = torch.arange(change_at + 1)
    assert torch.equal(tables[0].inputs(rows), tables[1].inputs(rows))


def test_scales_are_fitted_on_the_training_part_unless_told_otherwise(series):
    (region,) = prepare([series])
    train, everything = (
        ArticleTask(ArticleRecipe(scaled_on=part), [region]).scales["AEP"] for part in ("train", "all")
    )
    assert train.high[0] == region.load_mw[: region.train_end].max()
    assert everything.high[0] == region.load_mw.max() > train.high[0]
    assert FastTask(FastRecipe(), [region]).scales["AEP"] == LogScale.fit(region.load_mw[: region.train_end])


def test_min_max_goes_to_the_unit_interval_and_back():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    scale = MinMax.fit(values)
    scaled = scale.scale(values)
    assert scaled[:, 0].tolist() == [0.0, 1.0, 0.5]
    assert scaled[:, 1].tolist() == [0.0, 0.0, 0.0]  # a constant column
    assert np.array_equal(scale.unscale(scaled[:, 0], 0), values[:, 0])


def test_the_articles_windows_are_views_of_one_table(series):
    (region,) = prepare([series])
    task = ArticleTask(ArticleRecipe(lookback_hours=90), [region, region])
    windows, load = task._windows, task._load
    assert windows.untyped_storage().data_ptr() == load.untyped_storage().data_ptr()
    assert windows.untyped_storage().nbytes() == 2 * 900 * 5 * 4  # not 90 times that
    scaled = task.scales["AEP"].scale(columns(series, region.load_mw)).astype(np.float32)
    for target in (region.train[0], region.train[-1]):
        assert np.array_equal(windows[target - 90].T.numpy(), scaled[target - 90 : target])
        assert load[target] == scaled[target, 0]
    # a second region's windows do not reach into the first
    assert np.array_equal(
        windows[900 + region.train[0] - 90].T.numpy(), scaled[region.train[0] - 90 : region.train[0]]
    )


def test_features_are_what_their_names_say(series):
    (region,) = prepare([series])
    scale = LogScale.fit(region.load_mw[: region.train_end])
    steps = np.array([30, 500, 899])
    table = feature_table(
        series, region.load_mw, scale, steps, lags_hours=(24, 168), country="US", season=True, region=1,
        regions=3,
    )  # fmt: skip
    x = table.inputs(torch.arange(3)).double().numpy()
    assert x.shape == (3, input_size((24, 168), 3))
    logs = np.log(region.load_mw)
    p = 500
    expected = [
        (logs[p - 1] - logs[p - 2]) / scale.change,
        (logs[p - 1] - scale.level) / scale.spread,
        (logs[p - 24] - logs[p - 25]) / scale.change,
        (logs[p - 25] - logs[p - 1]) / scale.spread,
        (logs[p - 168] - logs[p - 169]) / scale.change,
        (logs[p - 169] - logs[p - 1]) / scale.spread,
    ]
    np.testing.assert_allclose(x[1, :6], expected, rtol=1e-5, atol=1e-6)
    assert x[0, 4:6].tolist() == [0.0, 0.0]  # 168 hours back is before the series
    start = local_starts(series)[p]
    one_hot = x[1, 6 + 2 + 3 :]
    assert np.flatnonzero(one_hot).tolist() == [start.hour, 24 + start.day_of_week, 24 + 7 + 1]


def test_holidays_mark_the_day_and_its_neighbours(tmp_path):
    series = read_file(write_file(tmp_path, "A", eastern_stamps("2016-07-03 04:00", 96), made_up_load(96)))
    flags = holiday_flags(local_starts(series), "US")
    assert flags[:24].tolist() == [[0, 0, 1]] * 24
    assert flags[24:48].tolist() == [[1, 0, 0]] * 24  # Independence Day, from its first local hour
    assert flags[48:72].tolist() == [[0, 1, 0]] * 24
    assert not holiday_flags(local_starts(series), "none").any()


def test_spikes_are_hours_a_tenth_off_the_median_of_five():
    load = np.full(9, 100.0)
    load[4], load[7] = 111.0, 109.0
    assert np.flatnonzero(spike_mask(load)).tolist() == [4]
