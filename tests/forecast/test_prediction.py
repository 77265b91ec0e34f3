"""What ``predict`` says of its forecast is of that forecast, in the file's own hours and digits."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import Clock, read_file, read_folder
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import scored
from gatedcells.forecast.intervals import Calibrator, intervals
from gatedcells.forecast.prediction import predict_file
from gatedcells.forecast.runs import RunFolder
from gatedcells.forecast.windows import prepare
from tests.support.load_files import ending_stamps, made_up_load, write_file

SMALL = ["--steps", "12", "--batch-size", "8", "--hidden-size", "6", "--threads", "1", "--cell", "gru"]


def gatedcells(*arguments):
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    """A run with the neighbours' correction, of two regions that err alike: the folder of its data and it."""
    folder = tmp_path_factory.mktemp("corrected")
    common = np.repeat(1 + np.random.default_rng(7).normal(0, 0.05, 100), 24)
    stamps = ending_stamps("2016-03-01 05:00", 2400, "America/New_York")
    for seed, region in enumerate(("AEP", "DOM")):
        write_file(folder / "data", region, stamps, made_up_load(2400, seed) * common)
    gatedcells("--data", folder / "data", "--out", folder / "run", "--neighbours", *SMALL)
    return folder / "data", RunFolder(folder / "run")


def errors_of(data, run, *, with_neighbours):
    """By region: what a calibrator learns of the test hours' forecasts, and their sMAPE."""
    regions = prepare(read_folder(data))
    forecaster, _ = run.forecaster(run.config(), "gru")
    if not with_neighbours:
        forecaster.neighbours = None
    forecasts = forecaster.forecast_test(regions, lambda _: None)
    smape = {name: one.smape for name, one in scored("x", regions, forecasts).by_region.items()}
    learnt = {}
    for region, forecast in zip(regions, forecasts, strict=True):
        learnt[region.name] = Calibrator()
        hours = local_starts(region.series).hour.to_numpy()[region.test]
        intervals(learnt[region.name], forecast, region.actual_mw, hours)
    return learnt, smape


def test_of_a_run_with_neighbours_the_error_and_interval_are_those_without_them(corrected):
    data, run = corrected
    learnt, smape = errors_of(data, run, with_neighbours=False)
    others, other = errors_of(data, run, with_neighbours=True)
    for name in ("AEP", "DOM"):
        path = data / f"{name}_hourly.csv"
        found = predict_file(run, path)
        assert found.one_step_smape == pytest.approx(smape[name], rel=1e-3)
        assert abs(other[name] / smape[name] - 1) > 0.02, "the correction does something here"
        series = read_file(path)
        hour = int(local_starts(series, 1).hour[len(series.load_mw)])
        reach = np.log([found.high_mw[level] / found.load_mw[0] for level in (0.8, 0.95)])
        np.testing.assert_allclose(reach, learnt[name].factors(hour), rtol=0.02)
        assert not np.allclose(reach, others[name].factors(hour), rtol=0.02)
        output = gatedcells("predict", run.path, "--data", path, "--hours", 2)
        shown = f"sMAPE {found.one_step_smape:.3f}% on this region's test hours without the neighbours'"
        assert shown in output
        assert f"80% between {found.low_mw[0.8]:,.1f} and {found.high_mw[0.8]:,.1f} MW" in output


def test_one_pass_gives_the_forecasts_with_the_correction_and_those_without(corrected):
    data, run = corrected
    regions = prepare(read_folder(data))
    forecaster, _ = run.forecaster(run.config(), "gru")
    found, alone = forecaster.forecast_test_twice(regions, lambda _: None)
    for one, other in zip(found, forecaster.forecast_test(regions, lambda _: None), strict=True):
        np.testing.assert_array_equal(one, other)
    forecaster.neighbours = None
    for one, other in zip(alone, forecaster.forecast_test(regions, lambda _: None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)  # where its stretches begin differs
    with pytest.raises(ForecastError, match="whose forecasts its neighbours' errors correct"):
        forecaster.forecast_test_twice(regions, lambda _: None)


def test_of_a_run_from_before_it_says_that_the_error_is_not_known(corrected, tmp_path):
    data, run = corrected
    old = tmp_path / "run"
    shutil.copytree(run.path, old)
    (old / "calibration_alone.json").unlink()
    content = json.loads((old / "metrics.json").read_text())
    del content["models"]["GRU"]["alone"]
    (old / "metrics.json").write_text(json.dumps(content))
    output = gatedcells("predict", old, "--data", data / "AEP_hourly.csv", "--hours", 1)
    assert "First hour: error not known without the neighbours' correction" in output
    assert "between" not in output
    gatedcells("--resume", old)
    again, expected = (predict_file(one, data / "AEP_hourly.csv") for one in (RunFolder(old), run))
    for name in ("one_step_smape", "low_mw", "high_mw"):
        assert getattr(again, name) == getattr(expected, name)


@pytest.mark.parametrize("tz", ["Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns"])
def test_hours_that_begin_between_those_of_utc_go_on_in_a_forecast(tz, tmp_path):
    stamps = ending_stamps("2016-03-01 05:00", 1200, "UTC")  # whole hours of the wall clock
    if tz != "America/St_Johns":
        moments = (stamps - pd.Timedelta(hours=1)).tz_localize(tz).tz_convert("UTC")
    else:
        stamps = stamps[stamps != pd.Timestamp("2016-03-13 03:00")]  # which its clocks skip
        moments = (stamps - pd.Timedelta(hours=1)).tz_localize(tz).tz_convert("UTC")
    known, left = slice(0, -24), slice(-24, None)
    path = write_file(tmp_path / "data", "GRID", stamps[known], made_up_load(len(stamps))[known])
    run, out = tmp_path / "run", tmp_path / "next.csv"
    gatedcells("--data", tmp_path / "data", "--out", run, "--tz", tz, "--holidays", "none", *SMALL)
    output = gatedcells("predict", run, "--data", path, "--out", out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Datetime"] for row in rows] == [str(stamp) for stamp in stamps[left]]
    assert [row["utc_start"] for row in rows] == [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in moments[left]]
    assert f"{stamps[-24]:%a %Y-%m-%d %H:%M}" in output
    back = read_file(out, Clock(tz))
    assert back.first_hour == moments[-24]
    with (run / "test_forecasts.csv").open() as file:
        tested = [row["Datetime"] for row in csv.DictReader(file)]
    assert tested == [str(stamp) for stamp in stamps[known][-len(tested) :]]


def test_a_feeder_of_a_third_of_a_megawatt_is_forecast_in_kilowatts(tmp_path):
    load = made_up_load(1200) * 0.35e-3
    stamps = ending_stamps("2016-03-01 05:00", 1200, "UTC")
    path = write_file(tmp_path / "data", "FEEDER", stamps, load)
    run, out = tmp_path / "run", tmp_path / "next.csv"
    gatedcells("--data", tmp_path / "data", "--out", run, "--tz", "UTC", *SMALL)
    gatedcells("predict", run, "--data", path, "--out", out)
    found = predict_file(RunFolder(run), path)
    written = pd.read_csv(out)["FEEDER_MW"]
    np.testing.assert_allclose(written, found.load_mw, rtol=1e-7)
    table = pd.read_csv(run / "test_forecasts.csv")
    np.testing.assert_allclose(table["actual_mw"], load[-len(table) :], rtol=1e-7)
    smape = 200 * (table["gru_mw"] - table["actual_mw"]).abs() / (table["gru_mw"] + table["actual_mw"])
    scores = json.loads((run / "metrics.json").read_text())["models"]["GRU"]["mean"]
    assert smape.mean() == pytest.approx(scores["smape"], rel=1e-5)
