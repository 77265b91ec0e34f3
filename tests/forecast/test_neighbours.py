"""What regions' errors say of one another: found where it is, from the training part alone, hour by hour."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastForecaster
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.neighbours import DAYS, LAGS_HOURS, Errors, Neighbours
from gatedcells.forecast.runs import Config, RunFolder
from gatedcells.forecast.scaling import LogScale
from gatedcells.forecast.stream import Stream
from tests.forecast.test_stream import together

START = pd.Timestamp("2020-01-01", tz="UTC")
HOURS, TRAIN = 6000, 5000


def errors_that_follow(seed=0):
    """B errs by 0.6 of what A did an hour before, and its own noise; C has nothing to do with them."""
    own = np.random.default_rng(seed).laplace(size=(HOURS, 3)) * np.array([0.01, 0.01, 0.02])
    own[1:, 1] += 0.6 * own[:-1, 0]
    return Errors(("A", "B", "C"), START, own)


def fitted(errors):
    return Neighbours.fit(errors, [TRAIN] * 3)


def test_an_error_that_follows_another_regions_is_found_and_taken_off():
    errors = errors_that_follow()
    neighbours = fitted(errors)
    weight = neighbours.weights * neighbours.usual[:, None, None] / neighbours.usual
    assert abs(weight[1, 0, 0] - 0.6) < 0.05
    weight[1, 0, 0] = 0
    assert np.abs(weight).max() < 0.05
    rows = np.arange(TRAIN, HOURS)
    left = errors.log_error[rows] - neighbours.correction(errors, rows)
    before, after = np.abs(errors.log_error[rows]).mean(axis=0), np.abs(left).mean(axis=0)
    assert after[1] < 0.9 * before[1]
    np.testing.assert_allclose(after[[0, 2]], before[[0, 2]], rtol=0.01)


def test_nothing_after_a_regions_training_part_is_looked_at():
    errors = errors_that_follow()
    later = errors.log_error.copy()
    ends = [4000, 5000, 4500]
    for column, end in enumerate(ends):
        later[end:, column] = np.random.default_rng(9).normal(size=HOURS - end)
    one, other = Neighbours.fit(errors, ends), Neighbours.fit(replace(errors, log_error=later), ends)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.usual, other.usual)


def test_an_hour_that_nobody_knows_and_a_far_error_weigh_little():
    neighbours = fitted(errors_that_follow())
    nothing = np.full((len(LAGS_HOURS), 3), np.nan)
    never = np.full((DAYS, 3), np.nan)
    assert (neighbours.correction_after(nothing, never) == 0).all()
    far = nothing.copy()
    far[0, 0] = 3.0  # twenty times the load
    assert abs(neighbours.correction_after(far, never)[1]) <= 6 * neighbours.usual[1]
    assert neighbours.correction_after(far, never)[1] != 0


def test_a_habit_that_drifts_is_found_and_taken_off():
    """A errs more and more in the hours from six to nine, B does not."""
    hour = np.arange(HOURS) % 24
    table = np.random.default_rng(4).laplace(size=(HOURS, 2)) * 0.01
    table[:, 0] += np.where((hour >= 6) & (hour < 9), np.linspace(-0.05, 0.05, HOURS), 0.0)
    errors, ends = Errors(("A", "B"), START, table), [TRAIN] * 2
    neighbours = Neighbours.fit(errors, ends)
    assert neighbours.lasting[0] > 0.5
    rows = np.arange(TRAIN, HOURS)
    left = np.abs(table[rows] - neighbours.correction(errors, rows))
    morning = (hour[rows] >= 6) & (hour[rows] < 9)
    assert left[morning, 0].mean() < 0.5 * np.abs(table[rows][morning, 0]).mean()
    np.testing.assert_allclose(left[:, 1].mean(), np.abs(table[rows, 1]).mean(), rtol=0.02)


def test_the_correction_of_many_hours_is_that_of_each():
    errors = errors_that_follow()
    errors.log_error[np.random.default_rng(1).random(errors.log_error.shape) < 0.1] = np.nan
    neighbours = replace(fitted(errors), lasting=np.array([0.5, -0.3, 0.7]))
    rows = np.array([0, 5, 700, 24 * DAYS, 5999])
    found = neighbours.correction(errors, rows)
    padded = np.concatenate([np.full((24 * DAYS, 3), np.nan), errors.log_error])
    for row, one in zip(rows + 24 * DAYS, found, strict=True):
        past = np.stack([padded[row - lag] for lag in LAGS_HOURS])
        days = np.stack([padded[row - 24 * day] for day in range(1, DAYS + 1)])
        np.testing.assert_allclose(neighbours.correction_after(past, days), one, rtol=1e-12, atol=1e-18)
    changed = replace(errors, log_error=errors.log_error.copy())
    changed.log_error[700:] = 9.0  # nothing of an hour or after it is looked at
    np.testing.assert_array_equal(neighbours.correction(changed, rows[:3]), found[:3])


def test_regions_that_never_met_or_were_never_forecast_have_no_weights():
    table = np.full((200, 3), np.nan)
    table[:90, 0] = np.linspace(-1, 1, 90)
    table[120:, 1] = 0.0
    neighbours = Neighbours.fit(Errors(("A", "B", "C"), START, table), [200] * 3)
    assert (neighbours.weights[1:] == 0).all()
    assert (neighbours.weights[0, :, 1:] == 0).all()


def test_errors_of_regions_that_begin_at_different_hours_lie_on_one_grid():
    joined = Errors.join(
        {"A": (START + pd.Timedelta(hours=2), np.array([1.0, 2.0])), "B": (START, np.array([5.0]))}
    )
    expected = [[np.nan, 5.0], [np.nan, np.nan], [1.0, np.nan], [2.0, np.nan]]
    np.testing.assert_array_equal(joined.log_error, expected)
    assert joined.row(START + pd.Timedelta(hours=3)) == 3
    np.testing.assert_array_equal(joined.before(np.array([3]))[0, :, 0], [1.0, np.nan, np.nan, np.nan])


def trained(regions, cell="gru", precision="float32"):
    torch.manual_seed(5)
    recipe = FastRecipe(cell=cell, hidden_size=6, neighbours=True, precision=precision)
    forecaster = FastForecaster(recipe, {r.name: LogScale.fit(r.load_mw) for r in regions})
    forecaster.fit_neighbours(regions, lambda _: None)
    return forecaster


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_following_the_load_adds_what_forecasting_the_test_part_adds(small_regions, cell):
    forecaster = trained(small_regions, cell)
    assert np.abs(forecaster.neighbours.weights).max() > 0
    assert (forecaster.neighbours.lasting != 0).all()
    hours = 40
    whole, _ = together(small_regions, hours)
    cut = [
        replace(r, series=one, load_mw=one.load_mw, usable=r.usable[: len(one.load_mw)],
                test=np.arange(len(one.load_mw) - hours, len(one.load_mw)))
        for r, one in zip(small_regions, whole, strict=True)
    ]  # fmt: skip
    expected = forecaster.forecast_test(cut, lambda _: None)
    stream = Stream(forecaster, [replace(one, load_mw=one.load_mw[:-hours]) for one in whole][::-1])
    assert stream.neighbours is forecaster.neighbours
    found = [stream.forecast_mw]
    for hour in range(hours - 1):
        at = {one.region: one.load_mw[len(one.load_mw) - hours + hour] for one in whole}
        found.append(stream.update(at))
    for column, one in enumerate(whole):
        mine = [f[one.region] for f in found]
        np.testing.assert_allclose(mine, expected[column], rtol=2e-6)
    plain = forecaster.neighbours
    forecaster.neighbours = None
    assert not np.allclose(forecaster.forecast_test(cut, lambda _: None)[0], expected[0], rtol=1e-5)
    forecaster.neighbours = plain
    alone = Stream(forecaster, [whole[0]])
    assert alone.neighbours is None


def test_other_regions_than_those_it_was_fitted_on_are_refused(small_regions):
    forecaster = trained(small_regions)
    with pytest.raises(ForecastError, match="expected AEP, DOM, whose errors correct one another; got AEP$"):
        forecaster.forecast_test(small_regions[:1], lambda _: None)


@pytest.fixture
def saved(tmp_path, small_regions):
    forecaster = trained(small_regions)
    run = RunFolder(tmp_path / "run")
    data = {"kind": "files", "place": "x", "sha256": {}, "tz": "UTC", "stamp": "ending"}
    config = Config("fast", forecaster.recipe, ("gru",), 3, 1, data, {"torch": "2"})
    run.create(config)
    run.save_scales(forecaster.scales)
    run.save_forecaster("gru", forecaster, 1.0)
    return run, forecaster


def test_a_run_gives_back_what_was_learnt_of_neighbours(saved, small_regions):
    run, forecaster = saved
    back, _ = run.forecaster(run.config(), "gru")
    found, expected = (f.forecast_test(small_regions, lambda _: None) for f in (back, forecaster))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def spoiled(content, **change):
    return json.dumps(content | change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: "[1, 2", "not readable as JSON"),
        (lambda c: "[1, 2]", "not what errors say of one another"),
        (lambda c: spoiled(c, lags_hours=[1]), "expected lags"),
        (lambda c: spoiled(c, usual=[1.0, -1.0]), "usual errors above 0"),
        (lambda c: spoiled(c, usual=[1.0, float("nan")]), "NaN is no number"),
        (lambda c: spoiled(c, weights=[[1.0]]), "weights of shape"),
        (lambda c: spoiled(c, days=7), "expected errors of 56 days"),
        (lambda c: spoiled(c, lasting=[0.1]), "a weight of them for each region"),
        (lambda c: spoiled(c, lasting=[0.1, 1e999]), "NaN|Infinity"),
        (lambda c: spoiled(c, regions=["DOM", "AEP"]), "is of DOM, AEP; expected AEP, DOM"),
    ],
)
def test_neighbours_of_something_else_are_refused(saved, spoil, message):
    run, _ = saved
    path = run.path / "gru" / "neighbours.json"
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(ForecastError, match=message) as caught:
        run.forecaster(run.config(), "gru")
    assert "neighbours.json" in str(caught.value)


def test_runs_of_before_know_nothing_of_days(saved, small_regions):
    run, forecaster = saved
    path = run.path / "gru" / "neighbours.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: content[name] for name in content if name not in ("days", "lasting")}))
    back, _ = run.forecaster(run.config(), "gru")
    forecaster.neighbours = replace(forecaster.neighbours, lasting=np.zeros(2))
    found, expected = (f.forecast_test(small_regions, lambda _: None) for f in (back, forecaster))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
