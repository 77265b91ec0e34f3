"""``gatedcells step`` without a terminal: text, JSON and a page, and what it says to what it cannot do."""

import io
import json
import math
import sys

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

import gatedcells
from gatedcells.cli import main
from gatedcells.forecast.data import Clock, read_file
from gatedcells.forecast.fast import table_of
from gatedcells.forecast.runs import RunFolder
from gatedcells.step import scenes
from gatedcells.step.app import StepApp
from gatedcells.step.errors import StepError
from gatedcells.step.session import Quiz, Session


def run(*arguments, status=0):
    done = CliRunner().invoke(main, ["step", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return done.stdout if status == 0 else done.stderr


def as_json(*arguments):
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize("name", [*scenes.PRESETS, "random"])
def test_every_preset_is_what_torch_computes(name):
    for t in range(-1, 6):
        found = as_json(name, "--t", t)
        assert 0 <= found["deviation_from_torch"] < 1e-14
        assert len(found["equations"]) == (7 if found["kind"] == "LSTM" else 4)
    lstm = as_json("random", "--cell", "lstm", "--seed", 4)
    assert lstm["kind"] == "LSTM"


def test_the_latch_keeps_what_was_written():
    hidden = [as_json("latch", "--t", t)["values"]["hidden"][0] for t in range(8)]
    update = [as_json("latch", "--t", t)["values"]["update"][0] for t in range(8)]
    assert [round(z) for z in update] == [1, 0, 1, 1, 1, 0, 1, 1]
    assert abs(hidden[0]) < 0.01
    assert all(h > 0.97 for h in hidden[1:5])
    assert all(h < -0.97 for h in hidden[5:])


def test_the_reset_gate_lets_the_last_lines_of_the_review_decide():
    steps = [as_json("reset-on-marker", "--t", t) for t in range(6)]
    hidden = [step["values"]["hidden"][0] for step in steps]
    assert [round(step["values"]["reset"][0]) for step in steps] == [1, 1, 1, 0, 1, 1]
    assert hidden[2] > 0.6
    assert abs(hidden[3]) < 0.01
    assert hidden[5] < -0.5
    assert steps[3]["reads"] == "But after all that:"
    # without its reset gate the praise would be remembered at the marker
    scene = scenes.reset_on_marker()
    with torch.no_grad():
        scene.layer.weight_ih_l0[0] = 0.0
    assert Session(scene).now["candidate"][3, 0, 0] > 0.5


def test_the_counter_counts():
    cells = [as_json("counter", "--t", t)["values"]["cell"][0] for t in range(8)]
    assert cells == pytest.approx([1, 1, 2, 3, 3, 0, 1, 1], abs=0.01)


def test_text_says_what_json_says():
    text, found = run("random", "--t", 3, "--unit", 2, "--plain", "--backward"), as_json("random", "--t", 3)
    for name, values in found["values"].items():
        assert any(line.startswith(f"{name} ") and f"{values[2]:.4f}" in line for line in text.splitlines())
    assert "t = 3 of 0 to 11, unit 2 of 0 to 3" in text
    assert "max |gatedcells - nn.GRU| = " in text
    assert "backward, L = h[2] after the last step" in text
    assert run("random", "--t", 3) == run("random", "--t", 3, "--plain"), "no terminal, no program"


def test_gradients_are_autograds():
    session = Session(scenes.drawn("lstm"))
    session.go(t=4, unit=1)
    gradients, straight, reaches = session.gradients()
    trace = session.network.trace(session.x, retain_grad=True)
    trace.output[-1, 0, 1].backward()
    for name, value in gradients.items():
        assert value == pytest.approx(float(trace[0].gradient(name)[4, 0, 1]), rel=1e-12), name
    forget = trace[0]["forget"][4, 0, 1].item()
    assert straight == pytest.approx(gradients["cell"] * forget)
    assert reaches == pytest.approx(float(trace[0].gradient("cell")[3, 0, 1]))


def test_the_other_convention_is_a_toggle_away():
    session = Session(scenes.drawn("gru"))
    before = session.trace.output
    difference = session.difference
    assert difference > 1e-3
    session.toggle()
    assert session.deviation is None
    assert float((session.trace.output - before).abs().max()) == difference
    assert session.difference == difference
    session.toggle()
    assert torch.equal(session.trace.output, before)
    with pytest.raises(StepError, match="the convention needs a GRU, got an LSTM, which has no reset gate"):
        Session(scenes.counter()).toggle()


def test_a_changed_number_changes_what_follows_and_is_taken_back():
    session = Session(scenes.drawn("gru"))
    before = session.trace.output
    session.go(t=5)
    session.edit("x 1 = 2.5")
    assert torch.equal(session.trace.output[:5], before[:5])
    assert not torch.equal(session.trace.output[5:], before[5:])
    session.edit("weight_hh[3, 2] = -0.25")
    session.edit("bias_ih 0 = 1e-1")
    assert session.network.weight_hh_l0[3, 2].item() == -0.25
    assert session.deviation < 1e-14, "torch is given the changed numbers too"
    assert session.edits == ["x[1] = 2.5 at t = 5", "weight_hh[3, 2] = -0.25", "bias_ih[0] = 0.1"]
    session.edit("weight_hh 3 2 15")  # a change may do without its sign
    assert session.network.weight_hh_l0[3, 2].item() == 15
    session.undo()
    assert torch.equal(session.trace.output, before)
    for text, said in {
        "x 9 = 1": r"x is \[3\]: there is no x 9", "weight_hh 1 = 2": r"weight_hh is \[12, 4\]: there is no",
        "weight_xx 1 2 = 2": "there is no weight_xx; there are x, weight_ih, weight_hh, bias_ih, bias_hh",
        "x -1 = 2": "there is no x -1",
        "three": "expected something like", "x 0 = ": "expected something like",
        "x 0 = 1e": "expected something like", "x 12": "expected something like",
        "weight_hh 2 15": r"weight_hh is \[12, 4\]: there is no weight_hh 2",
    }.items():  # fmt: skip
        with pytest.raises(StepError, match=said):
            session.edit(text)
    assert torch.equal(session.trace.output, before)


def test_a_quiz_takes_what_is_near_enough():
    session = Session(scenes.drawn("gru"))
    value = float(session.now["update"][0, 0, 0])
    quiz = Quiz(session, "update")
    assert quiz.answer(f"{value + 0.009:.6f}").startswith("right: update is")
    assert quiz.answer(f"{value + 0.02:.6f}").startswith("not quite")
    with pytest.raises(StepError, match="expected a number, got 'half'"):
        quiz.answer("half")


@pytest.mark.parametrize(
    "layer",
    [
        nn.GRU(3, 4),
        nn.GRU(3, 4, 2, bias=False, bidirectional=True),
        nn.LSTM(3, 4),
        nn.LSTM(3, 4, 2, proj_size=2),
    ],
    ids=["gru", "gru, two layers, both ways, no bias", "lstm", "lstm, two layers, projection"],
)
def test_somebodys_own_weights_are_stepped_through(layer, tmp_path):
    save_file(layer.state_dict(), tmp_path / "mine.safetensors")
    (tmp_path / "x.csv").write_text("a,b,c\n1,2,3\n\n0.5,-1,2e-1\n")
    found = as_json("--weights", tmp_path / "mine.safetensors", "--input", tmp_path / "x.csv", "--t", 1)
    assert found["kind"] == layer.mode
    assert list(found["input"].values()) == [0.5, -1, 0.2]
    output, _ = layer.double()(torch.tensor([[[1.0, 2, 3]], [[0.5, -1, 0.2]]], dtype=torch.float64))
    last = layer.num_layers - 1
    found = as_json("--weights", tmp_path / "mine.safetensors", "--input", tmp_path / "x.csv",
                    "--t", 1, "--layer", last)  # fmt: skip
    assert found["values"]["hidden"] == pytest.approx(
        output[1, 0, : len(found["values"]["hidden"])].tolist(), abs=1e-12
    )
    before = as_json("--weights", tmp_path / "mine.safetensors", "--reset-before")
    assert before["reset_after"] is (layer.mode == "LSTM")


def test_a_projected_state_is_named_by_the_unit_that_is_shown(tmp_path):
    torch.manual_seed(0)
    save_file(nn.LSTM(3, 40, proj_size=2).state_dict(), tmp_path / "mine.safetensors")
    options = ("--weights", tmp_path / "mine.safetensors", "--unit", 36, "--t", 5)
    text = run(*options, "--plain", "--backward")
    values = as_json(*options)["values"]
    for name in ("hidden", "found_hidden"):
        assert f"\n{name + '[1]':<16}{values[name][1]:>8.4f} " in text
    assert "L = h[1] after the last step" in text
    assert "dL/d hidden[1] " in text
    assert "\nhidden " not in text
    assert "units 8 to 39" in text
    (bars,) = [line for line in text.splitlines() if line.startswith("x_forget")]
    assert bars.count("[") == 1, "the unit itself is among the bars"


def test_a_dumb_terminal_gets_the_step_as_text(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(StepApp, "run", lambda self: pytest.fail("it moves a cursor that there is not"))
    main(["step", "latch"], standalone_mode=False)
    assert "t = 0 of 0 to 7" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_page_is_written(tmp_path):
    assert run("counter", "--html", tmp_path / "page.html") == f"Written: {tmp_path / 'page.html'}\n"
    assert "<title>Step by step: counter</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_numbers_that_are_none_are_null(tmp_path):
    save_file(nn.GRU(1, 2).state_dict(), tmp_path / "mine.safetensors")
    (tmp_path / "x.csv").write_text("1\nnan\n")
    found = as_json("--weights", tmp_path / "mine.safetensors", "--input", tmp_path / "x.csv", "--t", 1)
    assert found["values"]["hidden"] == [None, None]
    assert "nan" in run("--weights", tmp_path / "mine.safetensors", "--input", tmp_path / "x.csv", "--t", 1)


def test_what_cannot_be_done_is_said_in_a_line(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    save_file(
        {"weight_ih_l0": torch.zeros(5, 2), "weight_hh_l0": torch.zeros(5, 2)}, tmp_path / "odd.safetensors"
    )
    save_file(nn.GRU(2, 3).state_dict(), tmp_path / "gru.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not this")
    (tmp_path / "x.csv").write_text("1,2\n1,two\n")
    (tmp_path / "narrow.csv").write_text("1\n")
    (tmp_path / "empty.csv").write_text("a,b\n")
    gru = ("--weights", tmp_path / "gru.safetensors")
    cases = {
        ("latch", "--t", 8): "--t must lie in -8..7, got 8",
        ("latch", "--unit", 1): "--unit must lie in 0..0, got 1",
        ("latch", "--direction", 1): "--direction must lie in 0..0",
        ("latch", *gru): "choose only one of a preset, --weights and --run",
        ("latch", "--cell", "lstm"): "--cell goes with the preset random and with --run",
        ("--input", "x.csv"): "--input goes with --weights",
        ("latch", "--hour", "2018"): "--hour goes with --run",
        ("--weights", tmp_path / "none.safetensors"): "none.safetensors",
        ("--weights", tmp_path / "broken.safetensors"): "broken.safetensors",
        ("--weights", tmp_path / "other.safetensors"): "expected weight_ih_l0 and weight_hh_l0",
        ("--weights", tmp_path / "odd.safetensors"): "or [4H, H] (an LSTM), got [5, 2]",
        (*gru, "--input", tmp_path / "x.csv"): "line 2: expected 2 numbers, found '1,two'",
        (*gru, "--input", tmp_path / "narrow.csv"): "line 1: expected 2 numbers, found 1",
        (*gru, "--input", tmp_path / "empty.csv"): "has no line of numbers",
        ("--run", tmp_path / "none"): "no such file; expected a run folder",
        ("latch", "--html", tmp_path / "x.csv" / "page.html"): "cannot be written",
    }  # fmt: skip
    for arguments, said in cases.items():
        error = run(*arguments, status=2)
        assert error.startswith("gatedcells step: "), error
        assert said in error, (arguments, error)
        assert error.count("\n") == 1


def test_a_forecaster_is_stepped_through_over_a_day(tmp_path):
    hours = 24 * 60
    loads = [1000 + 200 * math.sin(h / 24 * 2 * math.pi) + h % 7 for h in range(hours)]
    stamps = pd.date_range("2020-01-01 01:00", periods=hours, freq="h")
    rows = [f"{stamp:%Y-%m-%d %H:%M:%S},{load:.1f}" for stamp, load in zip(stamps, loads, strict=True)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "TOY_hourly.csv").write_text("Datetime,TOY_MW\n" + "\n".join(rows) + "\n")
    made = CliRunner().invoke(
        main,
        ["forecast", "--data", str(tmp_path / "data"), "--cell", "gru", "--hidden-size", "5", "--steps", "3",
         "--batch-size", "2", "--tz", "UTC", "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    hour = "2020-02-10 12:00"
    found = as_json("--run", tmp_path / "run", "--hour", hour, "--t", -1)
    assert found["scene"] == "TOY, gru"
    position = list(stamps).index(pd.Timestamp(hour))
    assert found["reads"] == f"{stamps[position]:%a %H:%M} {loads[position]:,.0f} MW"
    assert found["deviation_from_torch"] < 1e-14
    assert len(found["input"]) == len(set(found["input"]))
    assert "TOY" in found["input"]
    # the day is the one in the forecaster's own pass over all hours: same state at its end
    folder = RunFolder(tmp_path / "run")
    forecaster, _ = folder.forecaster(folder.config(), "gru")
    series = read_file(tmp_path / "data" / "TOY_hourly.csv", Clock("UTC", "ending"))
    table = table_of(forecaster.recipe, forecaster.scales, series, series.load_mw, 0, position + 1)
    with torch.no_grad():
        hidden, _ = forecaster.network.double().rnn(
            table.inputs(torch.arange(position + 1)[:, None]).double()
        )
    assert found["values"]["hidden"] == pytest.approx(hidden[-1, 0].tolist(), abs=1e-5)
    error = run("--run", tmp_path / "run", "--hour", "2031-01-01 00:00", status=2)
    assert "has no hour 2031-01-01 00:00; it has 2020-01-01 01:00 to" in error
    assert "region NOWHERE is not one the run was trained on (TOY)" in run(
        "--run", tmp_path / "run", "--region", "NOWHERE", status=2
    )
    assert "--hour must be like" in run("--run", tmp_path / "run", "--hour", "noon-ish", status=2)
    assert isinstance(forecaster.network.rnn, gatedcells.GRU)
