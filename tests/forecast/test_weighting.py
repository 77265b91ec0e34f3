"""How much a region's errors count in the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gatedcells.forecast.baselines import DayWeekRatio
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.weighting import region_weights


def test_in_percent_all_regions_count_alike(small_regions):
    assert torch.equal(region_weights("percent", small_regions), torch.ones(2))


def test_in_usual_errors_a_region_counts_by_the_inverse_square_of_its_own(small_regions):
    found = region_weights("usual errors", small_regions)
    usual = [DayWeekRatio().usual_error(region) for region in small_regions]
    assert found.mean().item() == pytest.approx(1, rel=1e-6)
    assert (found[0] / found[1]).item() == pytest.approx((usual[1] / usual[0]) ** 2, rel=1e-5)


def test_the_usual_error_is_that_of_the_formula_on_the_training_targets_alone(small_regions):
    region = small_regions[0]
    y = region.load_mw
    errors = []
    for t in region.train:
        if region.usable[t] and t > 168:
            forecast = y[t - 1] * (y[t - 24] / y[t - 25] + y[t - 168] / y[t - 169]) / 2
            errors.append(abs(np.log(forecast) - np.log(y[t])))
    late = replace(region, train=region.train[region.train > 168])
    assert DayWeekRatio().usual_error(late) == pytest.approx(np.mean(errors), rel=1e-12)
    spoiled = y.copy()
    spoiled[region.train_end :] *= 2
    assert DayWeekRatio().usual_error(replace(late, load_mw=spoiled)) == pytest.approx(
        np.mean(errors), rel=1e-12
    )


def test_the_loss_is_the_weighted_mean_of_the_regions(small_regions):
    by_region = {}
    for loss_in in ("percent", "usual errors"):
        for only in (None, 0, 1):
            task = FastTask(FastRecipe(hidden_size=5, loss_in=loss_in, batch_size=8), small_regions)
            if only is not None:
                task._weight = torch.where(torch.arange(2) == only, task._weight, 0)
            torch.manual_seed(2)
            loss = task.loss(task.forecaster().network, 0, torch.Generator().manual_seed(4))
            by_region[loss_in, only] = loss.item()
    weights = region_weights("usual errors", small_regions).tolist()
    expected = sum(weight * by_region["percent", only] for only, weight in enumerate(weights))
    assert by_region["usual errors", None] == pytest.approx(expected, rel=1e-5)
    assert by_region["usual errors", None] != pytest.approx(by_region["percent", None], rel=1e-3)


def test_an_unknown_loss_is_refused(small_regions):
    with pytest.raises(ForecastError, match="loss_in must be one of percent, usual errors, got 'dollars'"):
        FastTask(FastRecipe(loss_in="dollars"), small_regions)
