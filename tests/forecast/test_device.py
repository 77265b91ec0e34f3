"""Training on a device of its own: nothing of a step stays behind on the CPU, and what cannot be is told."""

import json
from datetime import date, timedelta

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError
from gatedcells.forecast.article import ArticleRecipe, ArticleTask
from gatedcells.forecast.bitcoin import BitcoinRecipe, PriceTask
from gatedcells.forecast.direct import DirectTask
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import BestRecipe, FastRecipe
from gatedcells.forecast.prices import Prices
from gatedcells.forecast.training import train
from tests.support.own_series import made_up, small

CHUNKS = {"chunk_hours": 48, "batch_size": 4, "lags_hours": (24,), "steps": 3}


def prices():
    days = tuple(date(2020, 1, 1) + timedelta(days=day) for day in range(400))
    return Prices("x", "0", days, 100 + np.random.default_rng(0).normal(size=400).cumsum(), 0, 0, 0)


@pytest.fixture(params=["fast", "fast, lstm", "best", "article", "bitcoin", "direct"])
def task(request, small_regions):
    if request.param == "article":
        return ArticleTask(
            ArticleRecipe(hidden_size=4, batch_size=8, fraction=0.01, dropout=0.0), small_regions
        )
    if request.param == "bitcoin":
        return PriceTask(BitcoinRecipe(first_size=4, second_size=4, dropout=0.0), prices(), 0)
    if request.param == "direct":
        return direct_task()
    kind = BestRecipe if request.param == "best" else FastRecipe
    cell = "lstm" if "lstm" in request.param else "gru"
    # autocast knows no device without numbers
    recipe = kind(cell=cell, hidden_size=4, precision="float32", **CHUNKS)
    return FastTask(recipe, small_regions)


def direct_task():
    """That of a small forecaster, as fitting makes it."""
    kept = {}

    class Kept(DirectTask):
        def __init__(self, *given):
            kept["task"] = self
            super().__init__(*given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gatedcells.forecast.fitting.DirectTask", Kept)
        small().fit(made_up())
    return kept["task"]


def test_a_step_computes_where_it_is_told_to(task):
    """On the device without numbers a product with a tensor of the CPU is refused."""
    meta = torch.device("meta")
    network = task.forecaster().network.to(meta)
    task.to(meta)
    loss = task.loss(network, 0, torch.Generator().manual_seed(0))
    assert loss.device == meta
    loss.backward()
    assert all(p.grad.device == meta for p in network.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_told_before_anything_is_done(small_regions, small_folder, tmp_path):
    with pytest.raises(
        ForecastError, match=r"process 0 of this host needs a GPU, and torch .* sees 0; 'cpu'"
    ):
        train(FastTask(FastRecipe(hidden_size=4, **CHUNKS), small_regions), seed=0, device="cuda")
    with pytest.raises(ForecastError, match="needs a GPU"):
        small(device="cuda").fit(made_up())
    with pytest.raises(ForecastError, match="device must be one of cpu, cuda, got 'tpu'"):
        small(device="tpu").fit(made_up())
    out = tmp_path / "run"
    arguments = ["forecast", "--data", str(small_folder), "--out", str(out)]
    done = CliRunner().invoke(main, [*arguments, "--device", "cuda"])
    assert (done.exit_code, "needs a GPU" in done.output, out.exists()) == (2, True, False)
    done = CliRunner().invoke(main, ["forecast", "--recipe", "bitcoin", "--device", "cuda"])
    assert "--device belongs to the recipes for load" in done.output


def test_a_run_remembers_its_device_and_one_of_before_trained_on_the_cpu(small_folder, tmp_path):
    out = tmp_path / "run"
    arguments = [
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--hidden-size",
        "4",
        "--cell",
        "gru",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(main, ["forecast", "--data", str(small_folder), *arguments])
    assert done.exit_code == 0, done.output
    content = json.loads((out / "config.json").read_text())
    assert content.pop("device") == "cpu"
    (out / "config.json").write_text(json.dumps(content))
    again = CliRunner().invoke(main, ["forecast", "--resume", str(out)])
    assert again.exit_code == 0, again.output
    (out / "config.json").write_text(json.dumps(content | {"device": "abacus"}))
    refused = CliRunner().invoke(main, ["forecast", "--resume", str(out)])
    assert "device is 'abacus'; expected one of cpu, cuda" in refused.output


def test_a_forecaster_of_before_trained_on_the_cpu(tmp_path):
    folder = small().fit(made_up()).save(tmp_path / "f")
    content = json.loads((folder / "forecaster.json").read_text())
    del content["parameters"]["device"]
    (folder / "forecaster.json").write_text(json.dumps(content))
    assert Forecaster.load(folder).device == "cpu"


@pytest.mark.gpu
def test_training_on_a_gpu_begins_as_on_the_cpu_and_ends_there(task):
    losses = {}
    for device in ("cpu", "cuda"):
        losses[device] = []
        forecaster, _ = train(
            task, seed=1, device=device, on_step=lambda now, to=losses[device]: to.append(now.loss)
        )
        assert all(p.device.type == "cpu" for p in forecaster.network.parameters())
    # of the same weights and batch; tf32, where torch is told to use it, has eleven bits
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=2**-7)
    assert np.isfinite(losses["cuda"]).all()
