"""The program that will time Triton's kernels on a GPU, run without one at a toy size."""

import csv

import pytest
import torch

from benchmarks import gpu, records
from tests.support.triton_device import device as device

CASE = gpu.GPUCase("gru", "training", 3, 2, 20, 2, True, "float32")


def test_a_case_yields_a_row_for_us_and_for_torch(device):
    rows = gpu.measure(CASE, device, [])
    assert {"gatedcells", "torch"} <= {row["who"] for row in rows}
    assert all(row["p50_ms"] > 0 and row["H"] == 20 for row in rows)
    assert rows[0]["kernel"].startswith("whole: chosen")


def test_nothing_is_timed_that_is_wrong(device):
    ours, theirs = CASE.modules(device)
    x = CASE.input(device)
    gpu.gate(CASE, ours, theirs, x)
    with torch.no_grad():
        ours.weight_hh_l1[0, 0] += 0.1
    with pytest.raises(AssertionError, match="allowed"):
        gpu.gate(CASE, ours, theirs, x)


def test_a_case_that_is_wrong_costs_the_others_nothing(monkeypatch, tmp_path, capsys):
    def measure(case, device, peers):
        if case.H == 128:
            raise AssertionError("error 2, allowed 1")
        return [case._asdict() | {"who": who, "p50_ms": 1.0} for who in ("gatedcells", "torch")]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(records, "certificate", lambda: {"date": "2026-01-01", "device": "a GPU"})
    monkeypatch.setattr(records, "RESULTS", None)
    monkeypatch.setattr(gpu, "measure", measure)
    asked = ["--op", "gru", "--mode", "inference", "--quick", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="not as exact as torch and not timed: 20 cases"):
        gpu.main(["--device", "cuda", *asked])
    (file,) = tmp_path.glob("*.csv")
    written = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    assert {int(row["H"]) for row in written} == {256, 512, 1024}
    assert len(written) == 2 * 60
    assert "NOT TIMED, error 2, allowed 1" in " ".join(capsys.readouterr().out.split())


def test_what_compiles_first_runs_a_case_of_few_steps(device, monkeypatch):
    seen = []
    monkeypatch.setattr(gpu, "numbers", lambda *given: seen.append(given))
    gpu._run_once(CASE._replace(T=500, precision="tf32"), device)
    ((case, ours, x),) = seen
    assert (case.T, x.shape, ours.backend) == (2, (2, 2, 20), "triton")
    assert not torch.backends.cuda.matmul.allow_tf32


def test_without_git_a_row_says_that_its_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert records.certificate()["commit"] == "unknown"


def test_the_grid_has_two_layers_and_two_directions_at_its_middle():
    grid = list(gpu.cases(["gru"], ["inference"], ("bfloat16",), gpu.GRID))
    assert len(grid) == 3 * 5 * 6 + 2 * 6
    assert {(case.layers, case.bidirectional) for case in grid} == {(1, False), (2, False), (1, True)}
