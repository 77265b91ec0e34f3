"""Backtests and day-ahead runs where something is in the way: a full disk, other data, another forecaster."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast.begun import differences
from gatedcells.forecast.console import guarded
from gatedcells.forecast.data import read_folder
from gatedcells.forecast.errors import ForecastError

ROOT = Path(__file__).parent.parent.parent
SMALL = ("--steps", 3, "--hidden-size", 4, "--threads", 1)
COMMANDS = {
    "backtest": ("backtest", "--folds", 2, "--span", 60, *SMALL),
    "day-ahead": ("day-ahead", "--lookback", 24, "--batch-size", 4, *SMALL),
}
LAST = {"backtest": "backtest.json", "day-ahead": "day_ahead.json"}
each_command = pytest.mark.parametrize("command", COMMANDS)


def forecast(command, data, out, *others, status=0):
    arguments = (*COMMANDS[command], "--data", data, "--out", out, *others)
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)])
    assert done.exit_code == status, (done.output, done.exception)
    assert status == 0 or isinstance(done.exception, SystemExit)
    return done.output


def results(folder):
    """What a folder holds, without the time that it took and the digests of files that hold that."""

    def plain(content):
        if isinstance(content, dict):
            return {name: plain(one) for name, one in content.items() if "seconds" not in name}
        return content

    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".csv"))
    names = [path.relative_to(folder).as_posix() for path in files if path.name != "forecaster.json"]
    texts = [(folder / name).read_text() for name in names]
    read = zip(names, texts, strict=True)
    return {name: plain(json.loads(text)) if name.endswith("json") else text for name, text in read}


@each_command
def test_stopped_by_a_full_disk_at_every_file_it_ends_with_the_results_of_an_undisturbed_one(
    command, small_folder, tmp_path, monkeypatch
):
    forecast(command, small_folder, tmp_path / "whole")
    replace, room = os.replace, [0]

    def full(one, other):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(one))
        room[0] -= 1
        replace(one, other)

    stops = 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        while not (
            tmp_path / "often" / {"backtest": "backtest.json"}.get(command, "day_ahead.json")
        ).exists():
            room[0] = stops
            arguments = [*COMMANDS[command], "--data", small_folder, "--out", tmp_path / "often"]
            done = CliRunner().invoke(main, ["forecast", *map(str, arguments)])
            if done.exit_code:
                assert done.exit_code == 2, done.output
                assert "cannot be written" in done.output
                assert not list((tmp_path / "often").rglob(".*"))
            stops += 1
            assert stops < 12
    assert stops >= 4
    forecast(command, small_folder, tmp_path / "often")
    assert results(tmp_path / "often") == results(tmp_path / "whole")


@each_command
def test_it_goes_on_where_the_data_have_been_moved(command, small_folder, tmp_path):
    shutil.copytree(small_folder, tmp_path / "moved")
    forecast(command, small_folder, tmp_path / "out")
    forecast(command, tmp_path / "moved", tmp_path / "out")
    (tmp_path / "moved" / "DOM_hourly.csv").unlink()
    with (tmp_path / "moved" / "AEP_hourly.csv").open("a") as file:
        file.write("\n")
    said = forecast(command, tmp_path / "moved", tmp_path / "out", status=2)
    assert "other settings or data (AEP_hourly.csv has changed, DOM_hourly.csv is gone); choose" in said


@each_command
def test_the_settings_that_differ_are_named(command, small_folder, tmp_path):
    forecast(command, small_folder, tmp_path / "out")
    before = results(tmp_path / "out")
    said = forecast(command, small_folder, tmp_path / "out", "--seed", 4, "--cell", "lstm", status=2)
    assert 'cell was "gru", is "lstm"' in said
    assert "seed was 0, is 4" in said
    assert results(tmp_path / "out") == before


def test_of_many_differences_the_first_three_are_named():
    before, given = dict.fromkeys("abcd", 0), dict.fromkeys("abcd", 1) | {"d": "x" * 99}
    assert differences(before, given) == " (a was 0, is 1, b was 0, is 1, c was 0, is 1, ...)"
    assert differences({"a": "x" * 99}, {}) == ' (a was "' + "x" * 39 + ", is null)"
    assert differences([], given) == ""


@pytest.mark.parametrize("option", [("--hidden-size", 5), ("--seed", 7), ("--lookback", 30)])
def test_another_forecaster_in_a_day_ahead_run_is_refused(option, small_folder, tmp_path):
    forecast("day-ahead", small_folder, tmp_path / "out")
    forecast("day-ahead", small_folder, tmp_path / "other", *option)
    shutil.rmtree(tmp_path / "out" / "forecaster")
    shutil.copytree(tmp_path / "other" / "forecaster", tmp_path / "out" / "forecaster")
    said = forecast("day-ahead", small_folder, tmp_path / "out", status=2)
    assert f"has other settings than its run ({option[0][2:].replace('-', '_')} was {option[1]}, is" in said


def test_a_forecaster_of_another_horizon_in_a_day_ahead_run_is_refused(small_folder, tmp_path):
    forecast("day-ahead", small_folder, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "forecaster")
    fit = ("fit", small_folder / "AEP_hourly.csv", "--time-col", "Datetime", "--horizon", 6, "--steps", 2,
           "--tz", "America/New_York", "--stamp", "ending")  # fmt: skip
    place = tmp_path / "out" / "forecaster"
    done = CliRunner().invoke(main, ["forecast", *map(str, fit), "--out", str(place)])
    assert done.exit_code == 0, done.output
    assert "has other settings than its run (" in forecast(
        "day-ahead", small_folder, tmp_path / "out", status=2
    )


def test_hidden_files_beside_load_files_are_no_load_files(small_folder, tmp_path):
    shutil.copytree(small_folder, tmp_path / "data")
    (tmp_path / "data" / "._AEP_hourly.csv").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    found = [one.region for one in read_folder(tmp_path / "data")]
    assert found == [one.region for one in read_folder(small_folder)]


@pytest.mark.skipif(os.name != "posix", reason="links are not everyone's to make here")
@pytest.mark.parametrize("target", ["gone.csv", "PJMW_hourly.csv"])
def test_a_load_file_that_is_a_link_to_nothing_is_named(target, small_folder, tmp_path):
    shutil.copytree(small_folder, tmp_path / "data")
    (tmp_path / "data" / "notes.txt").symlink_to("gone.txt")
    assert len(read_folder(tmp_path / "data")) == 2
    (tmp_path / "data" / "PJMW_hourly.csv").symlink_to(target)
    with pytest.raises(ForecastError, match=f"PJMW_hourly.csv: is a link to {target}, where nothing is"):
        read_folder(tmp_path / "data")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_stdout_is_a_line_and_status_2(small_folder, tmp_path):
    arguments = (*COMMANDS["backtest"], "--data", small_folder, "--out", tmp_path / "out")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", "from gatedcells.cli import main; main()", "forecast",
             *map(str, arguments)],
            stdout=full, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        )  # fmt: skip
    assert done.stderr == f"gatedcells forecast: stdout or a file: {os.strerror(errno.ENOSPC)}\n"
    assert done.returncode == 2


def test_a_path_that_may_not_be_looked_at_is_a_line_and_status_2(capsys):
    def refused():
        raise PermissionError(errno.EACCES, "Permission denied", "locked/load")

    with pytest.raises(SystemExit) as ended:
        guarded(refused)
    said = "gatedcells forecast: locked/load: Permission denied\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, said)


@each_command
def test_a_folder_whose_name_is_too_long_is_refused(command, small_folder, tmp_path):
    assert "long" in forecast(command, small_folder, tmp_path / ("x" * 300), status=2)


def test_a_reader_that_went_away_is_left_to_click():
    def unread():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        guarded(unread)
