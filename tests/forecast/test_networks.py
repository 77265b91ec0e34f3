"""The fast recipe's networks: precision, the head, several together."""

import pytest
import torch

from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import BestRecipe
from gatedcells.forecast.networks import ChangeNetwork


def test_a_recurrence_in_bfloat16_keeps_its_weights_and_forecasts_in_float32(small_regions):
    torch.manual_seed(1)
    half, full = (ChangeNetwork("gru", 9, 8, precision) for precision in ("bfloat16", "float32"))
    full.load_state_dict(half.state_dict())
    x = torch.randn(20, 3, 9)
    (found, state), (expected, _) = half(x), full(x)
    assert found.dtype == torch.float32
    assert state.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert 0 < (found - expected).abs().max() < 2**-5  # 8 states, 2^-7 off, by at most 1/4
    step, _ = half.step(x[0], state)
    assert step.dtype == torch.float32
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in half.parameters())
    with pytest.raises(ForecastError, match="precision must be one of float32, bfloat16, got 'int8'"):
        ChangeNetwork("gru", 9, 8, "int8")


def test_the_best_recipe_trains_several_such_networks(small_regions):
    recipe = BestRecipe(hidden_size=6, steps=2, chunk_hours=48, batch_size=2)
    task = FastTask(recipe, small_regions)
    forecaster = task.forecaster()
    loss = task.loss(forecaster.network.train(), 0, torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert recipe.neighbours
    assert all(member.out is not None for member in forecaster.network.members)


def test_the_head_is_a_straight_line_and_a_hidden_layer_beside_it():
    torch.manual_seed(2)
    network = ChangeNetwork("gru", 9, 8, head_size=5).double()
    x = torch.randn(7, 3, 9, dtype=torch.float64)
    read = torch.cat([network.rnn(x)[0], x], dim=-1)
    straight = read @ network.head.weight[0] + network.head.bias
    torch.testing.assert_close(network(x)[0], straight)  # as it starts
    network.out.weight.data.normal_()
    hidden = (read @ network.bent.weight.T + network.bent.bias).clamp(min=0)
    torch.testing.assert_close(network(x)[0], straight + hidden @ network.out.weight[0])
    network(x)[0].square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())
    _, state = network(x[:-1])
    torch.testing.assert_close(network.step(x[-1], state)[0], network(x)[0][-1])


def test_a_head_without_units_has_the_weights_of_before():
    of_rnn = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"]
    assert list(ChangeNetwork("gru", 9, 8).state_dict()) == [*of_rnn, "head.weight", "head.bias"]


def test_a_head_in_bfloat16_rounds_its_hidden_layer_and_gives_float32():
    torch.manual_seed(3)
    network = ChangeNetwork("lstm", 9, 8, "bfloat16", 6)
    torch.nn.init.constant_(network.out.weight, 0.5)
    x = torch.randn(20, 3, 9)
    found = network(x)[0]
    assert found.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        read = torch.cat([network.rnn(x)[0].float(), x], dim=-1)
    straight = network.head(read).squeeze(-1)
    weight, bias, rounded = (t.bfloat16().double() for t in (network.bent.weight, network.bent.bias, read))
    before = rounded @ weight.T + bias
    expected = straight + 0.5 * before.clamp(min=0).sum(dim=-1)
    # each unit is rounded to bfloat16 once, or twice where the bias is added apart
    limit = 0.5 * (2 * 2**-8 * (before.abs() + bias.abs())).sum(dim=-1) + 1e-6
    assert ((found - expected).abs() <= limit).all()
    assert not torch.allclose(found.double(), expected, rtol=0, atol=1e-6)
