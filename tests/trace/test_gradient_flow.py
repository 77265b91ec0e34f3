"""What is said of gradients on their way back through time is what autograd computes."""

import pytest
import torch
from torch import nn

import gatedcells
from gatedcells.reference import gru


class OnesOwn(gatedcells.Cell):
    def step(self, x_t, h):
        return torch.tanh(h + x_t.sum(-1, keepdim=True))


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(12, 3, 4, dtype=torch.float64)


def test_the_norms_are_autograds(x):
    layer = gatedcells.GRU(4, 5, dtype=torch.float64)
    flow = gatedcells.gradient_flow(x, {"mine": layer}, loss=lambda output: output[-1].square().sum())
    state, states = torch.zeros(3, 5, dtype=torch.float64), []
    for now in x:
        projection = torch.nn.functional.linear(now, layer.weight_ih_l0, layer.bias_ih_l0)
        state = gru.step(projection, state, layer.weight_hh_l0, layer.bias_hh_l0).hidden
        state.retain_grad()
        states.append(state)
    states[-1].square().sum().backward()
    expected = torch.stack([s.grad.norm(dim=-1).mean() for s in states])
    torch.testing.assert_close(flow.flows["mine"].norms["hidden"], expected, rtol=1e-12, atol=0)
    weights = torch.stack([p.grad.norm() for p in layer.parameters()]).norm()
    assert flow.flows["mine"].of_weights == pytest.approx(float(weights), rel=1e-12)


def test_a_networks_own_gradients_stay_as_they_are(x):
    layer = gatedcells.LSTM(4, 5, num_layers=2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        flow = gatedcells.gradient_flow(x, {"mine": layer})
    assert all(p.grad is None for p in layer.parameters())
    assert flow.flows["mine"].norms["cell"].shape == (12,)


def test_the_last_gradient_is_one_and_no_cut_one_is_longer_than_the_clip(x):
    flow = gatedcells.gradient_flow(x, gain=6.0, clip=0.25)
    assert list(flow.flows) == ["RNN", "GRU", "LSTM"]
    for one in flow.flows.values():
        assert float(one.norms["hidden"][-1]) == pytest.approx(1)
        for cut in one.clipped.values():
            assert float(cut.max()) <= 0.25 + 1e-12
        assert one.of_weights_clipped < one.of_weights
    rnn = flow.flows["RNN"].norms["hidden"]
    assert float(rnn[0]) > 5 * float(rnn[-1]), "with a gain of 6 the plain network's gradient explodes"


def test_an_infinite_clip_cuts_nothing(x):
    for flow in gatedcells.gradient_flow(x, clip=float("inf")).flows.values():
        assert flow.of_weights_clipped == flow.of_weights > 0
        for state, norms in flow.norms.items():
            assert torch.equal(flow.clipped[state], norms)


def test_a_wide_clip_changes_nothing(x):
    for one in gatedcells.gradient_flow(x, clip=1e6).flows.values():
        for state, norms in one.norms.items():
            assert torch.equal(norms, one.clipped[state])
        assert one.of_weights == one.of_weights_clipped


def test_the_straight_way_is_the_product_of_the_update_gates(x):
    layer = gatedcells.GRU(4, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()  # no way back but through z
    flow = gatedcells.gradient_flow(x, {"mine": layer}).flows["mine"]
    torch.testing.assert_close(flow.straight, flow.norms["hidden"], rtol=1e-12, atol=0)
    assert float(flow.straight[0]) < float(flow.straight[-1])


def test_an_open_gate_carries_a_gradient_that_the_plain_network_loses(x):
    shut, open_ = (gatedcells.gradient_flow(x, gate_bias=bias).flows for bias in (0.0, 4.0))
    for name in ("GRU", "LSTM"):
        last = float(open_[name].straight[-1])
        assert float(open_[name].straight[0]) > 0.5 * last
        assert float(shut[name].straight[0]) < 0.01 * last
    assert float(open_["GRU"].norms["hidden"][0]) > 0.1 > 1e-2 > float(open_["RNN"].norms["hidden"][0])
    assert torch.equal(open_["RNN"].norms["hidden"], shut["RNN"].norms["hidden"])


def test_what_cannot_be_traced_is_refused(x):
    with pytest.raises(
        TypeError, match=r"theirs must be a gatedcells.GRU or LSTM, got GRU: load its state_dict"
    ):
        gatedcells.gradient_flow(x, {"theirs": nn.GRU(4, 5)})
    for mine in (gatedcells.Recurrent(OnesOwn, 4, 5), nn.Linear(4, 5)):
        said = rf"mine must be a gatedcells.GRU or LSTM, got {type(mine).__name__}$"
        with pytest.raises(TypeError, match=said):
            gatedcells.gradient_flow(x, {"mine": mine})
    with pytest.raises(ValueError, match=r"input must be \[T, B, I\] with T and B at least 1, got \[3, 4\]"):
        gatedcells.gradient_flow(x[0])
    with pytest.raises(ValueError, match="clip must be greater than 0, got 0"):
        gatedcells.gradient_flow(x, clip=0)


def test_a_table_and_a_figure_come_of_it(x, tmp_path):
    flow = gatedcells.gradient_flow(x)
    assert [line.split()[:2] for line in str(flow).splitlines()[1:]] == [
        ["RNN", "hidden"], ["GRU", "hidden"], ["LSTM", "hidden"], ["LSTM", "cell"]
    ]  # fmt: skip
    figure = flow.plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    drawn = figure.axes[0].lines[1].get_ydata()
    assert drawn == pytest.approx(flow.flows["GRU"].norms["hidden"].tolist())


def test_a_network_with_dropout_is_looked_at_under_the_same_masks_before_and_after_clipping(x):
    torch.manual_seed(0)
    network = gatedcells.GRU(4, 5, dtype=torch.float64, recurrent_dropout=0.5, state_dropout=0.3)
    flow = gatedcells.gradient_flow(x, {"GRU": network}, clip=1e9).flows["GRU"]
    assert torch.equal(flow.norms["hidden"], flow.clipped["hidden"])


def test_what_is_drawn_goes_with_another_default_device(x):
    expected = gatedcells.gradient_flow(x).flows["LSTM"].norms["hidden"]
    with torch.device("meta"):
        found = gatedcells.gradient_flow(x).flows["LSTM"].norms["hidden"]
    assert torch.equal(found, expected)
