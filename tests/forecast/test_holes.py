"""Long holes: what fills them neither grows nor vanishes, and short ones are filled as they always were."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells.forecast import FrameWarning
from gatedcells.forecast.data import read_folder
from gatedcells.forecast.fast import FastForecaster
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.panel_inputs import fill_gaps
from gatedcells.forecast.rolling import laid_out
from gatedcells.forecast.scaling import LogScale
from gatedcells.forecast.stream import Stream
from gatedcells.forecast.windows import fill_from_the_past, prepare
from tests.support.load_files import made_up_load
from tests.support.own_series import made_up, small

SIXTY_DAYS = 24 * 60


def cut_short(values, begin, hours):
    """Values that change by the hour, the last one before the hole unlike the day before it."""
    holed = np.concatenate([values[:begin], np.full(hours, np.nan), values[begin:]])
    holed[begin - 1] *= 1.3
    return holed


def test_a_hole_of_sixty_days_in_a_load_file_stays_in_the_range_of_the_day_before():
    holed = cut_short(made_up_load(400), 200, SIXTY_DAYS)
    filled = fill_from_the_past(holed, np.isfinite(holed), "x.csv")
    hole, day = filled[200 : 200 + SIXTY_DAYS], filled[176:200]
    move = filled[199] / filled[175]
    assert move == pytest.approx(1.3, rel=0.1)
    np.testing.assert_allclose(hole.reshape(-1, 24), np.tile(day * move, (60, 1)), rtol=1e-12)
    np.testing.assert_array_equal(filled[200 + SIXTY_DAYS :], holed[200 + SIXTY_DAYS :])


@pytest.mark.parametrize("season", [1, 7, 24, 96])
def test_a_long_hole_of_ones_own_series_stays_in_the_range_of_the_season_before(season):
    values = 5 + np.sin(2 * np.pi * np.arange(4 * season + 8) / season)
    begin = 2 * season + 3
    holed = cut_short(values, begin, 60 * season)
    two = np.concatenate([holed, holed])  # of two series
    filled = fill_gaps(two, np.array([0, len(holed), len(two)]), season)
    for own in np.split(filled, 2):
        hole, before = own[begin : begin + 60 * season], own[begin - season : begin]
        move = own[begin - 1] - own[begin - 1 - season]
        expected = np.tile(before + move, (60, 1))
        np.testing.assert_allclose(hole.reshape(60, season), expected, rtol=1e-12)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.lists(st.integers(26, 900), max_size=12, unique=True), st.integers(1, 24))
def test_holes_of_up_to_a_day_are_filled_with_the_bits_of_before(seed, begins, longest):
    load = made_up_load(1000, seed % 1000)
    generator = np.random.default_rng(seed)
    for begin in begins:
        load[begin : begin + int(generator.integers(1, longest + 1))] = np.nan
    holes = np.flatnonzero(np.diff(np.isnan(load).astype(int), prepend=0, append=0)).reshape(-1, 2)
    for begin, end in holes:
        load[begin + 24 : end] = 700.0  # holes that met
    plain, logs = load.copy(), np.log(load)
    for at in np.flatnonzero(np.isnan(load)):
        plain[at] = plain[at - 1] * (plain[at - 24] / plain[at - 25])
        logs[at] = logs[at - 1] + (logs[at - 24] - logs[at - 25])
    np.testing.assert_array_equal(fill_from_the_past(load, np.isfinite(load), "x"), plain)
    np.testing.assert_array_equal(fill_gaps(np.log(load), np.array([0, len(load)]), 24), logs)


def test_hours_that_nobody_knows_for_days_are_filled_as_in_a_file(small_regions):
    torch.manual_seed(3)
    forecaster = FastForecaster(
        FastRecipe(hidden_size=5), {r.name: LogScale.fit(r.load_mw) for r in small_regions}
    )
    (region,) = [region for region in small_regions if region.name == "AEP"]
    holed = region.series.load_mw.copy()
    holed[-1] *= 1.3

    def series(load):
        return [type(region.series)(**{**vars(region.series), "load_mw": load})]

    # ten of the hours are a hole at the end of the file, ninety come to be one
    stream = Stream(forecaster, series(np.append(holed, np.full(10, math.nan))))
    for _ in range(90):
        stream.update({"AEP": math.nan})
    whole = np.append(holed, np.full(100, math.nan))
    filled = fill_from_the_past(whole, np.isfinite(whole), "x")
    np.testing.assert_allclose(np.exp(stream._logs.back(np.arange(1, 101))[0]), filled[:-101:-1], rtol=1e-9)


def test_a_forecast_after_two_months_without_values_is_of_their_size():
    frame = made_up([24 * 80], level=50.0)
    late = frame.tail(30).assign(ds=frame.ds.tail(30) + pd.Timedelta(days=60))
    holed = pd.concat([frame.head(24 * 80 - 30), late])
    holed.loc[24 * 80 - 31, "y"] *= 1.3
    with pytest.warns(FrameWarning, match="2,880 stamps without a row"):
        one = small(freq="h").fit(pd.concat([holed, holed.assign(unique_id="b")]))
    panel, _, _ = laid_out(one, holed)
    x = one.model_.inputs(panel)[0].x
    begin = 24 * 80 - 30
    day, hole = x[begin - 24 : begin], x[begin : begin + 24 * 60]
    move = x[begin - 1] - x[begin - 25]
    assert day.min() + move - 1e-9 <= hole.min()
    assert hole.max() <= day.max() + move + 1e-9


def test_the_published_files_have_no_hole_longer_than_a_day(data_root):
    for region in prepare(read_folder(data_root / "pjm")):
        holes = np.flatnonzero(np.diff(region.usable.astype(int), prepend=1, append=1)).reshape(-1, 2)
        assert (holes[:, 1] - holes[:, 0]).max() <= 24
