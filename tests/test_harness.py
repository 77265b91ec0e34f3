"""The helpers of the tests fail when they must."""

import pytest
import torch

from gatedcells.testing import assert_close_in_float64, assert_within_budget, budget
from tests.support.inputs import Case
from tests.support.run import everything, pooled

EXACT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
RIVAL = EXACT.float() + torch.tensor([1e-6, 0.0, 0.0])


def test_the_budget_is_twice_the_rivals_error_and_one_rounding():
    error = (RIVAL.double() - EXACT).abs().max().item()
    assert budget(EXACT, RIVAL) == pytest.approx(2 * (error + torch.finfo(torch.float32).eps * 2.0))


def test_an_error_within_the_budget_passes_and_one_beyond_fails():
    assert_within_budget(EXACT.float() + 1.5e-6, exact=EXACT, rival=RIVAL)
    with pytest.raises(AssertionError, match="dh: error 4.0.*e-06, allowed 2.*e-06"):
        assert_within_budget(EXACT.float() + 4e-6, exact=EXACT, rival=RIVAL, name="dh")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (EXACT.float()[:2], "shape"),
        (EXACT.float()[None], "shape"),
        (EXACT, "dtype"),
        (EXACT.float() * torch.nan, "NaN"),
        (EXACT.float() + torch.inf, "infinite"),
        (EXACT.float().to("meta"), "on meta"),
    ],
)
def test_a_result_of_the_wrong_kind_fails(wrong, message):
    with pytest.raises(AssertionError, match=message):
        assert_within_budget(wrong, exact=EXACT, rival=RIVAL)


def test_float64_results_must_agree_to_1e12():
    assert_close_in_float64(EXACT + 1e-12, EXACT)
    for wrong in (EXACT + 1e-11, EXACT.float().double() + 1e-8, EXACT.float(), EXACT * torch.nan):
        with pytest.raises(AssertionError):
            assert_close_in_float64(wrong, EXACT)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize(
    "spoiled", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hh_l1"]
)
def test_a_wrong_weight_or_gradient_is_seen_by_the_comparison(name, spoiled):
    case = Case(name, 4, 2, 3, 5, {"num_layers": 2, "batch_first": False})
    ours, theirs = case.modules(torch.float64)
    exact = everything(theirs, case, torch.float64)
    assert everything(ours, case, torch.float64)[f"d {spoiled}"].abs().max() > 0
    ours.get_parameter(spoiled).register_hook(lambda g: g * (1 + 1e-9))
    with pytest.raises(AssertionError):
        assert_close_in_float64(everything(ours, case, torch.float64)[f"d {spoiled}"], exact[f"d {spoiled}"])
    with torch.no_grad():
        ours.get_parameter(spoiled)[0] += 1e-6
    with pytest.raises(AssertionError):
        assert_close_in_float64(everything(ours, case, torch.float64)["output"], exact["output"])


def test_pooling_keeps_every_number():
    results = {
        "output": torch.ones(2, 3),
        "state 0": torch.zeros(2),
        "d input": torch.ones(4),
        "d w": torch.ones(1),
    }
    assert len(pooled(results, "values")) == 8
    assert len(pooled(results, "gradients")) == 5


def test_uninitialised_memory_is_nan_under_test():
    like = torch.zeros(3)
    for made in (
        torch.empty(3),
        torch.empty_like(like),
        like.new_empty(3),
        torch.empty(2, 3, dtype=torch.bfloat16),
    ):
        assert made.isnan().all()


def test_warnings_are_errors():
    import warnings

    with pytest.raises(UserWarning, match="careful"):
        warnings.warn("careful", UserWarning, stacklevel=1)
