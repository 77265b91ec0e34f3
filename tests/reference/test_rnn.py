"""The plain network is torch's."""

import torch
from torch import nn
from torch.nn.functional import linear

from gatedcells.reference import rnn


def test_the_states_are_those_of_torchs_rnn():
    torch.manual_seed(0)
    theirs = nn.RNN(3, 5, dtype=torch.float64)
    x, h = torch.randn(7, 2, 3, dtype=torch.float64), torch.randn(1, 2, 5, dtype=torch.float64)
    projection = linear(x, theirs.weight_ih_l0, theirs.bias_ih_l0)
    steps = [now for _, now in rnn.iterate(projection, h[0], theirs.weight_hh_l0, theirs.bias_hh_l0)]
    output, _ = theirs(x, h)
    torch.testing.assert_close(torch.stack([now.hidden for now in steps]), output, rtol=0, atol=1e-15)
    assert torch.equal(steps[3].hidden, torch.tanh(steps[3].x_hidden + steps[3].h_hidden))
