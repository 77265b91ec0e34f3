"""Heat maps show what was computed, and nothing beyond a row's length."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import gatedcells
from gatedcells.trace import plots


def test_each_gate_of_each_direction_is_drawn_from_the_trace(tmp_path):
    torch.manual_seed(0)
    layer = gatedcells.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    trace = layer.trace(pack_padded_sequence(torch.randn(6, 2, 3), torch.tensor([6, 4])))
    figure = trace.plot(tmp_path / "gates.svg", row=1)
    assert (tmp_path / "gates.svg").read_text().startswith("<?xml")
    images = [image for axis in figure.axes for image in axis.images]
    assert len(images) == 6 * 4
    forget = images[4].get_array()  # six rows of four columns
    assert forget.shape == (4, 6)
    assert np.isnan(forget.filled(np.nan)[:, 4:]).all()
    np.testing.assert_array_equal(forget[:, :4].T, trace[0, 0]["forget"][:4, 1].detach().double())
    with pytest.raises(IndexError, match=r"row must lie in 0..1, got 2"):
        trace.plot(row=2)


def test_a_figure_without_an_ending_is_a_png_of_that_name_and_nothing_is_left_beside_it(tmp_path):
    plots._written(plots._figure(1, 1), tmp_path / "gates")
    assert (tmp_path / "gates").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["gates"]
