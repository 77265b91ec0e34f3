"""The next day at once: what is known where, scores, the command."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError
from gatedcells.forecast.data import Clock, read_file
from gatedcells.forecast.day_ahead import DirectTrees, Places, panel_of, seasonal, train_ends
from gatedcells.forecast.distributed import Share
from gatedcells.forecast.fitting import fit_store
from gatedcells.forecast.forecaster_parameters import recipe_of
from gatedcells.forecast.metrics import (
    UndefinedScore,
    coverage,
    naive_mae,
    pinball_loss,
    score,
    score_by_step,
)
from gatedcells.forecast.panel_model import Fit
from gatedcells.forecast.panel_store import InMemory
from gatedcells.forecast.windows import prepare
from tests.support.load_files import EASTERN, eastern_stamps, ending_stamps, made_up_load, write_file
from tests.support.own_series import made_up

SMALL = ["--steps", "20", "--batch-size", "4", "--hidden-size", "6", "--lookback", "30", "--threads", "1"]


def gatedcells(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], env={"COLUMNS": "80"})


@pytest.fixture(autouse=True)
def _without_data(monkeypatch):
    monkeypatch.delenv("GATEDCELLS_DATA", raising=False)


@pytest.fixture(scope="module")
def model(small_regions):
    panel, ends = panel_of(small_regions), train_ends(small_regions)
    known = panel.up_to(ends)
    asked = Forecaster(
        lookback=30, hidden_size=6, steps=20, batch_size=4, quantiles=(0.1, 0.5, 0.9), level=(80,)
    )
    recipe = recipe_of(asked.get_params(), None)
    fit, console = Fit(level=(80.0,)), Console(quiet=True)
    return fit_store(InMemory(known), known.grid, recipe, fit, console, name="x").model


def test_a_panel_of_regions_has_their_hours_and_stamps(small_regions):
    panel, ends = panel_of(small_regions), train_ends(small_regions)
    for at, region in enumerate(small_regions):
        n = panel.sizes[at]
        begin = len(region.load_mw) - n
        positions = panel.first[at] + np.arange(n)
        assert list(panel.grid.wall_stamps(positions)) == list(region.series.local_stamps()[begin:])
        own = panel.y[panel.offsets[at] : panel.offsets[at + 1]]
        expected = np.where(region.usable, region.load_mw, np.nan)[begin:]
        np.testing.assert_array_equal(own, expected)
        assert ends[at] + begin == region.train_end


@pytest.mark.parametrize("every", [24, 6])
def test_places_are_local_hours_of_the_test_part_with_a_whole_day_after_them(small_regions, every):
    panel, ends = panel_of(small_regions), train_ends(small_regions)
    places = Places.of(panel, ends, 24, every)
    for at, region in enumerate(small_regions):
        origins = places.origins[places.series == at]
        hours = panel.grid.local_starts(panel.first[at] + origins).hour
        assert set(hours) == set(range(0, 24, every))
        assert origins.min() >= ends[at]
        assert origins.max() + 24 <= panel.sizes[at]
        last = region.series.load_mw[-(panel.sizes[at] - origins[-1]) :][:24]
        np.testing.assert_array_equal(places.actual[places.series == at][-1], last)
    with pytest.raises(ForecastError, match="test hours; expected a whole 2400 after a place"):
        Places.of(panel, ends, 2400, every)


def test_no_forecast_is_told_an_hour_after_its_place(small_regions, model):
    pytest.importorskip("lightgbm")
    panel, ends = panel_of(small_regions), train_ends(small_regions)
    places = Places.of(panel, ends, 24, 24)
    chosen = places.origins[places.series == 0][2]
    later = panel.y.copy()
    later[panel.offsets[0] + chosen : panel.offsets[1]] *= 3
    changed = replace(panel, y=later)
    early = (places.series == 1) | (places.origins <= chosen)

    def all_forecasts(panel):
        inputs, _ = model.inputs(panel)
        trees = DirectTrees(5, rows=3000).forecast(inputs, ends, places, True, lambda _: None)
        quantiles = model.forecast(panel, places.series, places.origins)
        return quantiles, trees, seasonal(inputs, places, 24, True)

    for one, other in zip(all_forecasts(panel), all_forecasts(changed), strict=True):
        np.testing.assert_array_equal(one[early], other[early])
        assert (one[~early] != other[~early]).any()


def test_the_seasons_before_are_hours_of_the_day_or_week_before(small_regions, model):
    panel, ends = panel_of(small_regions), train_ends(small_regions)
    places = Places.of(panel, ends, 24, 24)
    inputs, _ = model.inputs(panel)
    for period in (24, 168):
        found = seasonal(inputs, places, period, True)
        for at, (series, origin) in enumerate(zip(places.series, places.origins, strict=True)):
            begin = panel.offsets[series] + origin - period
            np.testing.assert_allclose(found[at], np.exp(inputs.x[begin : begin + 24]), rtol=1e-12)


def test_scores_by_step_are_scores_of_the_steps():
    generator = np.random.default_rng(0)
    actual, forecast = generator.uniform(1, 2, (50, 24)), generator.uniform(1, 2, (50, 24))
    actual[3, 5] = np.nan
    found = score_by_step(forecast, actual, 0.5, (1, 6, 24))
    assert list(found) == ["1", "6", "24", "mean"]
    assert found["6"] == score(forecast[:, 5], actual[:, 5], 0.5)
    assert found["mean"] == score(forecast.ravel(), actual.ravel(), 0.5)
    assert found["mean"].mase == pytest.approx(np.nanmean(np.abs(forecast - actual)) / 0.5)


def test_pinball_and_coverage_are_those_of_the_hand():
    forecast, actual = np.array([1.0, 4.0, 2.0, 9.0]), np.array([3.0, 3.0, 2.0, np.nan])
    assert pinball_loss(forecast, actual, 0.9) == pytest.approx((0.9 * 2 + 0.1 * 1 + 0) / 3)
    assert pinball_loss(forecast, actual, 0.5) == pytest.approx(np.abs(forecast - actual)[:3].mean() / 2)
    assert coverage(forecast - 1, forecast + 1, actual) == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def finished(small_folder, tmp_path_factory):
    pytest.importorskip("lightgbm")
    run = tmp_path_factory.mktemp("day") / "run"
    done = gatedcells(
        "forecast", "day-ahead", "--data", small_folder, "--out", run, *SMALL, "--lightgbm", "3",
        "--lightgbm-rows", "2000",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return run, done.output


def test_the_command_prints_its_tables_and_writes_its_folder(finished):
    run, output = finished
    for words in (
        "sMAPE % by hours ahead", "MASE by hours ahead", "GRU", "same hour last week", "same hour yesterday",
        "LightGBM, 3 trees, 2,000 rows", "pinball", "AEP", "DOM",
    ):  # fmt: skip
        assert words in output
    assert max(len(line) for line in output.splitlines() if "/" not in line) <= 80
    names = {p.name for p in run.iterdir()}
    assert names == {"settings.json", "day_ahead.json", "forecasts.csv", "forecaster"}
    found = json.loads((run / "day_ahead.json").read_text())
    with (run / "forecasts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 * found["places"]
    own = [r for r in rows if r["region"] == "AEP" and r["hours_ahead"] == "6" and r["actual_mw"]]
    errors = [abs(float(r["GRU"]) - float(r["actual_mw"])) for r in own]
    expected = found["models"]["GRU"]["AEP"]["6"]["mae_mw"]
    assert np.mean(errors) == pytest.approx(expected, rel=1e-5)
    aep = [r for r in rows if r["region"] == "AEP" and r["actual_mw"]]
    inside = np.mean([float(r["lo-80"]) <= float(r["actual_mw"]) <= float(r["hi-80"]) for r in aep])
    assert inside == pytest.approx(found["intervals"]["AEP"]["coverage_80"], abs=0.03)
    assert all(row["Datetime"].endswith("01:00:00") for row in rows if row["hours_ahead"] == "1")


def test_the_same_command_shows_a_run_again_and_others_are_refused(finished, small_folder):
    run, _ = finished
    weights = (run / "forecaster" / "forecaster.safetensors").stat().st_mtime_ns
    same = ["forecast", "day-ahead", "--data", small_folder, "--out", run, *SMALL]
    again = gatedcells(*same)
    assert again.exit_code == 0, again.output
    assert (run / "forecaster" / "forecaster.safetensors").stat().st_mtime_ns == weights
    other = gatedcells(*same, "--seed", "4")
    assert (other.exit_code, "other settings or data" in other.output) == (2, True)


def test_the_forecaster_goes_on_from_the_end_of_the_files_and_the_same_command_finds_the_same(
    small_folder, tmp_path
):
    run = tmp_path / "run"
    same = ["forecast", "day-ahead", "--data", small_folder, "--out", run, *SMALL]
    first = gatedcells(*same)
    assert first.exit_code == 0, first.output
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = gatedcells("forecast", "apply", run / "forecaster", "--out", tmp_path / "next.csv")
    assert done.exit_code == 0, done.output
    written = pd.read_csv(tmp_path / "next.csv", parse_dates=["ds"])
    frames = []
    for name in ("AEP", "DOM"):
        series = read_file(small_folder / f"{name}_hourly.csv")
        stamps = series.local_stamps(24)
        assert list(written.ds[written.unique_id == name]) == list(stamps[-24:])
        frames.append(pd.DataFrame({"unique_id": name, "ds": stamps[:-24], "y": series.load_mw}))
    forecaster = Forecaster.load(run / "forecaster")
    assert (forecaster.model_.margins.widths != 1).any()
    expected = forecaster.predict(frame=pd.concat(frames))
    np.testing.assert_allclose(written[["GRU", "GRU-lo-95"]], expected[["GRU", "GRU-lo-95"]], rtol=1e-5)
    again = gatedcells(*same)
    assert again.output == first.output
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_forecaster_that_was_told_of_later_values_stays_as_it_is(small_folder, tmp_path):
    run = tmp_path / "run"
    same = ["forecast", "day-ahead", "--data", small_folder, "--out", run, *SMALL]
    assert gatedcells(*same).exit_code == 0
    came = pd.concat(
        pd.DataFrame({
            "unique_id": name, "y": made_up_load(30),
            "ds": read_file(small_folder / f"{name}_hourly.csv").local_stamps(30)[-30:],
        }) for name in ("AEP", "DOM")
    )  # fmt: skip
    came.to_csv(tmp_path / "came.csv", index=False)
    update = ["forecast", "apply", run / "forecaster", "--data", tmp_path / "came.csv", "--update"]
    assert gatedcells(*update).exit_code == 0
    before = (run / "forecaster" / "forecaster.json").read_bytes()
    assert gatedcells(*same).exit_code == 0
    assert (run / "forecaster" / "forecaster.json").read_bytes() == before


def test_regions_whose_scores_are_not_defined_are_shown_as_such(tmp_path):
    stamps = eastern_stamps("2016-09-01 04:00", 1200)
    for seed, region in enumerate(("AEP", "BLANK", "STILL")):
        load = made_up_load(1200, seed)
        load[-150:] = np.nan if region == "BLANK" else load[-150:]
        load[:-100] = 500.0 if region == "STILL" else load[:-100]
        write_file(tmp_path / "data", region, stamps, load)
    run = tmp_path / "run"
    with pytest.warns(UndefinedScore):
        done = gatedcells("forecast", "day-ahead", "--data", tmp_path / "data", "--out", run, *SMALL)
    assert done.exit_code == 0, done.output
    found = json.loads((run / "day_ahead.json").read_text())
    own = found["models"]["GRU"]
    assert set(own["BLANK"]["mean"].values()) == {None}
    assert own["STILL"]["mean"]["mase"] is None
    assert own["mean"]["mean"]["mase"] == own["AEP"]["mean"]["mase"]
    assert own["mean"]["6"]["smape"] == np.mean([own[one]["6"]["smape"] for one in ("AEP", "STILL")])
    assert set(found["intervals"]["BLANK"].values()) == {None}
    assert found["intervals"]["mean"]["pinball"] == np.mean(
        [found["intervals"][one]["pinball"] for one in ("AEP", "STILL")]
    )
    (row,) = (line.split() for line in done.output.splitlines() if line.split()[:1] == ["BLANK"])
    assert set(row[1:]) == {"undefined"}


@pytest.mark.parametrize("column", ["mean", "Mean"])
def test_a_region_called_as_the_mean_of_the_regions_is_refused(column, tmp_path):
    for seed, region in enumerate(("AEP", column)):
        load = made_up_load(1200, seed)
        write_file(tmp_path / "data", region, eastern_stamps("2016-09-01 04:00", 1200), load)
    run = tmp_path / "run"
    done = gatedcells("forecast", "day-ahead", "--data", tmp_path / "data", "--out", run, *SMALL)
    if column == "mean":
        said = (
            "mean_hourly.csv: a region is called mean, as the mean of the regions is; expected another name"
        )
        assert (done.exit_code, said in done.output, run.exists()) == (2, True, False)
    else:
        found = json.loads((run / "day_ahead.json").read_text())["models"]["GRU"]
        assert set(found) == {"AEP", "Mean", "mean"}


@pytest.mark.parametrize(("tz", "minutes"), [("Asia/Kolkata", 30), ("Asia/Kathmandu", 15), ("UTC", 0)])
def test_a_day_begins_at_midnight_of_its_time_zone(tz, minutes, tmp_path):
    stamps = ending_stamps("2016-03-01 05:00", 1200, "UTC")
    path = write_file(tmp_path, "GRID", stamps, made_up_load(1200))
    regions = prepare([read_file(path, Clock(tz))])
    panel, ends = panel_of(regions), train_ends(regions)
    assert panel.grid.phase_s == 60 * minutes
    places = Places.of(panel, ends, 24, 24)
    starts = panel.grid.local_starts(panel.first[0] + places.origins)
    assert (starts == starts.normalize()).all()
    positions = panel.first[0] + np.arange(panel.sizes[0])
    assert list(panel.grid.wall_stamps(positions)) == list(stamps[-len(positions) :])
    assert panel.grid.utc_stamps(positions[:1] - 1)[0] == regions[0].series.first_hour


def test_small_loads_are_written_with_their_digits(tmp_path):
    load = made_up_load(1200) * 0.35e-3
    write_file(tmp_path / "data", "FEEDER", eastern_stamps("2016-09-01 04:00", 1200), load)
    run = tmp_path / "run"
    done = gatedcells("forecast", "day-ahead", "--data", tmp_path / "data", "--out", run, *SMALL)
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(run / "forecasts.csv")
    error = (rows["GRU"] - rows["actual_mw"]).abs().mean()
    found = json.loads((run / "day_ahead.json").read_text())["models"]["GRU"]["mean"]["mean"]
    assert error == pytest.approx(found["mae_mw"], rel=1e-5)


def test_several_processes_are_refused(small_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("gatedcells.forecast.console.share", lambda: Share(0, 2))
    done = gatedcells("forecast", "day-ahead", "--data", small_folder, "--out", tmp_path / "run", *SMALL)
    assert (done.exit_code, "day-ahead runs on one process, got 2" in done.output) == (2, True)
    assert not (tmp_path / "run").exists()


def test_the_scale_of_mase_is_that_of_the_training_part(finished, small_regions):
    run, _ = finished
    found = json.loads((run / "day_ahead.json").read_text())["models"]["same hour yesterday"]
    for region in small_regions:
        own = found[region.name]["mean"]
        load = np.where(region.usable, region.load_mw, np.nan)[: region.train_end]
        assert own["mase"] == pytest.approx(own["mae_mw"] / naive_mae(load))


# one's own files


def test_an_hour_ending_file_through_a_frame_is_the_same_series(tmp_path):
    """Both nights of 2016 lie in the file: hours that end when clocks change are those of the load reader."""
    stamps = eastern_stamps("2016-03-01 05:00", 24 * 300)
    path = write_file(tmp_path, "AEP", stamps, made_up_load(len(stamps)))
    series = read_file(path)
    one = Forecaster(
        time_col="Datetime", tz=EASTERN, stamp="ending", horizon=2, lookback=4, hidden_size=3, steps=1,
        batch_size=2, threads=1,
    ).fit(path)  # fmt: skip
    assert one.report_.absent == 0
    found = one.predict(frame=path)
    np.testing.assert_array_equal(found.unique_id, "AEP_MW")
    assert list(found.Datetime) == list(series.local_stamps(2)[-2:])
    assert one.report_.rows == len(series.load_mw)


def test_fit_and_apply_are_the_api_on_files(tmp_path):
    frame = made_up([80, 60], "D", level=20.0).rename(
        columns={"unique_id": "shop", "ds": "day", "y": "sales"}
    )
    frame["price"] = np.random.default_rng(0).normal(size=len(frame))
    path = tmp_path / "sales.csv"
    frame.drop(index=7).to_csv(path, index=False)
    columns = ["--id-col", "shop", "--time-col", "day", "--target-col", "sales", "--known", "price"]
    options = ["--horizon", "3", "--lookback", "7", "--hidden-size", "4", "--steps", "3", "--threads", "1"]
    done = gatedcells("forecast", "fit", path, "--out", tmp_path / "f", *columns, *options)
    assert done.exit_code == 0, done.output
    assert "2 series, 139 rows, every D" in done.output
    assert done.output.count("stamps without a row: filled from the past") == 2  # a warning, and the report
    future = Forecaster.load(tmp_path / "f").make_future_dataframe().assign(price=0.0)
    future.to_csv(tmp_path / "prices.csv", index=False)
    done = gatedcells(
        "forecast",
        "apply",
        tmp_path / "f",
        "--future",
        tmp_path / "prices.csv",
        "--out",
        tmp_path / "next.csv",
    )
    assert done.exit_code == 0, done.output
    written = pd.read_csv(tmp_path / "next.csv")
    expected = Forecaster.load(tmp_path / "f").predict(future=future)
    np.testing.assert_allclose(written.GRU, expected.GRU)
    assert "GRU-hi-95" in done.output
    for arguments, words in (
        (("fit", tmp_path / "none.csv", "--out", tmp_path / "g"), "none.csv: no such file"),
        (("fit", path, "--out", tmp_path), "exists already and is no forecaster"),
        (("fit", path, "--out", tmp_path / "g"), "expected a column 'ds' with the stamps"),
        (("apply", tmp_path / "g"), "no such file"),
        (("apply", tmp_path / "f"), "give their values for the 3 steps to come"),
        (("apply", tmp_path / "f", "--h", "9"), "h is 9; this forecaster forecasts from 1 to 3 steps"),
    ):
        done = gatedcells("forecast", *arguments)
        assert (done.exit_code, words in done.output) == (2, True), done.output
        assert len(done.output.strip().splitlines()) == 1


def test_a_warning_is_a_line(tmp_path):
    frame = made_up([80])
    frame.drop(index=5).to_csv(tmp_path / "x.csv", index=False)
    done = gatedcells(
        "forecast", "fit", tmp_path / "x.csv", "--out", tmp_path / "f", "--horizon", "2", "--steps", "1",
        "--hidden-size", "2", "--threads", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line.startswith("Warning: ")]
    assert ".py:" not in done.output
