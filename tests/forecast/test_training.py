"""Training can be stopped anywhere and resumed to the same bits; both recipes learn."""

import json
import math

import numpy as np
import pytest
import torch

from gatedcells.forecast.article import ArticleRecipe, ArticleTask
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import scored
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.files import read_tensors, write_tensors
from gatedcells.forecast.training import Interrupted, train

FAST = FastRecipe(hidden_size=8, steps=6, batch_size=4, chunk_hours=48, lags_hours=(24,), warmup_steps=2)
ARTICLE = ArticleRecipe(hidden_size=6, batch_size=16, epochs=2, fraction=0.03, lookback_hours=90)


def fast(regions, **changed):
    return FastTask(FastRecipe(**{**vars(FAST), **changed}), regions)


def article(regions, **changed):
    return ArticleTask(ArticleRecipe(**{**vars(ARTICLE), **changed}), regions, seed=3)


TASKS = {"fast": fast, "article": article}


def item(loss):
    return loss.detach().item()


def weights(forecaster):
    return [p.detach().clone() for p in forecaster.network.parameters()]


@pytest.mark.parametrize("recipe", TASKS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_run_stopped_after_any_step_resumes_to_the_same_bits(small_regions, tmp_path, recipe, cell):
    make = lambda: TASKS[recipe](small_regions, cell=cell)  # noqa: E731
    whole, done = train(make(), seed=3)
    assert done.step == done.steps >= 4
    for stop_at in (0, 1, done.steps - 1):
        path = tmp_path / f"{stop_at}.safetensors"
        asked = iter([False] * stop_at + [True])
        with pytest.raises(Interrupted):
            train(make(), seed=3, checkpoint=path, should_stop=lambda asked=asked: next(asked))
        seen = []
        resumed, _ = train(
            make(), seed=3, checkpoint=path, on_step=lambda now, seen=seen: seen.append(now.step)
        )
        assert seen == list(range(stop_at + 1, done.steps + 1))
        assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_another_seed_gives_other_weights_and_the_callers_random_numbers_are_untouched(small_regions):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, _ = train(article(small_regions), seed=1)
    assert torch.equal(torch.rand(3), expected)
    two, _ = train(article(small_regions), seed=2)
    assert not all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_devices_that_are_not_trained_on_keep_their_seeds(small_regions, monkeypatch):
    seeds = []
    # where there is no such device, a seed waits for one, with the text of the caller's stack
    for device in (torch.cuda, torch.xpu, torch.mtia):
        known = torch.__version__ >= "2.13"  # torch 2.6 to 2.8 have no seed for MTIA
        monkeypatch.setattr(device, "manual_seed_all", seeds.append, raising=known)
    torch.manual_seed(5)
    assert seeds  # a seed would be seen
    seeds.clear()
    train(fast(small_regions), seed=1)
    assert not seeds


def test_a_checkpoint_of_another_training_is_refused(small_regions, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(fast(small_regions), seed=1, checkpoint=path)
    with pytest.raises(ForecastError, match=r"is of another training \(steps 6, seed 1\)"):
        train(fast(small_regions), seed=2, checkpoint=path)
    with pytest.raises(ForecastError, match="is of another training"):
        train(fast(small_regions, steps=7), seed=1, checkpoint=path)
    with pytest.raises(ForecastError, match="does not fit this training .*size mismatch"):
        train(fast(small_regions, hidden_size=9), seed=1, checkpoint=path)


def test_a_damaged_checkpoint_is_refused(small_regions, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(fast(small_regions), seed=1, checkpoint=path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x80\x02nonsense", whole[:7]):
        path.write_bytes(damaged)
        with pytest.raises(ForecastError, match="not a whole safetensors file"):
            train(fast(small_regions), seed=1, checkpoint=path)
    tensors = {"network.head.bias": torch.zeros(1)}
    for notes in ({}, {"progress": "[]"}, {"progress": json.dumps({"step": 1})}):
        write_tensors(path, tensors, notes)
        with pytest.raises(ForecastError, match="does not fit this training"):
            train(fast(small_regions), seed=1, checkpoint=path)


def test_a_finished_training_is_not_trained_again(small_regions, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    once, first = train(fast(small_regions), seed=1, checkpoint=path)
    again, second = train(fast(small_regions), seed=1, checkpoint=path, on_step=pytest.fail)
    assert all(torch.equal(a, b) for a, b in zip(weights(once), weights(again), strict=True))
    assert (second.step, second.seconds) == (first.step, pytest.approx(first.seconds))


def test_a_loss_that_is_no_number_stops_with_advice(small_regions, monkeypatch):
    task = fast(small_regions)
    monkeypatch.setattr(
        task, "loss", lambda network, *_: sum(p.sum() for p in network.parameters()) * torch.nan
    )
    with pytest.raises(ForecastError, match="loss of step 1 is not a number; try a smaller learning rate"):
        train(task, seed=0)


def test_learning_rate_warms_up_and_decays_to_a_hundredth(small_regions):
    task = fast(small_regions, steps=1000, warmup_steps=100, learning_rate=0.02)
    assert task.learning_rate(0) == pytest.approx(0.02 / 100)
    assert task.learning_rate(99) > 0.019
    assert task.learning_rate(999) == pytest.approx(0.02 * 0.01, rel=0.05)
    assert article(small_regions).learning_rate(5) == 1e-3


@pytest.mark.parametrize("recipe", TASKS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_training_beats_persistence_on_a_regular_load(small_regions, recipe, cell):
    options = {
        "fast": {"steps": 120},
        "article": {"fraction": 1.0, "batch_size": 64, "epochs": 4, "learning_rate": 1e-2, "hidden_size": 16},
    }[recipe]
    forecaster, _ = train(TASKS[recipe](small_regions, cell=cell, **options), seed=0)
    forecasts = forecaster.forecast_test(small_regions, lambda _: None)
    persistence = [r.load_mw[r.test - 1] for r in small_regions]
    ours, theirs = (scored("x", small_regions, f).mean.smape for f in (forecasts, persistence))
    assert ours < theirs


def test_the_fast_loss_is_the_mean_relative_error_of_supervised_usable_hours(small_regions):
    task = fast(small_regions)
    network = task.forecaster().network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.head.bias.fill_(0.7)  # forecasts a rise by 0.7 of the region's spread of changes
    generator = torch.Generator()
    loss = item(task.loss(network, 0, generator.manual_seed(1)))
    chosen = torch.randint(len(task._starts), (4,), generator=generator.manual_seed(1))
    rows = (task._starts[chosen] + torch.arange(48)[:, None])[12:].numpy()
    logs = np.concatenate([np.log(r.load_mw) for r in small_regions])
    usable = np.concatenate([r.usable for r in small_regions])
    spread = np.concatenate([np.full(len(r.load_mw), task.scales[r.name].change) for r in small_regions])
    errors = np.abs(0.7 * spread[rows] - (logs[rows] - logs[rows - 1]))[usable[rows]]
    assert loss == pytest.approx(errors.mean(), rel=1e-5)


def test_unusable_hours_do_not_enter_the_loss(small_regions):
    task = fast(small_regions)
    network = task.forecaster().network
    before = item(task.loss(network, 0, torch.Generator().manual_seed(1)))
    chosen = torch.randint(len(task._starts), (4,), generator=torch.Generator().manual_seed(1))
    row = int(task._starts[chosen][2]) + 30
    task._change[row] += 100.0
    assert item(task.loss(network, 0, torch.Generator().manual_seed(1))) > before + 0.1
    task._usable[row] = False
    after = item(task.loss(network, 0, torch.Generator().manual_seed(1)))
    assert math.isfinite(after)
    assert abs(after - before) < 0.05


def test_chunks_lie_in_the_training_part_of_one_region(small_regions):
    task = fast(small_regions)
    ends = [r.train_end for r in small_regions]
    for region, offset, end in zip(small_regions, task._table.offsets, ends, strict=True):
        own = task._starts[(task._starts >= offset) & (task._starts < offset + len(region.load_mw))] - offset
        assert own.min() == 1
        assert own.max() + task.recipe.chunk_hours == end
    with pytest.raises(ForecastError, match="hours to train on; expected more than the 48000 of a chunk"):
        fast(small_regions, chunk_hours=48_000)


def test_an_epoch_of_the_article_visits_every_window_once_in_a_new_order(small_regions):
    task = article(small_regions, fraction=1.0, batch_size=64)
    orders = [task._order(epoch).clone() for epoch in (0, 1, 0)]
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[1].sort().values, torch.arange(len(task._targets)))
    assert task.steps == 2 * (len(task._targets) // 64)
    with pytest.raises(ForecastError, match="leaves no training window"):
        article(small_regions, fraction=1e-9)


def test_tensor_files_come_back_as_written(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(3)}
    write_tensors(path, tensors, {"k": "v"})
    back, notes = read_tensors(path)
    assert notes == {"k": "v"}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1)})
    with pytest.raises(ForecastError, match="cannot be made"):
        write_tensors(path / "below a file" / "y.safetensors", {"a": torch.ones(1)})

    class Broken(dict):
        def items(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(ForecastError, match="x.safetensors: cannot be written .*No space left"):
        write_tensors(path, Broken())
    assert torch.equal(read_tensors(path)[0]["a"], torch.ones(1))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_members_are_trained_as_if_alone_on_batches_of_their_own(small_regions):
    recipe = FastRecipe(hidden_size=4, steps=3, batch_size=6, members=3, warmup_steps=1)
    task = FastTask(recipe, small_regions)
    network = task.forecaster().network.double().train()
    table = task._table

    class Double(torch.nn.Module):
        def forward(self, x):
            return network(x.double())

    generator = torch.Generator().manual_seed(7)
    loss = task.loss(Double(), 0, generator)
    together = torch.autograd.grad(loss, list(network.parameters()))
    generator.manual_seed(7)
    chosen = torch.randint(len(task._starts), (18,), generator=generator).split(6)
    hours = [task._starts[own] + torch.arange(recipe.chunk_hours)[:, None] for own in chosen]
    counted = sum(task._usable[rows[recipe.burn_in_hours :]].sum() for rows in hours)
    alone = []
    for member, rows in zip(network.members, hours, strict=True):
        change = member(table.inputs(rows).double())[0][recipe.burn_in_hours :]
        rows = rows[recipe.burn_in_hours :]
        error = (change * task._scale[table.region[rows].long()] - task._change[rows]).abs()
        mean = (error * task._usable[rows]).sum() / (counted / 3)
        alone += torch.autograd.grad(mean, list(member.parameters()))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_several_members_forecast_their_mean_and_come_back_from_a_run(small_regions, tmp_path):
    recipe = FastRecipe(hidden_size=4, steps=4, batch_size=6, members=2)
    forecaster, _ = train(
        FastTask(recipe, small_regions), seed=1, checkpoint=tmp_path / "checkpoint.safetensors"
    )
    stopped = iter([False, False, True])
    with pytest.raises(Interrupted):
        train(
            FastTask(recipe, small_regions), seed=1, checkpoint=tmp_path / "other.safetensors",
            should_stop=lambda: next(stopped),
        )  # fmt: skip
    resumed, _ = train(FastTask(recipe, small_regions), seed=1, checkpoint=tmp_path / "other.safetensors")
    ours, theirs = resumed.network.state_dict(), forecaster.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    network = forecaster.network.eval()
    x = torch.randn(5, 2, network.first.head.in_features - 4)
    with torch.no_grad():
        mean = sum(member(x)[0] for member in network.members) / 2
        torch.testing.assert_close(network(x)[0], mean)
