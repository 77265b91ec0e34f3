"""How parameters and states begin: ``init=``, ``learn_h0=``, `detach_state`."""

import copy
import math
import pickle

import pytest
import torch

import gatedcells
from gatedcells import LSTMState, detach_state
from gatedcells.testing import assert_close_in_float64
from tests.support.inputs import OURS, TORCHS


@pytest.fixture
def backend():
    """Instead of this folder's fixture: nothing here depends on who computes, but where it is said."""


def seeded(name, *sizes, **options):
    torch.manual_seed(4)
    return OURS[name](*sizes, **options)


def blocks(layer, parameter):
    gates = (
        ("reset", "update", "candidate")
        if layer.mode == "GRU"
        else ("input", "forget", "candidate", "output")
    )
    return dict(zip(gates, getattr(layer, parameter).detach().chunk(len(gates)), strict=True))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_orthogonal_blocks_are_orthogonal_and_the_rest_is_as_documented(name):
    layer = seeded(name, 400, 300, init="orthogonal", bidirectional=True)
    for suffix in ("_l0", "_l0_reverse"):
        for block in blocks(layer, f"weight_hh{suffix}").values():
            torch.testing.assert_close(block @ block.T, torch.eye(300), rtol=0, atol=1e-5)
        bound = math.sqrt(6 / 700)
        for block in blocks(layer, f"weight_ih{suffix}").values():
            # of 120000 draws from U(-a, a) the largest is within 0.1% of a but with probability 1e-52
            assert 0.999 * bound < block.abs().max() <= bound
            assert abs(block.square().mean() / (bound**2 / 3) - 1) < 0.02  # 7 standard deviations
        for bias in ("bias_ih", "bias_hh"):
            for gate, block in blocks(layer, bias + suffix).items():
                one = gate == "forget" and bias == "bias_ih"
                assert torch.equal(block, torch.full((300,), float(one)))


def test_forget_sets_one_bias_of_the_two_that_are_added():
    plain, layer = seeded("LSTM", 3, 5), seeded("LSTM", 3, 5, init="forget")
    for name in ("bias_ih_l0", "bias_hh_l0"):
        ours, theirs = blocks(layer, name), blocks(plain, name)
        assert torch.equal(ours.pop("forget"), torch.full((5,), float("ih" in name)))
        assert all(torch.equal(block, theirs[gate]) for gate, block in ours.items())
    assert torch.equal(layer.weight_hh_l0, plain.weight_hh_l0)
    output, _, steps = layer(torch.zeros(1, 1, 3), return_gates=True)
    assert output.shape == (1, 1, 5)
    torch.testing.assert_close(steps["forget"].flatten(), torch.full((5,), 1 / (1 + math.exp(-1))))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_chrono_biases_are_logarithms_of_uniform_lags(name):
    layer = seeded(name, 2, 4000, init="chrono", t_max=784)
    given, other = blocks(layer, "bias_ih_l0"), blocks(layer, "bias_hh_l0")
    keeps = "update" if name == "GRU" else "forget"
    lags = given[keeps].double().exp()
    assert lags.min() >= 1 - 1e-6
    assert lags.max() <= 783 * (1 + 1e-6)
    # mean and variance of U(1, 783) within 5 standard deviations of 4000 draws
    assert abs(lags.mean() - 392) < 5 * (782 / math.sqrt(12)) / math.sqrt(4000)
    assert abs(lags.var() / (782**2 / 12) - 1) < 5 * math.sqrt(0.8 / 4000)
    assert torch.equal(other[keeps], torch.zeros(4000))
    if name == "LSTM":
        assert torch.equal(given["input"], -given["forget"])
        assert torch.equal(other["input"], torch.zeros(4000))
    bound = 1 / math.sqrt(4000)
    assert given["candidate"].abs().max() <= bound
    assert layer.weight_hh_l0.abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("init", ["orthogonal", "chrono"])
def test_parameters_are_drawn_anew_the_same_under_one_seed(init, dtype):
    options = {"init": init, "dtype": dtype, "t_max": 9 if init == "chrono" else None}
    layer, twin = (seeded("GRU", 3, 4, **options) for _ in range(2))
    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    layer.reset_parameters()
    assert not torch.equal(layer.weight_hh_l0, twin.weight_hh_l0)
    assert repr(layer).endswith(f"init={init!r}, t_max=9)" if init == "chrono" else f"init={init!r})")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("GRU", {"init": "forget"}, "one of 'torch', 'orthogonal', 'chrono', got 'forget'"),
        ("LSTM", {"init": "he"}, "init of the LSTM must be one of 'torch', 'orthogonal', 'forget', 'chrono'"),
        (
            "LSTM",
            {"init": "forget", "bias": False},
            "init='forget' sets biases, so it needs bias=True, got bias=False",
        ),
        ("GRU", {"init": "chrono"}, "needs t_max, the longest dependency in steps, got t_max=None"),
        ("GRU", {"t_max": 4}, "init='torch' takes no t_max, got t_max=4"),
        ("GRU", {"init": "chrono", "t_max": 1}, "t_max must be at least 2 steps, got 1"),
    ],
)  # fmt: skip
def test_what_cannot_begin_so_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        OURS[name](3, 4, **options)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("who", ["auto", "reference"])
def test_learnt_initial_states_are_those_of_calls_that_give_none(name, who):
    options = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64}
    layer = seeded(name, 3, 4, learn_h0=True, backend=who, **options)
    plain = seeded(name, 3, 4, backend=who, **options)
    extra = ["h_0", "c_0"][: 1 + (name == "LSTM")]
    assert list(layer.state_dict()) == [*plain.state_dict(), *extra]
    for parameter, twin in zip(layer.parameters(), plain.parameters(), strict=False):
        assert torch.equal(parameter, twin)
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    assert torch.equal(layer(x)[0], plain(x)[0])  # zeros at first
    with torch.no_grad():
        for key in extra:
            getattr(layer, key).normal_()
    given = tuple(
        getattr(layer, key).detach()[:, None].expand(-1, 3, -1).clone().requires_grad_() for key in extra
    )
    found, exact = layer(x)[0], plain(x, given[0] if name == "GRU" else given)[0]
    assert_close_in_float64(found, exact)
    for one, many in zip(
        torch.autograd.grad(found.square().sum(), [getattr(layer, key) for key in extra]),
        torch.autograd.grad(exact.square().sum(), given),
        strict=True,
    ):
        assert_close_in_float64(one, many.sum(1))
    zeros = tuple(torch.zeros_like(part) for part in given)
    assert_close_in_float64(layer(x, zeros[0] if name == "GRU" else zeros)[0], plain(x)[0])
    assert_close_in_float64(layer(x[:, 0])[0], found[:, 0])  # unbatched
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x)[0], found)
    with torch.no_grad():
        assert_close_in_float64(layer(x)[0], found)


def test_learnt_initial_states_begin_streams_too_and_old_weights_load():
    layer = seeded("GRU", 3, 4, learn_h0=True)
    missing = layer.load_state_dict(TORCHS["GRU"](3, 4).state_dict(), strict=False).missing_keys
    assert missing == ["h_0"]
    with torch.no_grad():
        layer.h_0.fill_(0.5)
        x = torch.randn(4, 2, 3)
        state = None
        for x_t in x:
            output, state = layer.step(x_t, state)
        torch.testing.assert_close(output, layer(x)[0][-1])
    assert repr(layer) == "GRU(3, 4, learn_h0=True)"


def test_a_detached_state_has_its_values_its_structure_and_no_history():
    lstm = gatedcells.LSTM(3, 4)
    _, state = lstm(torch.randn(5, 2, 3))
    found = detach_state(state)
    assert type(found) is tuple
    for new, old in zip(found, state, strict=True):
        assert torch.equal(new, old)
        assert not new.requires_grad
    named = detach_state({"a": [LSTMState(*state)], "b": None})
    assert type(named["a"][0]) is LSTMState
    assert named["b"] is None
    assert not named["a"][0].cell.requires_grad
    with pytest.raises(TypeError, match="state must be made of tensors, tuples, lists and dicts, got float"):
        detach_state((state, 1.0))


def test_truncated_backpropagation_is_the_gradient_of_each_chunk_alone():
    torch.manual_seed(0)
    gru = gatedcells.GRU(3, 4, dtype=torch.float64)
    x, state, total = torch.randn(6, 2, 3, dtype=torch.float64), None, []
    for chunk in x.split(2):
        output, state = gru(chunk, detach_state(state))
        total.append(torch.autograd.grad(output.sum(), gru.parameters(), retain_graph=True))
    begins = [None, *(gru(x[:n])[1].detach() for n in (2, 4))]
    for chunk, begin, found in zip(x.split(2), begins, total, strict=True):
        for f, e in zip(
            found, torch.autograd.grad(gru(chunk, begin)[0].sum(), gru.parameters()), strict=True
        ):
            assert_close_in_float64(f, e)


def test_a_layer_pickled_before_there_were_options_computes_as_it_did():
    layer = gatedcells.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    for name in ("options", "init", "t_max", "learn_h0", "precision", "_gate_hooks"):
        del layer.__dict__[name]
    old = pickle.loads(pickle.dumps(layer))
    assert torch.equal(old(x)[0], expected)
    assert repr(old) == "LSTM(3, 4)"
    old.reset_parameters()
    assert not torch.equal(old(x)[0], expected)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_resets_do_not_begin_from_zeros_where_the_beginning_is_learnt(name):
    layer = OURS[name](3, 4, learn_h0=True)
    x, resets = torch.randn(7, 1, 3), torch.zeros(7, 1, dtype=torch.bool)
    resets[5] = True
    with pytest.raises(
        ValueError, match="resets restart from zeros, not from the initial states that learn_h0"
    ):
        layer(x, resets=resets)
    layer(x, mask=~resets)
