"""Programs that wait for each other, all of a grid at once in Triton's interpreter."""

import importlib
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch

from gatedcells_kernels.tape import Keep
from tests.support.cell_tensors import gru_tensors, lstm_tensors
from tests.support.triton_device import device as device
from tests.support.triton_device import tiles
from tests.support.triton_programs import programs_at_once

launch = pytest.importorskip("gatedcells_kernels.triton.launch")
triton = pytest.importorskip("gatedcells_kernels.triton.sequence")


@pytest.fixture(autouse=True)
def _in_the_interpreter(device):
    if device != "cpu":
        pytest.skip("a GPU runs a grid at once by itself: test_triton_on_a_gpu.py")


class Form(NamedTuple):
    """A cell, and where the kernels of its slices are."""

    cell: str
    forward: str
    backward: str
    reset_after: bool = True
    P: int = 0

    @property
    def visits(self):
        return 2 if self.P or not self.reset_after else 1


FORMS = {
    "GRU": Form("GRU", "gru_slices", "gru_slices"),
    "GRU, reset before": Form("GRU", "gru_before_slices", "gru_before_slices", reset_after=False),
    "LSTM": Form("LSTM", "lstm_slices", "lstm_slices"),
    "LSTM, projected": Form(
        "LSTM", "lstm_projected_slices", "lstm_projected_backward_slices", P=5
    ),
    "LSTM, widened": Form("LSTM", "lstm_projected_slices", "lstm_projected_backward_slices", P=19),
}  # fmt: skip


class Case:
    """Tensors of one direction, or of both stacked; ``H`` is 17: two slices of 16."""

    def __init__(self, form, T, B, both=False):
        torch.manual_seed(0)
        self.form, self.both = form, both

        def drawn():
            if form.cell == "GRU":
                return gru_tensors(T, B, 2, 17)
            return lstm_tensors(T, B, 2, 17, form.P)

        pairs = list(zip(drawn(), drawn(), strict=True))
        self.tensors = [
            None if one is None else torch.stack([one, other]).float() if both else one.float()
            for one, other in pairs
        ]
        if both:
            self.tensors[0] = self.tensors[0][0]
        self.lengths = torch.randint(0, T + 1, (B,))
        self.resets = torch.rand(2, T, B) < 0.3 if both else torch.rand(T, B) < 0.3
        # one row remembers everything
        self.lengths[0], self.resets[..., 0] = T, False

    def _call(self, cell, way):
        return getattr(triton, f"{cell.lower()}{'_both' if self.both else ''}_{way}")

    def _options(self):
        reverse = () if self.both else (False,)
        return (*reverse, self.form.reset_after) if self.form.cell == "GRU" else reverse

    def forward(self):
        """States and tape; of the LSTM the last cell state between them."""
        call = self._call(self.form.cell, "forward")
        return call(*self.tensors, self.lengths, self.resets, *self._options(), Keep.TAPE)

    def backward(self, states, *rest):
        tape, d_last = rest[-1], torch.ones_like(self.tensors[1])
        call = self._call(self.form.cell, "backward")
        if self.form.cell == "GRU":
            read = states, d_last, self.tensors[1], self.tensors[3]
        else:
            hidden, cell, _, weight_hh, *_, weight_hr = self.tensors[1:]
            read = states, d_last, rest[0], hidden, cell, weight_hh, weight_hr
        return call(*read, self.lengths, self.resets, states, tape, *self._options())


def in_slices(kernel, form):
    return tiles(kernel, launch.Entry(form.cell, "any", 32, "slices", 16, 16, 16, 4))


@pytest.mark.parametrize("form", list(FORMS.values())[:4], ids=list(FORMS)[:4])
def test_programs_that_meet_compute_the_bits_of_launches_one_after_another(form):
    case = Case(form, 2, 17, both=True)
    with in_slices("steps", form):
        expected = case.forward()
        expected += case.backward(*expected)
    with in_slices("slices", form), programs_at_once(seed=1):
        found = case.forward()
        found += case.backward(*found)
    for number, other in zip(found, expected, strict=True):
        assert torch.equal(number, other)


def waits_but_in(skipped, visits):
    """`wait_for` without the meeting of one visit of a step, for two slices."""

    def wait_for(counter, arrivals):
        if int(arrivals.handle.data.item()) // 2 % visits != skipped:
            honest(counter, arrivals)

    honest = importlib.import_module("gatedcells_kernels.triton.meeting").wait_for
    return wait_for


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_meeting_is_needed(form, way):
    """Left out, in some order a program reads what is not written; and who never arrives is waited for."""
    case = Case(form, 3, 2)
    with in_slices("steps", form):
        kept = case.forward()
        expected = kept if way == "forward" else case.backward(*kept)
    module = importlib.import_module(f"gatedcells_kernels.triton.{getattr(form, way)}")

    def is_right(seed):
        with in_slices("slices", form), programs_at_once(seed):
            found = case.forward() if way == "forward" else case.backward(*kept)
        return all(map(torch.equal, found, expected))

    assert is_right(1)
    for skipped in range(form.visits):
        with patch.object(module, "wait_for", waits_but_in(skipped, form.visits)):
            assert not all(is_right(seed) for seed in range(8)), f"visit {skipped}"
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    with (
        patch.object(module, "arrive", lambda counter: None),
        pytest.raises(interpreter.InterpreterError, match="2 programs wait for one another"),
    ):
        is_right(0)
