"""Where a file ends with hours without a load, as those of tomorrow, they are what is forecast."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster
from gatedcells.forecast.data import read_file
from gatedcells.forecast.metrics import UndefinedScore
from gatedcells.forecast.prediction import predict_file
from gatedcells.forecast.runs import RunFolder
from tests.support.load_files import eastern_stamps, made_up_load, write_file

SMALL = ["--steps", "12", "--batch-size", "8", "--hidden-size", "6", "--threads", "1"]
HOURS, BLANK = 1300, 48


def gatedcells(*arguments):
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    return done.output


def written(folder, load):
    return write_file(folder, "AEP", eastern_stamps("2016-03-01 05:00", len(load)), load)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, and the file that it is trained on."""
    folder = tmp_path_factory.mktemp("blank")
    path = written(folder / "data", made_up_load(HOURS))
    gatedcells("--data", folder / "data", "--out", folder / "run", "--cell", "gru", *SMALL)
    return RunFolder(folder / "run"), path


@pytest.mark.parametrize("end", [np.nan, 0.0, -1.0])
def test_hours_without_a_load_at_the_end_are_forecast_as_the_next_ones(trained, end, tmp_path):
    run, path = trained
    load = np.append(made_up_load(HOURS), np.full(BLANK, end))
    with_end = written(tmp_path, load)
    found, expected = predict_file(run, with_end), predict_file(run, path)
    np.testing.assert_array_equal(found.load_mw, expected.load_mw)
    assert list(found.stamps) == list(expected.stamps) == list(read_file(path).local_stamps(24)[HOURS:])
    assert list(found.utc) == list(expected.utc)
    assert (found.low_mw, found.high_mw) == (expected.low_mw, expected.high_mw)
    assert (found.blank, found.filled) == (BLANK, 0)
    text = " ".join(gatedcells("predict", run.path, "--data", with_end).split())
    assert "Hours without a load at the end of the file: 48. The forecast begins with them." in text
    assert "24 hours after the last load in" in text
    assert "were filled" not in text
    assert "at the end" not in gatedcells("predict", run.path, "--data", path)


def test_holes_before_the_last_load_are_filled_as_before(trained, tmp_path):
    run, _ = trained
    load = np.append(made_up_load(HOURS), np.full(BLANK, np.nan))
    load[HOURS - 5 : HOURS - 2] = np.nan
    found = predict_file(run, written(tmp_path, load))
    assert (found.blank, found.filled) == (BLANK, 3)


def test_a_run_that_drops_at_holes_forecasts_after_the_last_load(trained, tmp_path):
    run, path = trained
    strict = tmp_path / "run"
    shutil.copytree(run.path, strict)
    config = json.loads((strict / "config.json").read_text())
    config["policy"]["on_gap"] = "drop"
    (strict / "config.json").write_text(json.dumps(config))
    load = np.append(made_up_load(HOURS), np.full(BLANK, np.nan))
    found = predict_file(RunFolder(strict), written(tmp_path, load))
    np.testing.assert_array_equal(found.load_mw, predict_file(run, path).load_mw)


def test_the_day_ahead_forecaster_goes_on_from_the_last_load(tmp_path):
    stamps = eastern_stamps("2016-03-01 05:00", HOURS)
    loads = {name: made_up_load(HOURS, seed) for seed, name in enumerate(("AEP", "DOM"))}
    loads["DOM"][-BLANK:] = np.nan
    for name, load in loads.items():
        write_file(tmp_path / "data", name, stamps, load)
    run = tmp_path / "run"
    same = ["day-ahead", "--data", tmp_path / "data", "--out", run, "--lookback", "30", *SMALL]
    text = gatedcells(*same)
    assert "DOM: hours without a load at the end: 48. Its forecaster goes on from before them." in text
    assert "AEP: " not in text
    gatedcells("apply", run / "forecaster", "--out", tmp_path / "next.csv")
    found = pd.read_csv(tmp_path / "next.csv", parse_dates=["ds"])
    assert found.ds[found.unique_id == "DOM"].min() == stamps[-BLANK]
    assert found.ds[found.unique_id == "AEP"].min() == stamps[-1] + pd.Timedelta(hours=1)
    kept = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": stamps, "y": load}).dropna() for name, load in loads.items()
    )
    expected = Forecaster.load(run / "forecaster").predict(frame=kept)
    np.testing.assert_allclose(found.GRU, expected.GRU, rtol=1e-5)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert gatedcells(*same) == text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_region_without_a_load_since_its_training_part_goes_on_from_there(tmp_path):
    stamps = eastern_stamps("2016-03-01 05:00", HOURS)
    blank = 300  # the test part, and the end of the part that is trained on
    for seed, name in enumerate(("AEP", "DOM")):
        load = made_up_load(HOURS, seed)
        load[-blank:] = np.nan if name == "DOM" else load[-blank:]
        write_file(tmp_path / "data", name, stamps, load)
    with pytest.warns(UndefinedScore):
        gatedcells(
            "day-ahead", "--data", tmp_path / "data", "--out", tmp_path / "run", "--lookback", "30", *SMALL
        )
    found = Forecaster.load(tmp_path / "run" / "forecaster").predict()
    assert found.ds[found.unique_id == "DOM"].min() == stamps[-blank]


def test_a_region_without_a_load_in_its_test_part_counts_in_no_mean_and_has_no_interval(tmp_path):
    stamps, data, run = eastern_stamps("2016-03-01 05:00", HOURS), tmp_path / "data", tmp_path / "run"
    for seed, name in enumerate(("AEP", "OFF")):
        load = made_up_load(HOURS, seed)
        load[-300:] = 0.0 if name == "OFF" else load[-300:]
        write_file(data, name, stamps, load)
    with pytest.warns(UndefinedScore):
        text = gatedcells("--data", data, "--out", run, "--cell", "gru", *SMALL)
    assert "Means leave out regions in which a score is not defined: OFF." in text
    models = json.loads((run / "metrics.json").read_text())["models"]
    for model in models.values():
        assert model["mean"] == model["by_region"]["AEP"]
        assert None not in model["mean"].values()
    mean, width, _ = (line.split() for line in text.splitlines() if line.strip().startswith("mean"))
    assert "undefined" not in width
    assert mean[1] == f"{models['GRU']['mean']['smape']:.3f}"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "The best network is GRU, with" in page
    assert "Means leave out regions in which a score is not defined: OFF." in page
    said = " ".join(gatedcells("predict", run, "--data", data / "OFF_hourly.csv", "--hours", 2).split())
    assert "nan" not in said
    assert "First hour: error not known. Later hours build on the ones before" in said
