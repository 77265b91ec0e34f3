"""Following the load step by step is the same as reading it at once."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import WARMUP_HOURS, FastForecaster, table_of
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.scaling import LogScale
from gatedcells.forecast.stream import _CALENDAR_HOURS, Stream


@pytest.fixture(params=["gru", "lstm"])
def forecaster(request, small_regions):
    torch.manual_seed(3)
    recipe = FastRecipe(cell=request.param, hidden_size=7)
    return FastForecaster(recipe, {r.name: LogScale.fit(r.load_mw) for r in small_regions})


def cut(region, hours):
    """A series of which the last hours are not known yet."""
    return replace(region.series, load_mw=region.series.load_mw[:-hours])


def together(regions, hours):
    """Series that end at one hour."""
    ends = [r.series.first_hour + pd.Timedelta(hours=len(r.load_mw)) for r in regions]
    extra = [int((end - min(ends)) / pd.Timedelta(hours=1)) for end in ends]
    return [
        replace(r.series, load_mw=r.load_mw[: len(r.load_mw) - more])
        for r, more in zip(regions, extra, strict=True)
    ], hours


def test_step_by_step_is_what_the_network_makes_of_all_hours_at_once(forecaster, small_regions):
    whole, hours = together(small_regions, 300)
    stream = Stream(forecaster, [replace(one, load_mw=one.load_mw[:-hours]) for one in whole])
    found = [stream.forecast_mw]
    for hour in range(hours - 1):
        at = {one.region: one.load_mw[len(one.load_mw) - hours + hour] for one in whole}
        found.append(stream.update(at))
    for one in whole:
        end, n = len(one.load_mw), len(one.load_mw) - hours
        start = n - WARMUP_HOURS
        table = table_of(forecaster.recipe, forecaster.scales, one, one.load_mw, start, end)
        with torch.no_grad():
            change, _ = forecaster.network.eval()(table.inputs(torch.arange(end - start)[:, None]))
        scaled = change[WARMUP_HOURS:, 0].double().numpy() * forecaster.scales[one.region].change
        expected = one.load_mw[n - 1 : end - 1] * np.exp(scaled)
        np.testing.assert_allclose([f[one.region] for f in found], expected, rtol=2e-6)
    last = whole[0].first_hour + pd.Timedelta(hours=len(whole[0].load_mw) - 1)
    assert stream.next_hour == last


def test_the_calendar_goes_on_beyond_the_hours_made_in_advance(forecaster, small_regions):
    whole, _ = together(small_regions, 1)
    stream = Stream(forecaster, whole)

    def day(stream):
        return dict.fromkeys(stream.regions, 1000.0 + stream.next_hour.hour)

    for _ in range(_CALENDAR_HOURS - 1):
        stream.update(day(stream))
    ahead = stream._inputs().clone()
    stream._calendar_from, stream._calendar = stream._made, stream._calendars(stream._made)
    assert torch.equal(stream._inputs(), ahead)
    stream.update(day(stream))
    stream.update(day(stream))
    hour = stream.next_hour.tz_convert(whole[0].clock.tz).hour
    hours_of_the_day = stream._inputs()[0][-len(forecaster.scales) - 31 : -len(forecaster.scales) - 7]
    assert int(hours_of_the_day.argmax()) == hour


def test_an_hour_that_nobody_knows_is_filled_from_those_before(forecaster, small_regions):
    whole, _ = together(small_regions, 1)
    known, unknown = Stream(forecaster, whole), Stream(forecaster, whole)
    first = whole[0]
    guess = first.load_mw[-1] * first.load_mw[-24] / first.load_mw[-25]
    loads = {one.region: float(one.load_mw[-24]) for one in whole}
    assert unknown.update(loads | {first.region: math.nan}) == pytest.approx(
        known.update(loads | {first.region: guess}), rel=1e-6
    )


def test_what_is_no_load_changes_nothing(forecaster, small_regions):
    whole, _ = together(small_regions, 1)
    stream = Stream(forecaster, whole)
    before, hour = stream.forecast_mw, stream.next_hour
    loads = {one.region: 1000.0 for one in whole}
    for wrong, said in (
        ({"AEP": 1.0}, "missing or unknown: DOM"),
        (loads | {"XYZ": 1.0}, "missing or unknown: XYZ"),
        (loads | {"DOM": 0.0}, "the load of DOM is 0.0; expected a number greater than 0"),
        (loads | {"DOM": math.inf}, "the load of DOM is inf"),
    ):
        with pytest.raises(ForecastError, match=said):
            stream.update(wrong)
        assert (stream.forecast_mw, stream.next_hour) == (before, hour)


def test_series_that_do_not_fit_are_refused(forecaster, small_regions):
    whole, _ = together(small_regions, 1)
    with pytest.raises(ForecastError, match="expected at least one series"):
        Stream(forecaster, [])
    with pytest.raises(ForecastError, match="series end at different hours: AEP at"):
        Stream(forecaster, [cut(replace(small_regions[0], series=whole[0]), 2), whole[1]])
    with pytest.raises(ForecastError, match="expected each region once, got AEP, AEP"):
        Stream(forecaster, [whole[0], whole[0]])
    with pytest.raises(ForecastError, match="region XYZ is not one of AEP, DOM"):
        Stream(forecaster, [replace(whole[0], region="XYZ")])
    with pytest.raises(ForecastError, match="100 hours; expected at least 338"):
        Stream(forecaster, [replace(whole[0], load_mw=whole[0].load_mw[:100])])


def test_several_networks_are_followed_as_one(small_regions):
    torch.manual_seed(3)
    recipe = FastRecipe(hidden_size=5, members=3)
    forecaster = FastForecaster(recipe, {r.name: LogScale.fit(r.load_mw) for r in small_regions})
    whole, _ = together(small_regions, 1)
    stream = Stream(forecaster, [replace(one, load_mw=one.load_mw[:-20]) for one in whole])
    for hour in range(20):
        found = stream.update({one.region: float(one.load_mw[len(one.load_mw) - 20 + hour]) for one in whole})
    for one in whole:
        end = len(one.load_mw)
        start = end - 20 - WARMUP_HOURS
        table = table_of(forecaster.recipe, forecaster.scales, one, one.load_mw, start, end + 1)
        x = table.inputs(torch.arange(end + 1 - start)[:, None])
        with torch.no_grad():
            each = [member.eval()(x)[0][-1, 0].item() for member in forecaster.network.members]
        expected = one.load_mw[-1] * math.exp(np.mean(each) * forecaster.scales[one.region].change)
        assert found[one.region] == pytest.approx(expected, rel=2e-6)
    assert len({round(change, 4) for change in each}) == 3, "three networks, three opinions"
