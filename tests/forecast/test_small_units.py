"""A column called aep_mw is of a region aep; runs of before, to which it was aep_mw, go on."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import data
from gatedcells.forecast.load_table import named_as_before
from gatedcells.step.day import day_of_load
from tests.support.load_files import eastern_stamps, made_up_load

SMALL = ["--steps", "12", "--batch-size", "8", "--hidden-size", "6", "--threads", "1", "--cell", "gru"]


def gatedcells(*arguments):
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    return done.output


def test_a_region_keeps_the_name_that_a_folder_knows():
    assert named_as_before("aep", ["aep_mw", "DOM"]) == "aep_mw"
    assert named_as_before("aep", ["aep_mw", "aep"]) == "aep"
    assert named_as_before("aep", ["aep_MW"]) == "aep"  # of a column aep_MW_MW
    assert named_as_before("aep", ["AEP_mw"]) == "aep"
    assert named_as_before("aep", []) == "aep"


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A folder of load, and one with runs of before on it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, name in enumerate(("aep_mw", "DOM_MW")):
        rows = zip(eastern_stamps("2016-03-01 05:00", 1300), made_up_load(1300, seed), strict=True)
        lines = [f"{stamp},{load}" for stamp, load in rows]
        (folder / f"{name[:3]}.csv").write_text("\n".join([f"Datetime,{name}", *lines]) + "\n")
    with monkeypatch.context() as patched:
        patched.setattr(data, "region_of", lambda column: column.removesuffix("_MW"))
        gatedcells("--data", folder, "--out", tmp_path / "run", *SMALL)
        gatedcells("day-ahead", "--data", folder, "--out", tmp_path / "day", "--lookback", "30", *SMALL)
    return folder, tmp_path


def test_runs_of_before_go_on(before):
    folder, runs = before
    metrics = json.loads((runs / "run" / "metrics.json").read_text())
    assert set(metrics["models"]["GRU"]["by_region"]) == {"aep_mw", "DOM"}
    gatedcells("predict", runs / "run", "--data", folder / "aep.csv", "--out", runs / "next.csv")
    gatedcells("--resume", runs / "run")
    assert json.loads((runs / "run" / "metrics.json").read_text())["models"] == metrics["models"]
    gatedcells("report", runs / "run", "--out", runs / "report.html")
    assert day_of_load(runs / "run", region="aep_mw").name == "aep_mw, gru"
    assert day_of_load(runs / "run", data=folder / "aep.csv").name == "aep_mw, gru"
    shutil.rmtree(runs / "run" / "gru")
    gatedcells("--resume", runs / "run")
    assert json.loads((runs / "run" / "scales.json").read_text()).keys() == {"aep_mw", "DOM"}
    day = json.loads((runs / "day" / "day_ahead.json").read_text())
    gatedcells("day-ahead", "--data", folder, "--out", runs / "day", "--lookback", "30", *SMALL)
    assert json.loads((runs / "day" / "day_ahead.json").read_text()) == day
    gatedcells("apply", runs / "day" / "forecaster", "--out", runs / "apply.csv")


def test_runs_of_now_call_the_region_by_its_name(before):
    folder, runs = before
    gatedcells("--data", folder, "--out", runs / "new", *SMALL)
    found, old = (json.loads((runs / name / "metrics.json").read_text()) for name in ("new", "run"))
    now, then = (one["models"]["GRU"]["by_region"] for one in (found, old))
    assert set(now) == {"aep", "DOM"}
    assert np.isfinite(now["aep"]["smape"])
    gatedcells("predict", runs / "new", "--data", folder / "aep.csv", "--out", runs / "next.csv")
    assert (runs / "next.csv").read_text().startswith("Datetime,aep_MW,")
    assert set(then) == {"aep_mw", "DOM"}
