"""A trained forecaster forecasts test hours side by side, the next hours one by one, and both agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gatedcells.forecast.article import ArticleForecaster, ArticleRecipe
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastForecaster
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.scaling import LogScale, MinMax


def fast(regions):
    torch.manual_seed(1)
    scales = {r.name: LogScale.fit(r.load_mw[: r.train_end]) for r in regions}
    return FastForecaster(FastRecipe(hidden_size=8, lags_hours=(24, 48)), scales)


def article(regions):
    torch.manual_seed(1)
    scales = {r.name: MinMax((100.0, 0, 0, 1, 1), (2000.0, 23, 6, 12, 366)) for r in regions}
    return ArticleForecaster(ArticleRecipe(hidden_size=8), scales)


def cut(region, end):
    """The series as it was before hour ``end``."""
    rows = region.series.rows[region.series.rows < end]
    return replace(region.series, load_mw=region.series.load_mw[:end], rows=rows), region.load_mw[:end]


@pytest.mark.parametrize("make", [fast, article])
def test_the_next_hour_is_the_test_forecast_of_that_hour(small_regions, make):
    forecaster = make(small_regions)
    forecasts = forecaster.forecast_test(small_regions, lambda _: None)
    for region, forecast in zip(small_regions, forecasts, strict=True):
        assert forecast.shape == region.test.shape
        for which in (0, 40, len(region.test) - 1):
            following = forecaster.forecast_next(*cut(region, int(region.test[which])), hours=1)
            # a state warmed up on another number of hours differs a little
            assert following[0] == pytest.approx(forecast[which], rel=1e-4)


@pytest.mark.parametrize("make", [fast, article])
def test_later_hours_build_on_the_forecasts_before_them(small_regions, make):
    forecaster = make(small_regions)
    region = small_regions[0]
    series, load = cut(region, 1200)
    three = forecaster.forecast_next(series, load, hours=3)
    assert three.shape == (3,)
    for done in (1, 2):
        longer = np.concatenate([load, three[:done]])
        extended = replace(series, load_mw=longer, rows=np.arange(len(longer)))
        again = forecaster.forecast_next(extended, longer, hours=1)
        assert again[0] == pytest.approx(three[done], rel=1e-4)
    assert np.array_equal(load, region.load_mw[:1200])  # the history is not touched


@pytest.mark.parametrize("make", [fast, article])
def test_a_forecast_needs_as_much_history_as_the_model_looks_back(small_regions, make):
    forecaster = make(small_regions)
    needed = forecaster.hours_needed
    assert needed == {fast: 50, article: 90}[make]
    assert forecaster.forecast_next(*cut(small_regions[0], needed), hours=1).shape == (1,)
    with pytest.raises(
        ForecastError, match=f"AEP_hourly.csv: {needed - 1} hours; expected at least {needed}"
    ):
        forecaster.forecast_next(*cut(small_regions[0], needed - 1), hours=1)


def test_progress_adds_up_to_every_test_hour(small_regions):
    for make in (fast, article):
        told = []
        make(small_regions).forecast_test(small_regions, told.append)
        assert sum(told) == sum(len(r.test) for r in small_regions)
