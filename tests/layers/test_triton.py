"""Layers and cells on Triton's kernels: what they promise on every backend."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import gatedcells
from gatedcells.testing import assert_within_budget
from tests.support.inputs import OURS, Case, as_double, layer_cases, pair
from tests.support.run import everything, pooled
from tests.support.triton_device import device as device
from tests.support.triton_device import one_program

calls = pytest.importorskip("gatedcells_kernels.triton.calls")
launch = pytest.importorskip("gatedcells_kernels.triton.launch")


@pytest.fixture
def backend():
    """Instead of this folder's fixture, which runs a test on the other backends."""


@pytest.fixture
def there(device):
    """What a test makes is on the device."""
    with torch.device(device):
        yield device


def on_triton(module):
    module.backend = "triton"
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@settings(max_examples=15)
@given(case=layer_cases())
def test_layers_are_as_exact_as_torch(device, dtype, case: Case):
    case.options["dropout"] = 0.0  # one seed draws other masks in other precisions
    runs = {"ours": [], "torch": [], "exact": []}
    for seed in range(case.seed, case.seed + 3):
        drawn = replace(case, seed=seed)
        ours, theirs = (module.to(device) for module in drawn.modules(dtype))
        runs["ours"].append(everything(on_triton(ours), drawn, dtype, device=device))
        runs["torch"].append(everything(theirs, drawn, dtype, device=device))
        runs["exact"].append(everything(as_double(theirs), drawn, torch.float64, device=device))
    for kind in ("values", "gradients"):
        actual, rival, exact = (
            torch.cat([pooled(run, kind) for run in runs[who]]) for who in ("ours", "torch", "exact")
        )
        assert_within_budget(actual, exact=exact, rival=rival, name=kind)


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell"])
def test_cells_are_as_exact_as_torch(device, name):
    ours, theirs = (module.to(device) for module in pair(name, 5, 19))
    x = torch.randn(17, 5, device=device)
    found, rival, exact = (
        torch.cat([*torch.utils._pytree.tree_leaves(module(value))])
        for module, value in ((on_triton(ours), x), (theirs, x), (as_double(theirs), x.double()))
    )
    assert_within_budget(found, exact=exact, rival=rival)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_layer_compiles_as_one_graph_and_gives_the_same(device, name):
    layer = on_triton(OURS[name](3, 20, num_layers=2, bidirectional=True, device=device))
    x = torch.randn(4, 3, 3, device=device, requires_grad=True)
    torch._dynamo.reset()
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        x.grad = None
        output, _ = run(x)
        output.square().sum().backward()
        found = output.detach(), x.grad
        if run is layer:
            expected = found
    # the compiler sums the weights' gradients in another order
    for number, other in zip(found, expected, strict=True):
        torch.testing.assert_close(number, other)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_the_operators_are_what_torch_expects(there, keep):
    ops = torch.ops.gatedcells
    T, B, I, H = 3, 2, 2, 17
    x, h, c = torch.randn(T, B, I), torch.randn(B, H), torch.randn(B, H)
    gru = x, h, torch.randn(3 * H, I), torch.randn(3 * H, H) / 4, None, None
    torch.library.opcheck(ops.gru_sequence.default, (*gru, None, None, False, True, keep, "triton"))
    lstm = x, h, c, torch.randn(4 * H, I), torch.randn(4 * H, H) / 4, None, None, None
    torch.library.opcheck(ops.lstm_sequence.default, (*lstm, None, None, True, keep, "triton"))
    if keep == 1:  # from states that lie in another order in memory
        h, c = torch.randn(H, B).t(), torch.randn(H, B).t()
        states, last, last_cell, tape = ops.lstm_sequence(x, h, c, *lstm[3:], None, None, True, 1, "triton")
        read = states, last, last_cell, h, c, lstm[4], None, None, None, states, tape
        torch.library.opcheck(ops.lstm_sequence_backward.default, (*read, True, "triton"))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_second_derivatives_come_from_the_reference(there, name):
    layer = on_triton(OURS[name](2, 3))
    other = OURS[name](2, 3, backend="reference")
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 2, 2, requires_grad=True)
    found = []
    for module in (layer, other):
        (d,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(d.square().sum(), x)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("name", "options", "kernel"),
    [
        ("GRU", {}, "whole"),
        ("GRU", {"reset_after": False}, "slices"),
        ("LSTM", {}, "whole"),
        ("LSTM", {"proj_size": 5}, "slices"),
    ],
)
def test_recomputing_gives_the_same_gradients(there, name, options, kernel):
    given_, x = {}, torch.randn(5, 18, 3)
    for recompute in (False, True):
        torch.manual_seed(1)
        layer = on_triton(OURS[name](3, 17, recompute=recompute, **options))
        with one_program(name, 17) if (kernel, there) == ("slices", "cpu") else launch.prefer(kernel):
            layer(x)[0].square().sum().backward()
        given_[recompute] = [p.grad for p in layer.parameters()]
    for kept, recomputed in zip(given_[False], given_[True], strict=True):
        torch.testing.assert_close(recomputed, kept)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_without_gradients_its_kernels_keep_the_gates(there, name):
    layer, x = OURS[name](3, 17), torch.randn(4, 5, 3)
    with torch.no_grad():
        lengths = torch.tensor([4, 0, 2, 4, 1])
        rival = layer(x, lengths=lengths, return_gates=True)[2]
        found = on_triton(layer)(x, lengths=lengths, return_gates=True)[2]
        layer.backend = "reference"
        exact = layer.double()(x.double(), lengths=lengths, return_gates=True)[2]
    for what, values in exact.items():
        assert_within_budget(found[what], exact=values, rival=rival[what], name=what)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_dropout_draws_torchs_masks_and_eval_mode_has_gradients(device, name):
    """On a GPU torch's masks are cuDNN's own: there only eval mode is compared."""
    ours, theirs = (module.to(device) for module in pair(name, 3, 5, num_layers=3, dropout=0.4))
    on_triton(ours)
    x = torch.randn(4, 6, 3, device=device)
    for mode in (True, False) if device == "cpu" else (False,):
        found = []
        for module in (ours, theirs):
            torch.manual_seed(7)
            output, _ = module.train(mode)(x)
            found.append((output, *torch.autograd.grad(output.square().sum(), list(module.parameters()))))
        for number, other in zip(*found, strict=True):
            torch.testing.assert_close(number, other)


def test_forward_derivatives_are_refused_and_not_zero(there):
    layer = on_triton(gatedcells.GRU(2, 3))
    x = torch.randn(3, 2, 2)
    with pytest.raises(gatedcells.BackendUnavailable, match="needs plain torch"):
        torch.func.jvp(lambda x: layer(x)[0], (x,), (x,))
    with pytest.raises(gatedcells.BackendUnavailable, match="has kernels for float32, bfloat16, float16"):
        layer.double()(x.double())


def test_autocast_gives_its_dtype(there):
    layer = on_triton(gatedcells.LSTM(2, 3))
    with torch.autocast(there, torch.bfloat16):
        output, _ = layer(torch.randn(3, 2, 2))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert layer.weight_hh_l0.grad.dtype == torch.float32


def test_auto_leaves_the_interpreter_to_those_who_ask(device):
    if device != "cpu":
        pytest.skip("this is about the interpreter")
    x = torch.randn(3, 2, 2)
    layer = gatedcells.GRU(2, 100)
    said = gatedcells.explain_backend(layer, x)
    assert "triton     could run on request: Triton's interpreter executes it line by line" in said
    said = gatedcells.explain_backend(on_triton(layer), x)
    assert "triton     CHOSEN" in said
    assert "slices: 7 programs" in said
    assert said.endswith("steps: chosen, 16 rows by 16 units a program")
    for twice in (gatedcells.GRU(2, 100, reset_after=False), gatedcells.LSTM(2, 100, proj_size=30)):
        said = gatedcells.explain_backend(on_triton(twice), x)
        assert said.endswith("steps: chosen, 16 rows by 16 units a program, two launches a step")


def test_a_step_and_resets_run_on_it(there):
    torch.manual_seed(3)
    layer, theirs = (module.to(there) for module in pair("GRU", 2, 5))
    on_triton(layer)
    x = torch.randn(4, 3, 2)
    resets = torch.zeros(4, 3, dtype=torch.bool)
    resets[2, 1] = True
    output, _ = layer(x, resets=resets)
    torch.testing.assert_close(output[2:, 1], nn.GRU.forward(theirs, x[2:, 1])[0])
    state = None
    for t in range(4):
        y, state = layer.step(x[t], state)
    torch.testing.assert_close(y, theirs(x)[0][-1])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("sizes", [(3, 2, 20), (1, 2, 100), (3, 2, 100)])
def test_both_directions_are_one_launch_where_they_fit(there, name, sizes):
    T, B, H = sizes
    layer = on_triton(OURS[name](3, H, bidirectional=True))
    x = torch.randn(T, B, 3)
    launches = []
    with (
        patch.object(calls, "run_whole", wraps=calls.run_whole) as whole,
        patch.object(calls, "run_slices", wraps=calls.run_slices) as slices,
    ):
        layer(x)[0].sum().backward()
        launches = whole.call_count + slices.call_count
    one = gatedcells.explain_backend(layer, x).endswith("both directions in one grid")
    assert one == (there != "cpu" or H == 20 or T == 1)
    assert launches == (2 if one else 4)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_second_derivatives_of_both_directions_come_from_the_reference(there, name):
    layer = on_triton(OURS[name](2, 3, bidirectional=True))
    other = OURS[name](2, 3, bidirectional=True, backend="reference")
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 2, 2, requires_grad=True)
    found = []
    for module in (layer, other):
        (d,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(d.square().sum(), list(module.parameters())))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_resets_and_lengths_reach_both_directions(there, name):
    layer = on_triton(OURS[name](2, 5, bidirectional=True))
    other = OURS[name](2, 5, bidirectional=True, backend="reference")
    other.load_state_dict(layer.state_dict())
    x, resets = torch.randn(4, 3, 2), torch.rand(4, 3) < 0.4
    torch.testing.assert_close(layer(x, resets=resets), other(x, resets=resets))
    packed = nn.utils.rnn.pack_padded_sequence(x, [4, 2, 1])
    torch.testing.assert_close(layer(packed)[0].data, other(packed)[0].data)


@pytest.mark.parametrize("keep", [0, 1])
def test_the_operators_of_both_directions_are_what_torch_expects(there, keep):
    ops = torch.ops.gatedcells
    T, B, I, H, P = 3, 2, 2, 17, 5
    x, h, c = torch.randn(T, B, I), torch.randn(2, B, H), torch.randn(2, B, H)
    lengths, resets = torch.tensor([3, 1]), torch.rand(2, T, B) < 0.5
    gru = x, h, torch.randn(2, 3 * H, I), torch.randn(2, 3 * H, H) / 4, torch.randn(2, 3 * H), None
    torch.library.opcheck(ops.gru_both.default, (*gru, lengths, resets, True, keep, "triton"))
    short = torch.randn(2, B, P)
    weights = torch.randn(2, 4 * H, I), torch.randn(2, 4 * H, P), None, None, torch.randn(2, P, H)
    torch.library.opcheck(ops.lstm_both.default, (x, short, c, *weights, lengths, resets, keep, "triton"))
    states, last, tape = ops.gru_both(*gru, lengths, resets, True, 1, "triton")
    torch.library.opcheck(
        ops.gru_both_backward.default,
        (states, last, h, gru[3], lengths, resets, states, tape, True, "triton"),
    )
    states, last, last_cell, tape = ops.lstm_both(x, short, c, *weights, lengths, resets, 1, "triton")
    torch.library.opcheck(
        ops.lstm_both_backward.default,
        (states, last, last_cell, short, c, weights[1], weights[4], lengths, resets, states, tape, "triton"),
    )


def test_wrong_shapes_for_both_directions_are_caught(there):
    ops = torch.ops.gatedcells
    T, B, I, H = 3, 2, 2, 5
    given_ = [torch.randn(T, B, I), torch.randn(2, B, H), torch.randn(2, 3 * H, I), torch.randn(2, 3 * H, H)]
    with pytest.raises(RuntimeError, match=r"hidden must be \[B=2, H=5\]"):
        ops.gru_both(given_[0], torch.randn(2, 1, H), *given_[2:], None, None, None, None, True, 0, "triton")
    short = torch.zeros(2, T - 1, B, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"resets must be \[T=3, B=2\], got \[2, 2\]"):
        ops.gru_both(*given_, None, None, None, short, True, 0, "triton")


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_lengths_masks_learnt_states_and_dropped_weights_reach_it(there, name):
    options = {"bidirectional": True, "learn_h0": True, "dropconnect": 0.3, "input_dropout": 0.3}
    layer, other = on_triton(OURS[name](2, 5, **options)), OURS[name](2, 5, backend="reference", **options)
    other.load_state_dict(layer.state_dict())
    lengths, mask = torch.tensor([4, 0, 2]), torch.rand(4, 3) < 0.6
    x = torch.randn(4, 3, 2).masked_fill(torch.arange(4)[:, None, None] >= lengths[:, None], torch.nan)
    for asked in ({"lengths": lengths}, {"mask": mask & (torch.arange(4)[:, None] < lengths)}):
        results = []
        for module in (layer, other):
            output, last = module(x, generator=torch.Generator(there).manual_seed(3), **asked)
            grads = torch.autograd.grad(output.square().sum(), module.parameters())
            results.append((output, *torch.utils._pytree.tree_leaves(last), *grads))
        torch.testing.assert_close(*results)
