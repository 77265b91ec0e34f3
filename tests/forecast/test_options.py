"""What is said on the command line is done, or refused in a line."""

import pytest
from click.testing import CliRunner

from gatedcells.cli import main

SMALL = ["--steps", "3", "--hidden-size", "4", "--threads", "1"]


def refused(*arguments):
    done = CliRunner().invoke(main, ["forecast", *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    return done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("before", "command", "words"),
    [
        (["--data", "load"], "backtest", "--data belongs behind backtest: main forecast backtest --data ..."),
        (["--tz", "UTC"], "fit", "--tz belongs behind fit: main forecast fit --tz ..."),
        (["--stamp", "ending"], "fit", "--stamp belongs behind fit"),  # also the default
        (["--threads", "1"], "fit", "--threads belongs behind fit"),
        (["--holidays", "DE"], "fit", "--holidays belongs behind fit"),
        (["--no-neighbours"], "day-ahead", "--neighbours is no option of day-ahead: leave it out"),
        (["--resume", "run"], "predict", "--resume is no option of predict: leave it out"),
        (["--out", "x.html"], "report", "--out belongs behind report"),
        (["--lightgbm", "3"], "backtest", "--lightgbm belongs behind backtest"),
    ],
)
def test_an_option_before_a_command_is_refused_with_its_place(before, command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEDCELLS_DATA", str(tmp_path))  # without data, were it looked for
    assert words in refused(*before, command, "--out", "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--seed", "--threads"])
@pytest.mark.parametrize("command", [(), ("backtest",), ("day-ahead",)])
def test_a_number_that_torch_cannot_take_is_refused(command, option, small_folder, tmp_path):
    said = refused(*command, "--data", small_folder, "--out", tmp_path / "out", *SMALL, option, "9" * 23)
    assert f"Invalid value for '{option}': {'9' * 23} is not in the range" in said
    assert not (tmp_path / "out").exists()
