"""What docs/transforms.md says of torch's own layers and of two processes is what happens; of ours on one
process: tests/layers/test_transforms.py."""

import warnings

import pytest
import torch
import torch.distributed as dist

from tests.support import transforms, transforms_table, two_processes
from tests.support.inputs import OURS, TORCHS
from tests.support.outcomes import COLUMNS, outcome
from tests.support.transforms import TRANSFORMS
from tests.support.whole_modules import WHOLE_MODULES

of_torch_2_13 = pytest.mark.skipif(
    not torch.__version__.startswith("2.13."), reason="the page's columns for torch are those of torch 2.13"
)


@pytest.fixture(scope="module")
def page():
    return transforms_table.cells()


@of_torch_2_13
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("transform", [*TRANSFORMS, *WHOLE_MODULES], ids=lambda t: t.__name__)
def test_torchs_own_do_what_the_page_says(page, transform, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch about what it does slowly
        transforms_table.agrees(page[transform.__name__][f"torch.nn.{name}"], transform, TORCHS[name])


@of_torch_2_13
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
def test_two_processes_do_what_the_page_says(page, tmp_path):
    ways = {way.__name__ for way in two_processes.TWO_PROCESSES}
    assert two_processes.outcomes(tmp_path) == {name: row for name, row in page.items() if name in ways}


@pytest.mark.parametrize(
    ("cell", "cls"),
    [
        ("yes", TORCHS["GRU"]),
        ("no", TORCHS["GRU"]),
        ("no (`RuntimeError`)", OURS["GRU"]),
        ("no", OURS["GRU"]),
    ],
)
def test_a_wrong_cell_fails(cell, cls):
    with pytest.raises((AssertionError, RuntimeError)):
        transforms_table.agrees(cell, transforms.vmap_over_inputs, cls)


def test_a_row_too_many_or_too_few_fails(monkeypatch, tmp_path, page):
    text = transforms_table.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(transforms_table, "PAGE", tmp_path / "page.md")
    for wrong in (
        text.replace("| `pickle` |", "| `marshal` |"),
        text.replace("| `pickle` |", "| `copy.deepcopy` |"),
    ):
        transforms_table.PAGE.write_text(wrong, encoding="utf-8")
        with pytest.raises(ValueError, match="rows and ways differ: .*`pickle`"):
            transforms_table.cells()
    transforms_table.PAGE.write_text("no table", encoding="utf-8")
    with pytest.raises(ValueError, match="has lost the place of its table"):
        transforms_table.cells()


@pytest.mark.gpu
@pytest.mark.parametrize("transform", [transforms.double_backward, transforms.gradients_in_eval_mode])
@pytest.mark.parametrize("column", COLUMNS)
def test_on_a_gpu_ours_differentiate_where_cudnn_cannot(transform, column):
    with torch.device("cuda"):
        assert (outcome(transform, COLUMNS[column]) == "yes") == column.startswith("gatedcells")
