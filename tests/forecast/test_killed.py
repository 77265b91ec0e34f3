"""Killed at any moment, or with no room left on the disk, a run's folder is never half of anything."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gatedcells._files import written_beside
from gatedcells.forecast import ForecastError, backtest_run, day_ahead_run, forecaster_files
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.runs import Config, RunFolder

BEGINNINGS = {
    "a run": lambda folder: RunFolder(folder).create(
        Config("fast", FastRecipe(), ("gru",), 0, 1, data={}, versions={})
    ),
    "a backtest": lambda folder: backtest_run._begin(folder, {"suited": "no"}),
    "a day-ahead run": lambda folder: day_ahead_run._begin(folder, {}),
    "a forecaster": forecaster_files.check_folder,
}
ROOT = Path(__file__).parent.parent.parent
OPTIONS = ["--cell", "gru", "--threads", "1", "--steps", "60", "--hidden-size", "8", "--batch-size", "8"]

# One import for all the runs: each is a child of this process, killed at a random moment, or left alone.
# Without weights a moment is counted in checkpoints, of which there is one a step: the machine may be slow.
DRIVER = """
import os, random, signal, sys, time
import matplotlib.pyplot, torch._dynamo  # which a run itself imports late
import gatedcells.forecast.training as training
from contextlib import suppress
from pathlib import Path
from gatedcells.cli import main
from gatedcells.forecast import pipeline
from gatedcells.forecast.files import read_json, read_tensors
from gatedcells.forecast.runs import RunFolder

training._CHECKPOINT_SECONDS = 0

def child(arguments):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(["forecast", *arguments], standalone_mode=False)
        os._exit(0)
    return pid

def readable(folder):
    config = RunFolder(folder).config()
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue  # what was being written beside
        if path.suffix == ".safetensors":
            tensors, notes = read_tensors(path)
            assert tensors and notes
        if path.suffix == ".json":
            read_json(path)
    return config

def ended(pid):
    done, status = os.waitpid(pid, os.WNOHANG)
    assert done == 0 or status == 0
    return done != 0

def after_checkpoints(pid, count):
    written = set()
    while len(written) <= count and not weights.exists():
        with suppress(FileNotFoundError):
            written.add(checkpoint.stat().st_mtime_ns)
        if ended(pid):
            return True
        time.sleep(0.0005)
    time.sleep(draw.uniform(0, 0.02))
    return ended(pid)

data, options = sys.argv[1], sys.argv[2:]
whole, killed = Path("whole"), Path("killed")
weights, checkpoint = (killed / "gru" / name for name in ("weights.safetensors", "checkpoint.safetensors"))
started = time.perf_counter()
_, status = os.waitpid(child(["--data", data, "--out", str(whole), *options]), 0)
lasts = time.perf_counter() - started
assert status == 0
draw = random.Random(0)
kills = resumed = trained = 0
while kills < 20:
    begun = (killed / "config.json").exists()
    if not begun and killed.exists():
        for path in killed.iterdir():
            assert path.name.startswith("."), path
            path.unlink()
    pid = child(["--resume", str(killed)] if begun else ["--data", data, "--out", str(killed), *options])
    if kills < 2 or weights.exists():
        time.sleep(draw.uniform(0, lasts if kills > 1 else lasts / 20))
        gone = ended(pid)
    else:
        gone = after_checkpoints(pid, draw.randint(1, 8))
    if not gone:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    kills += 1
    resumed += begun
    trained += checkpoint.exists() and not weights.exists()
    if (killed / "config.json").exists():
        readable(killed)
_, status = os.waitpid(child(["--resume", str(killed)]), 0)
assert status == 0
readable(killed)
print(kills, resumed, trained)
"""


@pytest.mark.parametrize("what", BEGINNINGS)
def test_where_the_first_file_of_a_folder_was_killed_the_same_command_begins_it(what, tmp_path):
    writing = written_beside(tmp_path / "config.json")
    writing.__enter__().write_text("{")
    BEGINNINGS[what](tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    (tmp_path / "settings.json").unlink(missing_ok=True)
    (tmp_path / "notes.txt").write_text("somebody's")
    with pytest.raises(ForecastError, match="exists already"):
        BEGINNINGS[what](tmp_path)


def test_killed_at_twenty_moments_a_run_ends_with_the_weights_of_an_undisturbed_one(small_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(small_folder), *OPTIONS],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "MPLBACKEND": "agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills, resumed, trained = map(int, done.stdout.split()[-3:])
    assert kills == 20

    assert resumed >= 10
    assert trained >= 3  # fell between two steps of the training, or into one
    undisturbed, survivor = (
        load_file(tmp_path / name / "gru" / "weights.safetensors") for name in ("whole", "killed")
    )
    assert undisturbed.keys() == survivor.keys()
    assert all((undisturbed[name] == survivor[name]).all() for name in undisturbed)
    for name in ("metrics.json", "test_forecasts.csv"):
        assert (tmp_path / "killed" / name).exists()
    ours, theirs = ((tmp_path / name / "test_forecasts.csv").read_bytes() for name in ("whole", "killed"))
    assert ours == theirs


def test_with_no_room_for_a_file_the_run_says_so_and_keeps_what_it_had(small_folder, tmp_path):
    pytest.importorskip("resource")
    script = textwrap.dedent(
        """
        import resource, sys
        from gatedcells.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # the settings fit, a checkpoint does not
        main()
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, "forecast", "--data", str(small_folder),
         "--out", "full", *OPTIONS],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("gatedcells forecast: ")
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    left = sorted(path.name for path in (tmp_path / "full").rglob("*") if path.is_file())
    assert left == ["config.json", "scales.json"]
