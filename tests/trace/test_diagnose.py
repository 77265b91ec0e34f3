"""A step function is told which convention it follows, and where it leaves torch's."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import gatedcells
from gatedcells.reference import gru

CELL = nn.GRUCell(5, 4)
WEIGHTS = tuple(p.detach() for p in (CELL.weight_ih, CELL.weight_hh, CELL.bias_ih, CELL.bias_hh))


def halves(x, h, bias_ih=True, bias_hh=True):
    w_ih, w_hh, b_ih, b_hh = WEIGHTS
    xs = linear(x, w_ih, b_ih if bias_ih else None).chunk(3, -1)
    return xs, linear(h, w_hh, b_hh if bias_hh else None).chunk(3, -1)


def test_torchs_own_cells_are_torchs():
    found = gatedcells.diagnose(CELL, *WEIGHTS)
    assert found.agrees_with_torch
    assert found.departs_at is None
    assert str(found).startswith("this is torch's convention: gates in the order reset, update, candidate")
    cell = nn.LSTMCell(5, 4, bias=False)
    found = gatedcells.diagnose(lambda x, h, c: cell(x, (h, c)), cell.weight_ih, cell.weight_hh)
    assert found.agrees_with_torch


def test_the_other_reset_gate_is_recognised():
    def step(x, h):
        projection = linear(x, WEIGHTS[0], WEIGHTS[2])
        return gru.step(projection, h, WEIGHTS[1], WEIGHTS[3], reset_after=False).hidden

    found = gatedcells.diagnose(step, *WEIGHTS)
    assert not found.agrees_with_torch
    assert len(found.matches) == 1
    assert "reset gate before the matrix product" in found.matches[0]
    assert found.departs_at == "h_candidate"


def test_a_swapped_update_gate_is_recognised():
    def step(x, h):
        (xr, xz, xn), (hr, hz, hn) = halves(x, h)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return z * n + (1 - z) * h

    found = gatedcells.diagnose(step, *WEIGHTS)
    assert [m for m in found.matches if "h' = z * n + (1 - z) * h" in m] == list(found.matches)
    assert found.departs_at == "hidden"


def test_gates_in_another_order_are_recognised():
    def step(x, h):
        (xz, xr, xn), (hz, hr, hn) = halves(x, h)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return (1 - z) * n + z * h

    found = gatedcells.diagnose(step, *WEIGHTS)
    assert found.matches[0].startswith("gates in the order update, reset, candidate")
    assert found.departs_at == "x_reset"


def test_a_bias_that_was_left_out_is_recognised():
    def step(x, h):
        (xr, xz, xn), (hr, hz, hn) = halves(x, h, bias_hh=False)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return (1 - z) * n + z * h

    found = gatedcells.diagnose(step, *WEIGHTS)
    assert found.matches[0].endswith("bias_hh left out")
    assert found.departs_at == "h_reset"


def test_an_lstm_in_the_order_of_onnx_is_recognised():
    cell = nn.LSTMCell(5, 4)
    weights = [p.detach() for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]

    def step(x, h, c):
        i, o, f, g = (linear(x, weights[0], weights[2]) + linear(h, weights[1], weights[3])).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    found = gatedcells.diagnose(step, *weights)
    assert found.matches == ("gates in the order input, output, forget, candidate",)
    assert found.departs_at == "x_forget"


def test_something_else_is_not_taken_for_a_gru():
    found = gatedcells.diagnose(lambda x, h: torch.tanh(h), *WEIGHTS)
    assert found.matches == ()
    assert str(found).startswith("no known convention gives these numbers; the nearest, off by")


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match=r"weights must be \[3H, I\] and \[3H, H\]"):
        gatedcells.diagnose(CELL, WEIGHTS[0], WEIGHTS[1][:5])
    with pytest.raises(ValueError, match=r"step must return 1 state\(s\) of \[7, 4\], got \[\[7, 2\]\]"):
        gatedcells.diagnose(lambda x, h: h[:, :2], *WEIGHTS)
