"""A program's own defaults of torch are none of a forecaster's: it computes in float32, on the CPU."""

import pytest
import torch

from gatedcells.forecast import Forecaster
from tests.support.own_series import made_up, small


@pytest.fixture
def given_back():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("given_back")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.set_default_dtype(torch.float64), id="float64"),
        pytest.param(lambda: torch.set_default_device("meta"), id="device"),
    ],
)
def test_fit_predict_save_and_load_are_the_same_under_any_defaults(make, tmp_path):
    frame = made_up()
    forecaster = small().fit(frame)
    expected, found = forecaster.predict(), forecaster.cross_validation(frame)
    before = small().fit(frame).save(tmp_path / "before")
    make()
    defaults = torch.get_default_dtype(), torch.empty(0).device
    again = small().fit(frame)
    assert again.predict().equals(expected)
    assert again.cross_validation(frame).equals(found)
    for folder in (before, again.save(tmp_path / "again")):
        assert Forecaster.load(folder).predict().equals(expected)
    assert (torch.get_default_dtype(), torch.empty(0).device) == defaults


@pytest.mark.usefixtures("given_back")
def test_what_a_failed_fit_leaves_are_the_defaults_of_before():
    torch.set_default_dtype(torch.float64)
    with pytest.raises(Exception, match="expected more than the horizon"):
        small(horizon=200).fit(made_up())
    assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_fitting_needs_no_gradients_of_the_program_around(around):
    frame = made_up()
    expected = small().fit(frame).predict()
    with around():
        assert small().fit(frame).predict().equals(expected)


def test_fitting_and_loading_leave_the_programs_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Forecaster.load(small().fit(made_up()).save(tmp_path / "kept")).predict()
    assert torch.equal(torch.rand(4), expected)
