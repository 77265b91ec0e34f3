"""``gatedcells forecast`` from end to end on small files, and every way that it is used wrongly."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from gatedcells.cli import main
from gatedcells.forecast.data import read_file
from tests.support.load_files import eastern_stamps, made_up_load, write_file
from tests.support.triton_device import without_interpreter as without_interpreter

PAGE = Path(__file__).parents[2] / "docs" / "forecasting.md"
SMALL = ["--steps", "20", "--batch-size", "8", "--hidden-size", "8", "--threads", "1"]


def gatedcells(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], env={"COLUMNS": "80"})


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEDCELLS_DATA", raising=False)


@pytest.fixture(scope="module")
def finished(small_folder, tmp_path_factory):
    """A finished run of both cells, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    result = gatedcells("forecast", "--data", small_folder, "--out", run, *SMALL)
    assert result.exit_code == 0, result.output
    return run, result.output


def test_a_run_prints_the_table_and_writes_the_folder(finished):
    run, output = finished
    for words in (
        "2 file(s) in", "What the files hold", "training windows", "sMAPE % by region",
        "Forecasting the next hour: fast recipe", "GRU", "LSTM", "persistence", "same hour yesterday",
        "same hour last week", "day-and-week ratio", "ridge, 168 lags", "Run folder:",
        "Hours inside their interval, %", "mean width, %",
    ):  # fmt: skip
        assert words in output
    assert "published" not in output  # the article's scores are for the article's data
    assert max(len(line) for line in output.splitlines() if "/" not in line) <= 80
    assert {p.name for p in run.iterdir()} == {
        "config.json", "scales.json", "calibration.json", "metrics.json", "gru", "lstm", "test_forecasts.csv",
        "predicted_vs_actual.png", "all_regions.png", "report.html",
    }  # fmt: skip
    assert not list(run.rglob("checkpoint*"))


def test_metrics_and_forecasts_agree_with_the_printed_table(finished, small_regions):
    run, output = finished
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["models"])[:2] == ["GRU", "LSTM"]
    mean = metrics["models"]["GRU"]["mean"]
    row = next(line for line in output.splitlines() if line.startswith(" GRU "))
    assert row.split()[1:4] == [f"{mean['smape']:.3f}", f"{mean['smape'] / 4:.3f}", f"{mean['mae_mw']:.1f}"]
    with (run / "test_forecasts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(r.test) for r in small_regions) == metrics["windows"]["test"]
    errors = [
        abs(float(r["gru_mw"]) - float(r["actual_mw"])) / ((float(r["gru_mw"]) + float(r["actual_mw"])) / 2)
        for r in rows
        if r["region"] == "AEP"
    ]
    by_region = metrics["models"]["GRU"]["by_region"]["AEP"]["smape"]
    assert 100 * sum(errors) / len(errors) == pytest.approx(by_region, abs=0.02)


def test_plots_are_pictures(finished):
    run, _ = finished
    for name in ("predicted_vs_actual.png", "all_regions.png"):
        content = (run / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 20_000


def test_a_finished_run_can_be_shown_again_without_training(finished, small_folder):
    run, _ = finished
    before = (run / "gru" / "weights.safetensors").stat().st_mtime_ns
    checkpoint = run / "gru" / "checkpoint.safetensors"
    checkpoint.write_text("")  # as of a run that was stopped right behind the weights
    result = gatedcells("forecast", "--resume", run)
    assert result.exit_code == 0, result.output
    assert "Forecasting the next hour" in result.output
    assert (run / "gru" / "weights.safetensors").stat().st_mtime_ns == before
    assert not checkpoint.exists()


def test_predict_forecasts_the_hours_after_a_file(finished, small_folder, tmp_path):
    run, _ = finished
    out = tmp_path / "next.csv"
    result = gatedcells(
        "forecast", "predict", run, "--data", small_folder / "AEP_hourly.csv", "--hours", 30, "--out", out
    )
    assert result.exit_code == 0, result.output
    assert "sMAPE" in result.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    last = eastern_stamps("2016-09-01 04:00", 24 * 60)[-1]
    stamps = eastern_stamps("2016-09-01 04:00", 24 * 60 + 30)[-30:]
    assert stamps[0] > last
    assert [r["Datetime"] for r in rows] == [str(s) for s in stamps]
    assert all(300 < float(r["AEP_MW"]) < 900 for r in rows)
    assert set(rows[0]) == {"Datetime", "AEP_MW", "utc_start"}
    back, known = read_file(out), read_file(small_folder / "AEP_hourly.csv")
    assert back.region == "AEP"
    assert back.first_hour == known.first_hour + pd.Timedelta(hours=len(known.load_mw))
    np.testing.assert_array_equal(back.load_mw, [float(r["AEP_MW"]) for r in rows])
    both = pd.concat([pd.read_csv(small_folder / "AEP_hourly.csv"), pd.read_csv(out)])
    both.to_csv(tmp_path / "both.csv", index=False)
    joined = read_file(tmp_path / "both.csv")
    np.testing.assert_array_equal(joined.load_mw, np.concatenate([known.load_mw, back.load_mw]))
    result = gatedcells(
        "forecast", "predict", run, "--data", small_folder / "DOM_hourly.csv", "--cell", "lstm"
    )
    assert "LSTM, MW" in result.output


def test_predict_says_what_it_filled(finished, tmp_path):
    run, _ = finished
    load = made_up_load(700)
    load[690] = float("nan")
    path = write_file(tmp_path, "DOM", eastern_stamps("2017-01-01", 700), load)
    result = gatedcells("forecast", "predict", run, "--data", path, "--hours", 1)
    assert "1 of the hours that the network looks back at are missing" in result.output


def test_an_unknown_region_is_named_and_can_be_said(finished, tmp_path):
    run, _ = finished
    path = write_file(tmp_path, "MARS", eastern_stamps("2017-01-01", 700), made_up_load(700))
    result = gatedcells("forecast", "predict", run, "--data", path)
    assert result.exit_code == 2
    assert (
        "region MARS is not one the run was trained on (AEP, DOM); --region says which it is" in result.output
    )
    assert gatedcells("forecast", "predict", run, "--data", path, "--region", "AEP").exit_code == 0


def test_the_articles_recipe_runs_and_says_what_as_published_means(small_folder):
    options = ["--epochs", 1, "--fraction", 0.05, "--hidden-size", 8, "--batch-size", 64, "--cell", "gru"]
    result = gatedcells("forecast", "--recipe", "article", "--data", small_folder, "--out", "a", *options)
    assert result.exit_code == 0, result.output
    assert "scales are fitted on all rows" not in result.output
    assert "article recipe" in result.output
    result = gatedcells("forecast", "--article", "--data", small_folder, "--out", "b", *options)
    assert result.exit_code == 0, result.output
    assert "scales are fitted on all rows, including the test part" in " ".join(result.output.split())
    assert json.loads(Path("b/config.json").read_text())["recipe"]["scaled_on"] == "all"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "."], "no CSV files; expected files with columns Datetime,<REGION>_MW"),
        (["--epochs", "3"], "--epochs belongs to the article recipe, not to fast"),
        (["--article", "--steps", "3"], "--steps belongs to the fast recipe, not to article"),
        (["--steps", "0"], "0 is not in the range x>=1"),
        (["--fraction", "0", "--recipe", "article"], "is not in the range"),
        (["--recipe", "quick"], "'quick' is not one of 'fast', 'best', 'article'"),
        (["--tz", "Mars/Olympus", "--data", "good"], "there is no time zone 'Mars/Olympus'"),
        (["--holidays", "MARS", "--data", "good"], "holidays of 'MARS' are not known"),
        (["--resume", "nowhere"], "config.json: no such file; expected a run folder"),
        (["--resume", "nowhere", "--seed", "3"], "a resumed run has its own settings; leave out --seed"),
        (["--data", "good", "--out", "good"], "good: exists already; choose another folder"),
        (["--data", "short"], "AEP_hourly.csv: 50 rows; expected at least 100"),
        (["--data", "bad"], "AEP_hourly.csv, line 4: AEP_MW is 'n/a?'; expected a number"),
        (["predict", "nowhere", "--data", "x.csv"], "config.json: no such file; expected a run folder"),
        (["predict", "nowhere"], "Missing option '--data'"),
    ],
)
def test_wrong_use_is_one_line_exit_status_two_and_nothing_half_written(
    small_folder, tmp_path, arguments, words
):
    shutil.copytree(small_folder, "good")
    write_file(tmp_path / "short", "AEP", eastern_stamps("2016-01-01", 50), made_up_load(50))
    bad = made_up_load(500).astype(object)
    bad[2] = "n/a?"
    write_file(tmp_path / "bad", "AEP", eastern_stamps("2016-01-01", 500), bad)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    result = gatedcells("forecast", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if "short" not in arguments:
        assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("cell", ["2016-01-01 01:00:00,\x1b[31mred\n", "2016-01-01 01:00:00,5\n"])
@pytest.mark.parametrize("region", ["AEP", "\x1b[31mAEP"])
def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path, cell, region):
    (tmp_path / "AEP.csv").write_text(f"Datetime,{region}_MW\n{cell}")
    result = gatedcells("forecast", "--data", tmp_path)
    assert result.exit_code == 2
    assert "\x1b" not in result.output


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path):
    write_file(tmp_path / "[bold]", "[red]X", eastern_stamps("2016-01-01", 400), made_up_load(400), "x.csv")
    result = gatedcells("forecast", "--data", tmp_path / "[bold]", "--out", "run", "--cell", "gru", *SMALL)
    assert result.exit_code == 0, result.output
    assert "[red]X" in result.output
    assert "[bold]" in result.output


def test_other_data_or_another_run_format_is_refused_on_resume(finished, small_folder, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished[0], run)
    write_file(tmp_path / "other", "AEP", eastern_stamps("2016-01-01", 500), made_up_load(500))
    result = gatedcells("forecast", "--resume", run, "--data", tmp_path / "other")
    assert result.exit_code == 2
    assert "began with other data than" in result.output
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"format": 99}))
    for arguments in (["--resume", run], ["predict", run, "--data", small_folder / "AEP_hourly.csv"]):
        result = gatedcells("forecast", *arguments)
        assert result.exit_code == 2
        assert "is of format 99; this version of gatedcells reads format 1" in result.output


def test_offline_without_data_the_run_is_simulated_and_says_so_loudly(monkeypatch):
    from gatedcells.forecast import sources

    monkeypatch.setattr(sources, "download", lambda *_: "the network is away")
    result = gatedcells("forecast", "--cell", "gru", "--out", "run", *SMALL)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("SIMULATED DATA, not PJM's: the network is away.")
    assert "fast recipe, SIMULATED DATA" in result.output
    assert json.loads(Path("run/metrics.json").read_text())["data"] == "simulated"
    again = gatedcells("forecast", "--resume", "run")
    assert again.exit_code == 0, again.output
    assert "SIMULATED DATA" in again.output


@pytest.mark.parametrize("asked_by", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_asked_to_stop_it_does_between_steps_and_resume_ends_with_the_same_weights(
    asked_by, small_folder, tmp_path
):
    options = [
        "--data",
        small_folder,
        "--cell",
        "gru",
        "--threads",
        "1",
        "--steps",
        "150",
        "--hidden-size",
        "16",
    ]
    assert gatedcells("forecast", "--out", "whole", *options).exit_code == 0
    command = [
        sys.executable,
        "-c",
        "from gatedcells.cli import main; main()",
        "forecast",
        "--out",
        "stopped",
    ]
    process = subprocess.Popen([*command, *map(str, options)], stderr=subprocess.PIPE, text=True)
    weights = tmp_path / "stopped" / "gru" / "weights.safetensors"
    while not (tmp_path / "stopped" / "scales.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.4)
    process.send_signal(asked_by)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + asked_by, error
    assert "Go on with: gatedcells forecast --resume stopped" in error
    assert "Traceback" not in error
    if not weights.exists():
        assert (tmp_path / "stopped" / "gru" / "checkpoint.safetensors").exists()
    resumed = gatedcells("forecast", "--resume", "stopped")
    assert resumed.exit_code == 0, resumed.output
    a, b = (load_file(f"{name}/gru/weights.safetensors") for name in ("whole", "stopped"))
    assert all((a[name] == b[name]).all() for name in a)


def test_help_lists_every_command_and_doctor_answers():
    assert "doctor" in gatedcells("--help").output
    text = gatedcells("forecast", "--help").output
    assert "predict" in text
    assert "--resume" in text
    result = gatedcells("doctor")
    assert result.exit_code == 0
    kernels_run = "cpu        CHOSEN" in result.output
    assert kernels_run or ("cpu        cannot run" in result.output and "reference  CHOSEN" in result.output)
    assert "CPU kernels" in result.output
    assert gatedcells("--version").output.startswith("gatedcells, version 0.")


def test_the_doctor_answers_where_the_environment_names_no_backend(monkeypatch):
    monkeypatch.setenv("GATEDCELLS_BACKEND", "cuda")
    result = gatedcells("doctor")
    assert result.exit_code == 0, result.exception
    wrong = "GATEDCELLS_BACKEND must be one of 'auto', 'triton', 'cpu', 'reference', got 'cuda'"
    assert f"LSTM sequence on cpu: every call that requests no backend raises: {wrong}" in result.output
    assert "Backends usable on the CPU:" in result.output


@pytest.mark.parametrize(
    ("name", "said"), [("cuda", "GATEDCELLS_BACKEND must be one of"), ("triton", "needs a tensor on cuda")]
)
def test_a_backend_of_the_environment_that_cannot_train_is_said_in_a_line(
    name, said, small_folder, without_interpreter, monkeypatch
):
    monkeypatch.setenv("GATEDCELLS_BACKEND", name)
    result = gatedcells("forecast", "--data", small_folder, "--out", "run", "--cell", "gru", *SMALL)
    assert result.exit_code == 2, result.exception
    line = result.output[result.output.index("gatedcells forecast: ") :]
    assert line.startswith("gatedcells forecast: GATEDCELLS_BACKEND")
    assert said in line
    assert Path("run").exists() == (name == "triton")  # what is no backend is known before there is a folder


def test_the_pages_stream_goes_on_from_a_run_and_a_file(finished, small_folder):
    (code,) = re.findall(r"```text\n(from pathlib import Path\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    shutil.copytree(finished[0], "forecast-runs/RUN")
    shutil.copy(next(small_folder.glob("AEP*.csv")), "AEP_hourly.csv")
    names = {}
    exec(compile(code, "forecasting.md", "exec"), names)
    stream, (one,) = names["stream"], names["series"]
    assert stream.next_hour == one.first_hour + pd.Timedelta(hours=len(one.load_mw) + 1)
    assert stream.forecast_mw.keys() == {"AEP"}


def test_the_package_is_the_command_of_its_interpreter():
    done = subprocess.run([sys.executable, "-m", "gatedcells", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: gatedcells [OPTIONS] COMMAND")
