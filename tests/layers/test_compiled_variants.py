"""Layer normalisation, zoneout and the like under torch.compile: one operator at any T, the same numbers."""

import pytest
import torch

from gatedcells.functional import gru_sequence, lstm_sequence
from gatedcells.reference.variants import Variant
from gatedcells.testing import assert_close_in_float64
from tests.support.inputs import OURS

H, I, B = 4, 3, 3
OPTIONS = {
    "GRU": {"layer_norm": True, "zoneout": 0.2, "recurrent_dropout": 0.3},
    "LSTM": {"layer_norm": True, "peephole": True, "zoneout": (0.1, 0.0), "state_dropout": 0.3},
}


@pytest.fixture
def backend():
    """Instead of this folder's fixture: only the reference computes these."""


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def layer_of(name, **options):
    torch.manual_seed(0)
    return OURS[name](I, H, bidirectional=True, dtype=torch.float64, **(options or OPTIONS[name]))


def nodes_of(layer, T):
    """How many nodes dynamo's graph has for a sequence of T steps."""
    counted = []

    def count(graph, _):
        counted.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    torch.compile(layer, fullgraph=True, backend=count)(torch.randn(T, B, I, dtype=torch.float64))
    (found,) = counted
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_the_graph_does_not_grow_with_T(name, training):
    layer = layer_of(name).train(training)
    assert nodes_of(layer, 2) == nodes_of(layer, 31)


def test_a_gate_hook_is_still_called_at_every_step():
    layer = layer_of("GRU").eval()
    layer.register_gate_hook("update", lambda gate, at: gate * (0.5 if at.t == 1 else 1.0))
    assert nodes_of(layer, 6) > nodes_of(layer, 2)
    x = torch.randn(6, B, I, dtype=torch.float64)
    torch._dynamo.reset()
    assert_close_in_float64(torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0], layer(x)[0])


@pytest.mark.parametrize("share", [0, 1, 0.25])
def test_a_share_of_zoneout_may_be_a_whole_number(share):
    layer = layer_of("LSTM", zoneout=(share, 0.5)).eval()
    x = torch.randn(3, B, I, dtype=torch.float64)
    assert_close_in_float64(torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0], layer(x)[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_values_and_gradients_are_those_of_eager_mode(name, training):
    layer = layer_of(name).train(training)
    x = torch.randn(6, B, I, dtype=torch.float64)
    resets = torch.zeros(6, B, dtype=torch.bool)
    resets[3, 1] = True
    lengths = torch.tensor([6, 0, 4])
    outcomes = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(2)
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        output, last = run(leaf, resets=resets, lengths=lengths)
        tensors = [output, *(last if isinstance(last, tuple) else (last,))]
        sum((t * torch.arange(1, t.numel() + 1).view_as(t)).sum() for t in tensors).backward()
        outcomes.append([*tensors, leaf.grad, *(p.grad.clone() for p in layer.parameters())])
    for eager, compiled in zip(*outcomes, strict=True):
        assert_close_in_float64(compiled, eager)


def test_under_autocast_it_compiles_as_before():
    layer = layer_of("GRU", layer_norm=True).float()
    x = torch.randn(4, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        exact = layer(x)[0]
        found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact)


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_operators_are_what_they_say(reverse):
    torch.manual_seed(0)
    T = 3
    kept = torch.rand(T, B, H) < 0.3
    gru = {
        "input": random(T, B, I), "hidden": random(B, H), "weight_ih": random(3 * H, I),
        "weight_hh": random(3 * H, H), "bias_hh": random(3 * H), "gain_hh": random(3 * H), "kept_0": kept,
    }  # fmt: skip
    lstm = {
        "input": random(T, B, I), "hidden": random(B, H), "cell": random(B, H), "weight_ih": random(4 * H, I),
        "weight_hh": random(4 * H, H), "peephole": random(3, H), "written": torch.rand(T, B, H).double(),
    }  # fmt: skip
    lengths, resets = torch.tensor([3, 1, 0]), torch.rand(T, B) < 0.3
    for cell, named, shares in (("GRU", gru, [-1.0, -1.0]), ("LSTM", lstm, [-1.0, 0.25])):
        given = [*named.values()], ",".join(named), shares, lengths, resets, cell, reverse, True
        torch.library.opcheck(torch.ops.gatedcells.variant_sequence.default, given)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_functions_with_masks_of_ones_own_compile_to_the_same(name):
    torch.manual_seed(0)
    T, G = 5, 3 if name == "GRU" else 4
    variant = Variant(read=torch.rand(B, H).double(), kept=(torch.rand(T, B, H) < 0.5, 0.25))
    x, h = random(T, B, I), random(B, H)
    weights = random(G * H, I), random(G * H, H)
    function = gru_sequence if name == "GRU" else lstm_sequence

    def run(x):
        found = function(x, h if name == "GRU" else (h, h), *weights, variant=variant, reverse=True)
        return found[0], *(found[1] if name == "LSTM" else found[1:])

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for ours, exact in zip(compiled(x), run(x), strict=True):
        assert_close_in_float64(ours, exact)
        (slope,) = torch.autograd.grad(ours.square().sum(), x, retain_graph=True)
        assert_close_in_float64(slope, torch.autograd.grad(exact.square().sum(), x, retain_graph=True)[0])
