"""The programs of ``benchmarks``: asked for help they help, and what was timed is not lost."""

import csv
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import records, registry, run

PROGRAMS = sorted(
    path.stem
    for path in Path(run.__file__).parent.glob("*.py")
    if "    main()" in path.read_text(encoding="utf-8").partition("__main__")[2]
)
STEP = registry.Case("gru", "step", 1, 1, 3, 4)


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Two small cases to run, where their rows go, and a machine whose peaks nobody waits for."""
    monkeypatch.setattr(run, "cases", lambda *_: [STEP, STEP._replace(op="lstm")])
    monkeypatch.setattr(run, "peaks", lambda _: SimpleNamespace(gflops=1.0, gb_per_s=1.0))
    monkeypatch.setattr(run.torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")

    def written():
        files = list((tmp_path / "results").glob("*.csv"))
        return [row for file in files for row in csv.DictReader(file.read_text("utf-8").splitlines())]

    return written


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run", "--budget", "0.01", *arguments])
    run.main()


@pytest.mark.parametrize("name", PROGRAMS, ids="benchmarks.{}".format)
def test_a_program_reads_its_command_line(name):
    source = (Path(run.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    assert "parse_args(" in source


@pytest.mark.parametrize("name", ["compile_time", "import_time", "tables", "run"])
def test_help_is_printed_and_that_is_all(name, monkeypatch, capsys):
    program = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        program.main()
    assert capsys.readouterr().out.startswith("usage: ")


def test_what_was_timed_before_a_case_that_is_wrong_is_kept(rows, monkeypatch):
    def gate(case, _):
        if case.op == "lstm":
            raise AssertionError("not as exact")

    monkeypatch.setattr(run, "_gate", gate)
    with pytest.raises(AssertionError, match="not as exact"):
        call(monkeypatch, "--peer", "torch")
    assert [(row["op"], row["who"]) for row in rows()] == [("gru", "gatedcells"), ("gru", "torch")]


def test_a_case_that_no_peer_does_is_timed_alone(rows, monkeypatch, capsys):
    monkeypatch.setattr(run, "_gate", lambda *_: None)

    def never(_):
        raise registry.Unsupported

    monkeypatch.setattr(run, "_peer", lambda _: never)
    call(monkeypatch, "--peer", "onnxruntime")
    assert [row["who"] for row in rows()] == ["gatedcells"] * 2
    assert "no other" in capsys.readouterr().out


@pytest.mark.parametrize(
    "asked", [("--op", "rnn"), ("--mode", "infer"), ("--dtype", "float16"), ("--peer", "keras")]
)
def test_a_kind_of_case_that_there_is_not_is_refused(asked, rows, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *asked)
    assert f"argument {asked[0]}: must be of " in capsys.readouterr().err
    assert rows() == []


def test_a_gpu_that_there_is_not_is_said_however_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(run.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run", "--device=cuda"])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert "--device cuda: torch finds no CUDA device" in capsys.readouterr().err


def test_meetings_without_a_gpu_are_refused_in_a_line(monkeypatch, capsys):
    meetings = pytest.importorskip("benchmarks.meetings", reason="Triton")
    monkeypatch.setattr(meetings.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["meetings"])
    with pytest.raises(SystemExit, match="2"):
        meetings.main()
    assert "torch finds no CUDA device" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_said_in_a_line(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.onnx_runtime", raising=False)
    with pytest.raises(SystemExit, match=r"onnxruntime.*pip install -e '\.\[onnx\]'"):
        call(monkeypatch)
