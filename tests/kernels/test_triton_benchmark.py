"""The program that will time Triton's kernels on a GPU, run without one at a toy size."""

import pytest
import torch

from benchmarks import gpu
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


def test_the_grid_has_two_layers_and_two_directions_at_its_middle():
    grid = list(gpu.cases(["gru"], ["inference"], ("bfloat16",), gpu.GRID))
    assert len(grid) == 3 * 5 * 6 + 2 * 6
    assert {(case.layers, case.bidirectional) for case in grid} == {(1, False), (2, False), (1, True)}
