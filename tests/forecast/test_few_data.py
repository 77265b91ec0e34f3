"""Few data take fewer passes, and a season that was not seen is no input; what is asked for is done."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gatedcells.cli import main
from gatedcells.forecast import Forecaster
from gatedcells.forecast.backtest import Plan, folds
from gatedcells.forecast.calendar import Calendar, local_starts
from gatedcells.forecast.data import Clock, read_folder
from gatedcells.forecast.direct import DirectRecipe
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import scored
from gatedcells.forecast.fast import FastTask, suited, table_of
from gatedcells.forecast.fast_recipe import BestRecipe, FastRecipe
from gatedcells.forecast.files import read_tensors, write_tensors
from gatedcells.forecast.passes import within_passes
from gatedcells.forecast.rolling import laid_out
from gatedcells.forecast.stream import Stream
from gatedcells.forecast.trees import PooledTrees
from tests.support.own_series import made_up

PJM_TRAINING_HOURS, LONGEST = 980_185, 130_000


def gatedcells(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


whole = st.integers(1, 5000)


@given(
    steps=whole, batch_size=whole, chunks=st.floats(0.01, 1e6), passes=st.floats(1, 100),
    least=st.integers(1, 64), fewest=whole,
)  # fmt: skip
def test_training_passes_over_the_data_as_often_as_allowed_and_never_takes_more(
    steps, batch_size, chunks, passes, least, fewest
):
    found, batch = within_passes(
        steps, batch_size, chunks=chunks, most_passes=passes, least_batch=least, fewest_steps=fewest
    )
    assert 1 <= found <= steps
    assert 1 <= batch <= batch_size
    if steps * batch_size <= passes * chunks:
        assert (found, batch) == (steps, batch_size)
    if found > fewest:  # rounded by half a step at most
        assert (found - 0.5) * batch <= passes * chunks
    if found < steps:  # steps become fewer when batches are as small as they may be
        assert batch <= max(least, np.ceil(passes * chunks / steps))
    if batch > least and found < steps:
        assert found * (batch - 1) <= passes * chunks


def test_the_published_files_are_trained_on_as_the_recipes_say():
    for recipe in (FastRecipe(), BestRecipe(), FastRecipe(steps=2400)):
        assert recipe.suited(PJM_TRAINING_HOURS, LONGEST, fewer=True) == recipe


@pytest.mark.parametrize(("recipe", "passes"), [(FastRecipe(), 24), (BestRecipe(), 32)])
def test_a_short_training_part_is_passed_over_as_often_as_the_page_says(recipe, passes):
    for hours in (40_000, 100_000, 200_000):
        found = recipe.suited(hours, LONGEST, fewer=True)
        supervised = found.batch_size * (recipe.chunk_hours - recipe.burn_in_hours)
        assert found.batch_size > 16 or found.steps < recipe.steps
        # to within the rounding of a step
        assert found.steps * supervised == pytest.approx(passes * hours, abs=supervised / 2 + 1)
    few = recipe.suited(1000, LONGEST, fewer=True)
    assert (few.steps, few.batch_size) == (150, 16)


def test_the_season_takes_a_year():
    assert FastRecipe().suited(10**6, 365 * 24, fewer=True).season
    assert not FastRecipe().suited(10**6, 365 * 24 - 1, fewer=True).season
    assert not FastRecipe(season=False).suited(10**6, 10**5, fewer=True).season
    assert FastRecipe().suited(10**4, 365 * 24, fewer=False) == FastRecipe()


def test_without_a_season_the_day_of_the_year_changes_nothing_that_a_network_reads(small_regions):
    region = small_regions[0]
    for recipe in (FastRecipe(), FastRecipe(season=False)):
        task = FastTask(recipe, small_regions)
        table = table_of(recipe, task.scales, region.series, region.load_mw, 0, len(region.load_mw))
        at = task.forecaster().input_names.index("season (sine)")
        season = table.inputs(torch.arange(len(region.load_mw)))[:, at : at + 2].numpy()
        expected = (
            Calendar.of(local_starts(region.series)).season() if recipe.season else np.zeros_like(season)
        )
        np.testing.assert_array_equal(season, expected)


@pytest.mark.parametrize("season", [True, False])
def test_a_stream_reads_the_season_as_the_network_was_trained_with_it(small_folder, season):
    series = read_folder(small_folder, Clock())[:1]
    regions = folds(series, Plan(folds=1, span_hours=24))[0].regions
    forecaster = FastTask(FastRecipe(hidden_size=4, season=season), regions).forecaster()
    with torch.no_grad():
        for parameter in forecaster.network.parameters():
            parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    one = regions[0].series
    stream = Stream(forecaster, [one])
    expected = forecaster.forecast_next(one, regions[0].load_mw, 1)
    assert stream.forecast_mw[one.region] == pytest.approx(float(expected[0]), rel=1e-5)


def test_a_run_on_few_hours_says_what_it_does_less_of_and_goes_on_from_its_folder(small_folder, tmp_path):
    out = tmp_path / "run"
    options = ("--cell", "gru", "--hidden-size", 4, "--threads", 1)
    done = gatedcells("forecast", "--data", small_folder, "--out", out, *options)
    assert done.exit_code == 0, done.output
    said = "150 steps of 16 chunks instead of 700 of 96, which would overfit so few hours"
    assert said in done.output
    assert "no region has a year of training data" in done.output
    recipe = json.loads((out / "config.json").read_text())["recipe"]
    assert (recipe["steps"], recipe["batch_size"], recipe["season"]) == (150, 16, False)
    done = gatedcells("forecast", "predict", out, "--data", small_folder / "AEP_hourly.csv")
    assert done.exit_code == 0, done.output


def test_steps_that_are_asked_for_are_made(small_folder, tmp_path):
    out = tmp_path / "run"
    options = ("--cell", "gru", "--hidden-size", 4, "--steps", 5, "--threads", 1)
    done = gatedcells("forecast", "--data", small_folder, "--out", out, *options)
    assert done.exit_code == 0, done.output
    assert "overfit" not in done.output
    recipe = json.loads((out / "config.json").read_text())["recipe"]
    assert (recipe["steps"], recipe["batch_size"]) == (5, FastRecipe().batch_size)


def backtest(folder, out, *more):
    options = ("--folds", 1, "--span", 60, "--hidden-size", 4, "--threads", 1, "--out", out)
    done = gatedcells("forecast", "backtest", "--data", folder, *options, *more)
    assert done.exit_code == 0, done.output
    (fold,) = json.loads((out / "backtest.json").read_text())["folds"]
    return fold["recipe"], done.output


def test_each_date_of_a_backtest_has_the_steps_that_its_hours_take(small_folder, tmp_path):
    recipe, text = backtest(small_folder, tmp_path / "out")
    (fold,) = folds(read_folder(small_folder, Clock()), Plan(folds=1, span_hours=60))
    expected = asdict(suited(FastRecipe(hidden_size=4), fold.regions, fewer=True))
    assert recipe == {name: expected[name] for name in recipe}
    assert recipe["season"] is False
    assert f"{recipe['steps']} steps of {recipe['batch_size']} chunks instead of 700 of 96" in " ".join(
        text.split()
    )
    assert backtest(small_folder, tmp_path / "out") == (recipe, text)
    assert backtest(small_folder, tmp_path / "asked", "--steps", 4)[0]["steps"] == 4


def test_a_backtest_from_before_goes_on_as_it_began(small_folder, tmp_path):
    out = tmp_path / "out"
    backtest(small_folder, out, "--steps", 4)
    settings = json.loads((out / "settings.json").read_text())
    del settings["suited"], settings["recipe"]["season"]
    for path in out.iterdir():
        path.unlink()
    (out / "settings.json").write_text(json.dumps(settings))
    recipe, text = backtest(small_folder, out, "--steps", 4)
    assert recipe == {"steps": 4, "batch_size": FastRecipe().batch_size, "season": True}
    assert "season" not in text


@pytest.mark.parametrize("begun_before", [True, False])
def test_trees_read_the_season_where_the_network_beside_them_does(small_folder, tmp_path, begun_before):
    pytest.importorskip("lightgbm")
    out = tmp_path / "out"
    options = ("--steps", 2, "--lightgbm", 5)
    backtest(small_folder, out, *options)
    if begun_before:
        settings = json.loads((out / "settings.json").read_text())
        del settings["suited"]
        for path in out.iterdir():
            path.unlink()
        (out / "settings.json").write_text(json.dumps(settings))
        backtest(small_folder, out, *options)
    (found,) = json.loads((out / "backtest.json").read_text())["folds"]
    (fold,) = folds(read_folder(small_folder, Clock()), Plan(folds=1, span_hours=60))
    expected = PooledTrees(5).forecast(fold.regions, lambda _: None, season=begun_before)
    other = PooledTrees(5).forecast(fold.regions, lambda _: None, season=not begun_before)
    one, another = (scored("x", fold.regions, forecasts).mean.smape for forecasts in (expected, other))
    assert found["smape"]["LightGBM, 5 trees"] == pytest.approx(one, rel=1e-12)
    assert one != another


@pytest.fixture(scope="module")
def finished(small_folder, tmp_path_factory):
    """A backtest of one date; to be copied."""
    out = tmp_path_factory.mktemp("finished") / "out"
    backtest(small_folder, out, "--steps", 2)
    return out


@pytest.mark.parametrize(
    "change",
    [
        {"smape": {"GRU": 1e999}}, {"smape": {"\ud800": 1.0}}, {"smape": {}}, {"smape": [1.0]},
        {"mase": None}, {"recipe": {"steps": -5}}, {"recipe": {"steps": True}}, {"recipe": None},
        {"recipe": {"season": 7}}, {"recipe": {"steps": 10**12}}, {"recipe": {"cell": "lstm"}},
        {"test_hours": -1}, {"train_hours": 0.5}, {"by_region": {}}, {"by_region": {"GRU": {"AEP": "x"}}},
        {"origin": 3},
    ],
)  # fmt: skip
def test_a_fold_that_cannot_be_is_refused_in_a_line(small_folder, finished, tmp_path, change):
    out = shutil.copytree(finished, tmp_path / "out")
    path = out / "fold-0.json"
    fold = json.loads(path.read_text()) | change
    path.write_text(json.dumps(fold))
    (out / "backtest.json").unlink()
    options = ("--folds", 1, "--span", 60, "--hidden-size", 4, "--threads", 1, "--out", out, "--steps", 2)
    done = gatedcells("forecast", "backtest", "--data", small_folder, *options)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    lines = done.output.splitlines()
    assert "fold-0.json" in lines[-1]
    assert len(lines[-1]) < 400
    assert not (out / "backtest.json").exists()


# one's own series


def test_a_forecaster_without_a_number_of_steps_takes_those_that_its_values_are_worth(tmp_path):
    frame = made_up((200, 180), level=20.0)
    one = Forecaster(horizon=3, lookback=8, hidden_size=4, threads=1, level=(80,)).fit(frame)
    recipe = one.model_.recipe
    chunks = ((200 - 20) + (180 - 18)) / (8 - 4)  # a tenth calibrates, half a lookback warms up
    assert (recipe.steps, recipe.batch_size) == (8 * chunks / 4, 4)
    assert one.model_.fit.season is False
    loaded = Forecaster.load(one.save(tmp_path / "saved"))
    assert loaded.get_params() == one.get_params()
    assert loaded.get_params()["steps"] is None
    assert loaded.model_.fit == one.model_.fit
    np.testing.assert_array_equal(loaded.predict().GRU, one.predict().GRU)


@pytest.mark.parametrize(("given", "made"), [({"steps": 5}, (5, 16)), ({"batch_size": 7}, (1000, 7))])
def test_a_number_of_steps_or_chunks_that_is_given_is_kept(given, made):
    forecaster = Forecaster(horizon=3, lookback=8, hidden_size=2, threads=1, level=(), **given)
    recipe = forecaster.fit(made_up((60,))).model_.recipe
    assert (recipe.steps, recipe.batch_size) == made


def test_many_values_take_all_steps():
    recipe = DirectRecipe()
    assert recipe.suited(10**6) == recipe
    fewer = recipe.suited(10**4)
    assert fewer.steps * fewer.windows_a_step <= 8 * 10**4 * (1 + 0.5 / fewer.steps)


@pytest.mark.parametrize(("days", "season"), [(365, True), (364, False)])
def test_the_season_of_a_panel_takes_a_year_of_one_series(days, season):
    frame = made_up((days, 40), "D")
    options = {"horizon": 2, "lookback": 4, "hidden_size": 2, "steps": 1, "threads": 1, "calibration": 0}
    one = Forecaster(**options).fit(frame)
    assert one.model_.fit.season is season
    context = one._context
    inputs, _ = one.model_.inputs(context)
    x = inputs.batch(np.array([0]), np.arange(5)[:, None], 1).ahead
    changed = replace(one.model_, fit=replace(one.model_.fit, season=not season))
    other = changed.inputs(context)[0].batch(np.array([0]), np.arange(5)[:, None], 1).ahead
    differing = (x != other).any(dim=0).any(dim=0).sum()
    assert differing == 2  # sine and cosine, and nothing else


def test_a_day_ahead_run_from_before_goes_on_with_its_steps(small_folder, tmp_path):
    out = tmp_path / "day"
    options = ("--hidden-size", 2, "--threads", 1)
    done = gatedcells("forecast", "day-ahead", "--data", small_folder, "--out", out, *options)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "day_ahead.json").read_text())
    assert (found["steps"], found["batch_size"]) == (100, 4)
    assert "100 steps of 4 chunks" in done.output
    settings = json.loads((out / "settings.json").read_text())
    settings["forecaster"] |= {"steps": 2000, "batch_size": 32}
    (out / "settings.json").write_text(json.dumps(settings))
    again = gatedcells("forecast", "day-ahead", "--data", small_folder, "--out", out, *options)
    assert again.exit_code == 0, again.output
    settings["forecaster"] |= {"steps": 40}
    (out / "settings.json").write_text(json.dumps(settings))
    again = gatedcells("forecast", "day-ahead", "--data", small_folder, "--out", out, *options, "--steps", 40)
    assert again.exit_code == 0, again.output
    kept = Forecaster.load(out / "forecaster").get_params()
    assert (kept["steps"], kept["batch_size"]) == (100, 4)


def test_a_checkpoint_of_another_batch_size_or_season_is_refused(tmp_path):
    frame, checkpoint = made_up((120,), level=20.0), tmp_path / "checkpoint"
    options = {"horizon": 3, "lookback": 8, "hidden_size": 2, "threads": 1, "steps": 3, "level": ()}
    one = Forecaster(**options, batch_size=5)
    one.fit_laid_out(*laid_out(one, frame), checkpoint)  # which leaves it
    with pytest.raises(ForecastError, match="another training .batch_size 5"):
        Forecaster(**options, batch_size=4).fit(frame, checkpoint=checkpoint)
    tensors, notes = read_tensors(checkpoint)
    kept = json.loads(notes["progress"])
    digest = kept["settings"]["digest"]
    assert kept["settings"] == {"batch_size": 5, "season": False, "digest": digest}
    del kept["settings"]  # as it was when the season was an input of any training
    write_tensors(checkpoint, tensors, {"progress": json.dumps(kept)})
    with pytest.raises(ForecastError, match="another training .season True"):
        Forecaster(**options, batch_size=5).fit(frame, checkpoint=checkpoint)


def test_more_steps_than_anything_else_may_be_are_read_again(tmp_path):
    one = Forecaster(horizon=3, lookback=8, hidden_size=2, threads=1, steps=1, level=()).fit(made_up((60,)))
    one.set_params(steps=2_000_000_000)
    assert Forecaster.load(one.save(tmp_path / "saved")).get_params() == one.get_params()


@pytest.mark.parametrize("sizes", [(25,), (26, 119), (50,), (95, 96), (400, 30)])
@pytest.mark.parametrize("calibration", [0, 0.1])
def test_series_shorter_than_what_is_looked_back_on_are_trained_on(sizes, calibration):
    options = {"hidden_size": 2, "threads": 1, "level": (), "calibration": calibration}
    found = Forecaster(horizon=24, **options).fit(made_up(sizes)).predict()
    assert len(found) == 24 * len(sizes)
    assert np.isfinite(found.GRU).all()
