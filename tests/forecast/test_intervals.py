"""Intervals cover what they say, and know nothing of what comes after them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatedcells.forecast.baselines import baselines
from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import Clock, read_folder
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.intervals import LEVELS, Calibrator, Intervals, intervals, score_intervals
from gatedcells.forecast.runs import RunFolder
from gatedcells.forecast.windows import prepare


def noisy(n=6000, seed=0, shift=None):
    """Forecasts whose errors depend on the hour of the day, and perhaps grow from one hour on."""
    generator = np.random.default_rng(seed)
    hours = np.arange(n) % 24
    spread = 0.01 + 0.02 * (hours > 12)
    if shift is not None:
        spread = np.where(np.arange(n) > shift, 3 * spread, spread)
    forecast = np.full(n, 1000.0)
    return forecast, forecast * np.exp(generator.standard_t(4, n) * spread), hours


def test_coverage_is_what_was_asked_for_at_every_hour_of_the_day():
    forecast, actual, hours = noisy()
    found = intervals(Calibrator(), forecast, actual, hours)
    scores = score_intervals(found, actual)
    assert scores.coverage == pytest.approx(LEVELS, abs=0.01)
    inside = (found.lower <= actual) & (actual <= found.upper)
    for hour in range(24):
        of_hour = inside[:, (hours == hour) & (np.arange(6000) > 500)].mean(axis=1)
        assert of_hour == pytest.approx(LEVELS, abs=0.08), hour  # three deviations of 229 hours
    night, day = ((found.upper - found.lower)[0, -480:][hours[-480:] == h].mean() for h in (3, 18))
    assert day > 2 * night


def test_when_errors_grow_the_intervals_do():
    forecast, actual, hours = noisy(shift=3000)
    found = intervals(Calibrator(), forecast, actual, hours)
    late = np.arange(6000) > 3300
    inside = ((found.lower <= actual) & (actual <= found.upper))[:, late].mean(axis=1)
    assert inside == pytest.approx(LEVELS, abs=0.02)


@given(at=st.integers(1, 199), factor=st.floats(1e-6, 1e6))
def test_an_hour_does_not_enter_its_own_interval_nor_any_before(at, factor):
    forecast, actual, hours = noisy(200)
    changed = actual.copy()
    changed[at:] *= factor
    one, other = (intervals(Calibrator(), forecast, a, hours) for a in (actual, changed))
    np.testing.assert_array_equal(one.lower[:, : at + 1], other.lower[:, : at + 1])
    np.testing.assert_array_equal(one.upper[:, : at + 1], other.upper[:, : at + 1])


def test_before_a_day_was_seen_there_is_no_interval():
    forecast, actual, hours = noisy(30)
    found = intervals(Calibrator(), forecast, actual, hours)
    assert np.isnan(found.lower[:, :25]).all()
    assert np.isfinite(found.lower[:, 25:]).all()
    scores = score_intervals(found, actual)
    assert all(share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) for share in scores.coverage), "of five hours"


def test_an_hour_that_nobody_knows_teaches_nothing():
    forecast, actual, hours = noisy(300)
    calibrator, other = Calibrator(), Calibrator()
    for t in range(300):
        calibrator.see(forecast[t], actual[t], hours[t])
        other.see(forecast[t], actual[t], hours[t])
        other.see(forecast[t], math.nan, hours[t])
    assert calibrator.factors(5).tolist() == other.factors(5).tolist()


def test_a_perfect_forecast_has_intervals_all_the_same():
    calibrator = Calibrator()
    for hour in range(100):
        calibrator.see(5.0, 5.0, hour % 24)
    assert calibrator.factors(3).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wrong", [0.0, -5.0, 1e-320, -1e9])
def test_the_error_of_a_forecast_that_no_load_can_have_counts_as_the_furthest(wrong):
    forecast, actual, hours = noisy(600)
    forecast[40::97] = wrong
    other = np.where(forecast == wrong, actual / 1000, forecast)
    found, as_furthest = Calibrator(), Calibrator()
    of_wrong = intervals(found, forecast, actual, hours)
    intervals(as_furthest, other, actual, hours)
    for hour in range(24):
        assert found.factors(hour) == pytest.approx(as_furthest.factors(hour), rel=1e-9)
    Calibrator.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    known = np.isfinite(of_wrong.lower).all(axis=0)
    assert (of_wrong.lower <= of_wrong.upper)[:, known].all()
    assert (of_wrong.lower <= forecast)[:, known].all()
    assert (forecast <= of_wrong.upper)[:, known].all()
    assert np.isfinite(score_intervals(of_wrong, actual).pinball)


def test_a_load_that_is_nothing_beside_its_forecast_is_as_far():
    calibrator = Calibrator()
    for hour in range(100):
        calibrator.see(1e10, 1e-320 if hour == 70 else 1e10, hour % 24)
    assert np.isfinite(calibrator.factors(70 % 24)).all()


def test_what_was_learnt_comes_back():
    forecast, actual, hours = noisy(2000)
    calibrator = Calibrator()
    intervals(calibrator, forecast, actual, hours)
    again = Calibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
    for hour in range(24):
        assert again.factors(hour).tolist() == calibrator.factors(hour).tolist()
        calibrator.see(1000, 1010, hour)
        again.see(1000, 1010, hour)


def test_scores_are_counted():
    found = Intervals((0.8,), np.array([[90.0, 90, 90]]), np.array([[110.0, 110, 110]]))
    scores = score_intervals(found, np.array([100.0, 120.0, np.nan]))
    assert scores.coverage == (0.5,)
    assert scores.width == (20 / 110,)
    low = (0.1 * 10 + 0.1 * 30) / 2
    high = (0.1 * 10 + 0.9 * 10) / 2
    assert scores.pinball == pytest.approx((low + high) / 2)


def test_levels_and_files_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"levels must lie between 0 and 1, got \[1.0\]"):
        Calibrator([1.0])
    run = RunFolder(tmp_path)
    assert run.calibrator("gru", "AEP") is None
    run.save_calibration({"gru": {"AEP": Calibrator()}})
    assert run.calibrator("gru", "AEP") is not None
    with pytest.raises(ForecastError, match="not the calibration of lstm in AEP"):
        run.calibrator("lstm", "AEP")
    (tmp_path / "calibration.json").write_text('{"gru": {"AEP": {"levels": [0.8], "misses": []}}}')
    with pytest.raises(ForecastError, match="not the calibration of gru in AEP"):
        run.calibrator("gru", "AEP")


def test_in_every_region_the_coverage_is_within_two_points(data_root: Path):
    (ratio,) = [model for model in baselines() if model.name == "day-and-week ratio"]
    for region in prepare(read_folder(data_root / "pjm", Clock())):
        hours = local_starts(region.series).hour.to_numpy()[region.test]
        found = intervals(Calibrator(), ratio.forecast(region), region.actual_mw, hours)
        scores = score_intervals(found, region.actual_mw)
        assert scores.coverage == pytest.approx(LEVELS, abs=0.02), region.name


def test_errors_of_any_size_in_a_folder_reach_no_further_than_the_furthest():
    one = Calibrator()
    for hour in range(72):
        one.see(100.0, 101.0, hour % 24)
    content = one.to_json()
    content["usual"][5], content["scores"][-3:] = 1e308, [1e308, 1e300, 5.0]
    found = Calibrator.from_json(content)
    assert (found.factors(5) == math.log(1000)).all()
    assert np.isfinite(found.factors(6)).all()


def test_one_error_after_none_at_all_is_a_number_that_can_be_written():
    one = Calibrator()
    for hour in range(72):
        one.see(100.0, 100.0, hour % 24)
    one.see(100.0, 1e300, 0)
    json.dumps(one.to_json(), allow_nan=False)
    assert (one.factors(0) <= math.log(1000)).all()
