"""What surrounds a layer in real programs: threads, in-place changes, freed memory, other torch tools."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import gatedcells
from tests.support.inputs import OURS, TORCHS, pair

LAYERS = ["GRU", "LSTM"]

# Several of the first calls of a process at once: each imports what computes, and none may see it half made.
FIRST_CALLS = """
import threading, torch, gatedcells
layer, x, failed = gatedcells.{name}(3, 4), torch.randn(5, 2, 3), []
ready = threading.Barrier(8)

def serve():
    ready.wait()
    try:
        with torch.no_grad():
            layer(x)
    except Exception as error:
        failed.append(repr(error))

threads = [threading.Thread(target=serve) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
"""


@pytest.fixture
def swapping():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def leaves(result):
    return torch.utils._pytree.tree_leaves(result)


def given(name):
    return torch.randn(2, 3) if name.endswith("Cell") else torch.randn(5, 2, 3)


def as_a_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("name", LAYERS)
def test_the_first_calls_of_a_process_may_come_from_several_threads(name):
    script = FIRST_CALLS.format(name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_states_can_be_detached_in_place_between_spans(name, options):
    ours, theirs = pair(name, 3, 4, **options)
    x = torch.randn(4, 5, 2, 3)
    for layer in (ours, theirs):
        state = None
        for span in x:
            output, state = layer(span, state)
            output.square().sum().backward()
            for part in as_a_tuple(state):
                part.detach_()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("option", ["zoneout", "recurrent_dropout", "state_dropout", "input_dropout"])
@pytest.mark.parametrize("name", LAYERS)
def test_masks_are_drawn_in_a_compiled_layer_whatever_the_length_and_the_batch(name, option):
    layer = OURS[name](3, 4, **{option: 0.3})
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for T, B in ((5, 2), (7, 2), (9, 3)):
        x = torch.randn(T, B, 3)
        torch.manual_seed(1)
        found = leaves(compiled(x))
        torch.manual_seed(1)
        for a, b in zip(found, leaves(layer(x)), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 2, 3), (5, 2, 20), (50, 8, 20), (50, 8, 200)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_lie_as_torchs_do(name, shape):
    layer = OURS[name](shape[-1], 7)
    parameters = list(layer.parameters())
    for gradient in torch.autograd.grad(layer(torch.randn(shape))[0].sum(), parameters):
        assert gradient.is_contiguous()


@pytest.mark.parametrize("name", LAYERS)
def test_zeros_without_memory_are_zeros(name):
    layer = OURS[name](3, 4)
    with torch.no_grad():
        expected = leaves(layer(torch.zeros(5, 2, 3)))
        for _ in range(3):
            found = leaves(layer(torch._efficientzerotensor((5, 2, 3))))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", OURS)
def test_in_inference_mode_gradients_may_be_switched_on(name):
    module, x = OURS[name](3, 4), given(name)
    with torch.no_grad():
        expected = leaves(module(x))
    with torch.inference_mode(), torch.enable_grad():
        for _ in range(3):
            found = leaves(module(x))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_options_that_change_between_calls_count(name, training):
    layer, x = OURS[name](3, 4), given(name)
    with torch.set_grad_enabled(training):
        for _ in range(3):
            plain = layer(x)[0]
        layer.options = layer.options._replace(dropconnect=0.5)
        assert not torch.equal(layer(x)[0], layer(x)[0])
        layer.options = layer.options._replace(dropconnect=0.0)
        assert torch.equal(layer(x)[0], plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_of_another_dtype_at_the_time_of_the_backward_is_refused(name, dtype):
    layer = OURS[name](3, 4)
    output, _ = layer(torch.randn(5, 2, 3))
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.to(dtype)
    with pytest.raises(RuntimeError, match=r"weight_hh|dtype"):
        output.sum().backward()


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("name", OURS)
def test_parameters_may_be_swapped_where_a_module_changes_its_dtype(name):
    module, x = OURS[name](3, 4), given(name)
    for _ in range(3):
        module(x)
    before = list(module.parameters())
    module.double()
    assert all(p is q and p.dtype == torch.float64 for p, q in zip(module.parameters(), before, strict=True))
    assert leaves(module(x.double()))[0].dtype == torch.float64


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, d):
        return None


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"recompute": True}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_where_no_gradient_arrives_none_is_left(name, options):
    layer = OURS[name](3, 4, **options)
    NoGradient.apply(layer(torch.randn(5, 2, 3))[0]).sum().backward()
    assert all(p.grad is None for p in layer.parameters())


class Model(nn.Module):
    """All four modules, with states and without."""

    def __init__(self, kinds):
        super().__init__()
        self.gru = kinds["GRU"](3, 4, num_layers=2, batch_first=True)
        self.lstm = kinds["LSTM"](4, 4, bidirectional=True)
        self.gru_cell, self.lstm_cell = kinds["GRUCell"](8, 5), kinds["LSTMCell"](5, 5)

    def forward(self, x, h):
        output, h_n = self.gru(x, h)
        first, (hidden, cell) = self.lstm(output)
        second, _ = self.lstm(output, (hidden, cell))
        one = self.gru_cell(first[0])
        one = self.gru_cell(second[1], one)
        state = self.lstm_cell(one)
        return self.lstm_cell(one, state), h_n, hidden, cell, second


@pytest.mark.parametrize("made", ["ours", "converted"])
def test_symbolic_tracing_takes_the_modules_as_leaves(made):
    model = Model(OURS) if made == "ours" else gatedcells.convert(Model(TORCHS), report=None)
    traced = torch.fx.symbolic_trace(model)
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert called == ["gru", "lstm", "lstm", "gru_cell", "gru_cell", "lstm_cell", "lstm_cell"]
    x, h = torch.randn(2, 5, 3), torch.randn(2, 2, 4)
    for a, b in zip(leaves(traced(x, h)), leaves(model(x, h)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_changed_in_place_before_the_backward_is_an_error(name, weight):
    layer = OURS[name](3, 4)
    output, _ = layer(torch.randn(5, 2, 3))
    with torch.no_grad():
        getattr(layer, weight).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("name", LAYERS)
def test_batches_first_the_output_is_a_view_and_the_states_are_none(name):
    output, state = OURS[name](3, 4, batch_first=True)(torch.randn(5, 2, 3))
    with pytest.raises(RuntimeError, match="detach views"):
        output.detach_()
    for part in as_a_tuple(state):
        part.detach_()


class LowRank:
    """LoRA for a recurrent layer, as people write it on torch's."""

    def adapt(self):
        self.down, self.up = (
            nn.Parameter(torch.randn(1, 4)),
            nn.Parameter(torch.randn(len(self.bias_hh_l0), 1)),
        )

    def _init_flat_weights(self):
        super()._init_flat_weights()
        if hasattr(self, "up"):
            low = self.up @ self.down
            self._flat_weights = [
                weight + low if name == "weight_hh_l0" else weight
                for name, weight in zip(self._flat_weights_names, self._flat_weights, strict=True)
            ]


@pytest.mark.parametrize("name", LAYERS)
def test_other_tensors_in_the_place_of_the_weights_are_refused(name):
    layer = type("Adapted", (LowRank, OURS[name]), {})(3, 4)
    layer.adapt()
    with pytest.raises(
        RuntimeError, match=r"_flat_weights got a tensor other than the parameter weight_hh_l0"
    ):
        layer._init_flat_weights()


@pytest.mark.parametrize("name", LAYERS)
def test_the_weights_themselves_may_be_assigned_as_a_list(name):
    layer, x = OURS[name](3, 4), given(name)
    expected = layer(x)[0]
    layer._flat_weights = [getattr(layer, weight) for weight in layer._flat_weights_names]
    layer._flat_weights = []  # so that torch's layers leave them where they are
    assert torch.equal(layer(x)[0], expected)
