"""Metrics and baselines against their formulas, and against what is known of the real files."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatedcells.forecast.baselines import DayWeekRatio, Persistence, Ridge, SeasonalNaive, baselines
from gatedcells.forecast.calendar import Calendar, holiday_flags, local_starts
from gatedcells.forecast.data import read_file, read_folder
from gatedcells.forecast.evaluate import score_baselines, scored
from gatedcells.forecast.metrics import Scores, UndefinedScore, mean_defined, mean_of, naive_mae, score
from gatedcells.forecast.scaling import LogScale, SeriesScales
from gatedcells.forecast.windows import prepare
from tests.support.load_files import eastern_stamps, made_up_load, write_file

POSITIVE = st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(0.1, 1e5)), min_size=1, max_size=30)


@given(pairs=POSITIVE, naive=st.floats(0.1, 1e4))
def test_scores_are_their_formulas(pairs, naive):
    f, a = (np.array(side) for side in zip(*pairs, strict=True))
    n = len(pairs)
    found = score(f, a, naive)
    assert found.smape == pytest.approx(100 / n * sum(abs(x - y) / ((abs(x) + abs(y)) / 2) for x, y in pairs))
    assert found.mae_mw == pytest.approx(sum(abs(x - y) for x, y in pairs) / n)
    assert found.rmse_mw == pytest.approx((sum((x - y) ** 2 for x, y in pairs) / n) ** 0.5)
    assert found.mase == pytest.approx(found.mae_mw / naive)
    # the article's code, literally
    article = np.mean(abs(f - a) / (a + f) / 2) * 100
    assert found.article_smape == pytest.approx(article)
    assert found.article_smape == pytest.approx(found.smape / 4)


def test_hours_without_an_actual_load_are_left_out():
    f, a = np.array([1.0, 2.0, 3.0]), np.array([1.0, np.nan, 4.0])
    assert score(f, a, 1.0) == score(f[[0, 2]], a[[0, 2]], 1.0)


def test_undefined_scores_are_nan_with_a_warning():
    with pytest.warns(UndefinedScore, match="over no hours is undefined"):
        found = score(np.array([1.0]), np.array([np.nan]), 1.0)
    assert all(np.isnan(value) for value in vars(found).values())
    with pytest.warns(UndefinedScore, match="MASE divides by zero"):
        found = score(np.array([1.0]), np.array([2.0]), 0.0)
    assert np.isnan(found.mase)
    assert found.mae_mw == 1.0
    with pytest.warns(UndefinedScore, match="sMAPE divides by zero"):
        assert np.isnan(score(np.array([0.0]), np.array([0.0]), 1.0).smape)
    assert found.to_json()["mase"] is None
    with pytest.warns(UndefinedScore):
        assert np.isnan(naive_mae(np.ones(24)))


def test_a_forecast_that_is_no_number_is_an_error_not_a_score():
    with pytest.raises(ValueError, match="a forecast is not a number"):
        score(np.array([np.nan]), np.array([1.0]), 1.0)
    with pytest.raises(ValueError, match="shape"):
        score(np.ones(2), np.ones(3), 1.0)


def test_the_mean_counts_every_region_the_same():
    one, two = Scores(1, 2, 3, 4, 5), Scores(3, 4, 5, 6, 7)
    assert mean_of([one, two]) == Scores(2, 3, 4, 5, 6)


def test_a_region_in_which_a_score_is_not_defined_is_not_in_its_mean():
    nan = float("nan")
    one, two, still = Scores(1, 2, 3, 4, 5), Scores(nan, nan, nan, nan, nan), Scores(3, 4, 5, 6, nan)
    assert mean_of([one, two, still]) == Scores(2, 3, 4, 5, 5)
    assert np.isnan(mean_of([two, two]).smape)
    assert mean_defined([None, 2.0, nan, 4.0]) == 3.0


def test_naive_mae_is_the_mean_change_over_a_day():
    load = np.arange(30.0)
    load[29] = np.nan
    assert naive_mae(load) == 24.0


@pytest.mark.parametrize("level", [500.0, 0.1, 1234.5])
def test_a_load_that_stands_still_is_scaled_by_one(level):
    load = np.full(1050, level)  # the mean of whose logarithms is rounded
    scale = LogScale.fit(load)
    assert (scale.spread, scale.change) == (1.0, 1.0)
    several = SeriesScales.fit(np.log(load), np.array([0, 1050]), True)
    assert (several.spread.tolist(), several.change.tolist()) == ([1.0], [1.0])


@pytest.fixture
def region(tmp_path):
    hours = 24 * 90
    load = made_up_load(hours)
    load[[700, 2100]] = np.nan
    series = read_file(write_file(tmp_path, "AEP", eastern_stamps("2016-05-01 04:00", hours), load))
    return prepare([series])[0]


def test_formulas_forecast_what_they_say(region):
    y = region.load_mw
    for forecast, formula in (
        (Persistence(), lambda t: y[t - 1]),
        (SeasonalNaive(24), lambda t: y[t - 24]),
        (SeasonalNaive(168), lambda t: y[t - 168]),
        (DayWeekRatio(), lambda t: y[t - 1] * (y[t - 24] / y[t - 25] + y[t - 168] / y[t - 169]) / 2),
    ):
        np.testing.assert_allclose(forecast.forecast(region), [formula(t) for t in region.test], rtol=1e-12)


def test_ridge_is_the_dense_solution_of_its_normal_equations(region):
    y = np.log(region.load_mw)
    starts = local_starts(region.series)
    calendar = Calendar.of(starts)
    holiday = holiday_flags(starts, "US")[:, 0] > 0

    def row(t):
        effects = np.zeros(168 + 288 + 25)
        effects[calendar.weekday[t] * 24 + calendar.hour[t]] = 1
        effects[168 + (calendar.month[t] - 1) * 24 + calendar.hour[t]] = 1
        effects[168 + 288 + (calendar.hour[t] if holiday[t] else 24)] = 1
        return np.concatenate([y[t - 168 : t - 1] - y[t - 1], effects])

    train = [t for t in region.train if region.usable[t] and t >= 168]
    x = np.stack([row(t) for t in train])
    change = np.array([y[t] - y[t - 1] for t in train])
    w = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ change)
    expected = [np.exp(y[t - 1] + row(t) @ w) for t in region.test]
    np.testing.assert_allclose(Ridge().forecast(region), expected, rtol=1e-8)


def test_short_series_fall_back_to_what_can_be_known(tmp_path):
    stamps, load = eastern_stamps("2016-05-01", 110), made_up_load(110)
    (region,) = prepare([read_file(write_file(tmp_path, "A", stamps, load))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = score_baselines([region], baselines(), lambda _: None)
    assert all(np.isfinite(r.mean.smape) for r in results)


def test_baselines_on_the_twelve_files_score_what_is_known(data_root):
    regions = prepare(read_folder(data_root / "pjm"))
    results = {r.name: r.mean for r in score_baselines(regions, baselines(), lambda _: None)}
    found = {name: round(mean.smape, 3) for name, mean in results.items()}
    assert found == {
        "persistence": 3.291,
        "same hour yesterday": 7.292,
        "same hour last week": 10.606,
        "day-and-week ratio": 1.166,
        "ridge, 168 lags": 0.792,
    }
    assert round(results["same hour yesterday"].mase, 3) == 1.008
    assert round(results["persistence"].rmse_mw, 1) == 469.0
    # the same formula with lags counted in rows, as the article counts them, is the 1.171% of its rows
    by_row = []
    for region in regions:
        rows = region.series.rows
        y = np.nan_to_num(region.series.load_mw[rows], nan=1.0)
        t = np.searchsorted(rows, region.test)
        forecast = y[t - 1] * (y[t - 24] / y[t - 25] + y[t - 168] / y[t - 169]) / 2
        by_row.append(forecast)
    assert round(scored("by row", regions, by_row).mean.smape, 3) == 1.171
