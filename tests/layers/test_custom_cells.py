"""`gatedcells.Cell` and `Recurrent`: a step of one's own in layers, held to `GRU` in every kind of call; and
the documentation's cells, held to loops written from their papers."""

import copy
import inspect
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import gatedcells
from gatedcells import Recurrent
from gatedcells.layers import recurrent
from gatedcells.reference import scan
from gatedcells.testing import assert_close_in_float64

PAGE = Path(__file__).parents[2] / "docs" / "beyond_torch.md"


@pytest.fixture
def backend():
    """Instead of this folder's fixture: a user's steps run in plain torch."""


class GRUStep(gatedcells.Cell):
    """torch's GRU once more, as a user would write it."""

    def __init__(self, input_size, hidden_size, bias=True):
        super().__init__(input_size, hidden_size)
        self.x = torch.nn.Linear(input_size, 3 * hidden_size, bias=bias)
        self.h = torch.nn.Linear(hidden_size, 3 * hidden_size, bias=bias)

    def step(self, x, h):
        (xr, xz, xn), (hr, hz, hn) = self.x(x).chunk(3, -1), self.h(h).chunk(3, -1)
        z = torch.sigmoid(xz + hz)
        n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        self.record(update=z)
        return (1 - z) * n + z * h


class LSTMStep(gatedcells.Cell):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size, state_sizes=(hidden_size, hidden_size))
        self.both = torch.nn.Linear(input_size + hidden_size, 4 * hidden_size)

    def step(self, x, state):
        h, c = state
        i, f, g, o = self.both(torch.cat((x, h), -1)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def pair(**options):
    """Layers of `GRUStep` and our GRU with the same weights."""
    torch.manual_seed(0)
    ours = gatedcells.GRU(3, 4, dtype=torch.float64, backend="reference", **options)
    custom = gatedcells.Recurrent(GRUStep, 3, 4, **options).double()
    with torch.no_grad():
        for cell, weights in zip(custom.cells, ours.all_weights, strict=True):
            for mine, other in zip(
                (cell.x.weight, cell.h.weight, cell.x.bias, cell.h.bias), weights, strict=True
            ):
                mine.copy_(other)
    return custom, ours


def matching(custom, grads):
    """Gradients of `Recurrent`'s parameters in the order of the GRU's."""
    order = (0, 2, 1, 3)  # x.weight, x.bias, h.weight, h.bias
    return [grads[4 * row + which] for row in range(len(custom.cells)) for which in order]


def test_the_steps_run_where_torch_cannot_say_that_it_exports(monkeypatch):
    known = {**vars(torch), "compiler": SimpleNamespace(is_compiling=torch.compiler.is_compiling)}
    monkeypatch.setattr(recurrent, "torch", SimpleNamespace(**known))  # as torch 2.6
    monkeypatch.setattr(recurrent, "SCAN_AVAILABLE", False)
    custom, ours = pair()
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    assert_close_in_float64(custom(x)[0], ours(x)[0])


@settings(max_examples=30)
@given(
    options=st.fixed_dictionaries(
        {"num_layers": st.integers(1, 3), "bidirectional": st.booleans(), "batch_first": st.booleans()}
    ),
    kind=st.sampled_from(["plain", "unbatched", "packed", "lengths", "mask", "resets"]),
    dropped=st.booleans(),
    with_state=st.booleans(),
)
def test_a_cell_in_layers_is_called_like_the_gru(options, kind, dropped, with_state):
    if options["num_layers"] > 1:
        options["dropout"] = 0.5 * dropped
    custom, ours = pair(**options)
    T, B = 5, 3
    shape = (T, 3) if kind == "unbatched" else (B, T, 3) if options["batch_first"] else (T, B, 3)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    h = torch.randn(len(custom.cells), *([] if kind == "unbatched" else [B]), 4, dtype=torch.float64)
    asked = {}
    if kind == "lengths":
        asked = {"lengths": torch.tensor([2, 5, 0])}
    elif kind in ("mask", "resets"):
        asked = {kind: torch.rand(shape[:2]) < 0.5}
    results = []
    for layers in (custom, ours):
        torch.manual_seed(3)
        given_ = x
        if kind == "packed":
            lengths = torch.tensor([2, 5, 1])
            given_ = pack_padded_sequence(x, lengths, options["batch_first"], enforce_sorted=False)
        output, last = layers(given_, h if with_state else None, **asked)
        flat = output.data if isinstance(output, PackedSequence) else output
        loss = flat.square().sum() + last.sum()
        grads = torch.autograd.grad(loss, [x, *layers.parameters()])
        rest = matching(custom, grads[1:]) if layers is custom else grads[1:]
        results.append((flat, last, grads[0], *rest))
    for found, exact in zip(*results, strict=True):
        assert_close_in_float64(found, exact)


def cells_of_the_page():
    """The classes of the documentation's examples, as they stand there."""
    found = {"torch": torch, "gatedcells": gatedcells}
    for code in re.findall(
        r"^class \w+\(gatedcells\.Cell\):\n(?:(?: .*)?\n)+", PAGE.read_text("utf-8"), re.M
    ):
        assert len(code.strip().splitlines()) < 20
        exec(code, found)
    return found


def sigma(a):
    return 1 / (1 + torch.exp(-a))


def minimal_gated_unit(p, x, h):
    """f = σ(W_f [h, x] + b_f), n = tanh(W_n [f ⊙ h, x] + b_n), h' = (1 − f) ⊙ h + f ⊙ n (Zhou 2016)."""
    outputs = []
    for x_t in x:
        f = sigma(torch.cat((h, x_t), 1) @ p["gate.weight"].T + p["gate.bias"])
        h = (1 - f) * h + f * torch.tanh(torch.cat((f * h, x_t), 1) @ p["new.weight"].T + p["new.bias"])
        outputs.append(h)
    return outputs


def peephole_lstm(p, x, h, c):
    """i, f = σ(... + p ⊙ c), c' = f ⊙ c + i ⊙ g, o = σ(... + p ⊙ c') (Gers et al. 2002)."""
    outputs, H = [], h.shape[1]
    for x_t in x:
        a = x_t @ p["x.weight"].T + p["x.bias"] + h @ p["h.weight"].T + p["h.bias"]
        i, f = (sigma(a[:, k * H : (k + 1) * H] + p["peep"][k] * c) for k in (0, 1))
        c = f * c + i * torch.tanh(a[:, 2 * H : 3 * H])
        h = sigma(a[:, 3 * H :] + p["peep"][2] * c) * torch.tanh(c)
        outputs.append(h)
    return outputs


def gru_d(p, x, h, seen):
    """Equations 1 to 13 of Che et al. 2018, a row and a feature at a time where they are for one."""
    outputs, H, K = [], h.shape[1], seen.shape[1]
    for x_t in x:
        rows = []
        for b in range(len(h)):
            value, m, d = x_t[b].split(K)
            gamma_x = torch.exp(-torch.clamp(p["decay_x"] * d + p["decay_b"], min=0))
            last = torch.stack([value[k] if m[k] else seen[b, k] for k in range(K)])
            faded = [gamma_x[k] * seen[b, k] + (1 - gamma_x[k]) * p["mean"][k] for k in range(K)]
            filled = torch.stack([value[k] if m[k] else faded[k] for k in range(K)])
            gamma_h = torch.exp(-torch.clamp(p["decay_h.weight"] @ d + p["decay_h.bias"], min=0))
            old = gamma_h * h[b]
            zr = sigma(p["gates.weight"] @ torch.cat((filled, old, m)) + p["gates.bias"])
            z, r = zr[:H], zr[H:]
            new = torch.tanh(p["new.weight"] @ torch.cat((filled, r * old, m)) + p["new.bias"])
            rows.append(((1 - z) * old + z * new, last))
        h, seen = (torch.stack(part) for part in zip(*rows, strict=True))
        outputs.append(h)
    return outputs


@pytest.mark.parametrize(
    ("name", "loop", "I", "widths"),
    [
        ("MinimalGatedUnit", minimal_gated_unit, 3, (4,)),
        ("PeepholeLSTM", peephole_lstm, 3, (4, 4)),
        ("GRUD", gru_d, 6, (4, 2)),
    ],
)
@pytest.mark.parametrize("T", [1, 7])
def test_the_cells_of_the_documentation_are_the_loops_of_their_papers(name, loop, I, widths, T):
    layers = gatedcells.Recurrent(cells_of_the_page()[name], I, 4).double()
    cell = layers.cells[0]
    with torch.no_grad():
        for tensor in layers.state_dict().values():
            tensor.add_(0.3 * torch.randn_like(tensor))
    x = torch.randn(T, 3, I, dtype=torch.float64)
    if name == "GRUD":
        x[:, :, 2:4] = (x[:, :, 2:4] > 0).double()
        x[:, :, 4:] = x[:, :, 4:].abs()
    state = [torch.randn(3, width, dtype=torch.float64, requires_grad=True) for width in widths]
    hx = [part[None] for part in state]
    output, _ = layers(x, hx if len(hx) > 1 else hx[0])
    exact = torch.stack(loop({**dict(cell.named_parameters()), **dict(cell.named_buffers())}, x, *state))
    assert_close_in_float64(output, exact)
    d_output = torch.randn_like(exact)
    wanted = [*state, *layers.parameters()]
    for f, e in zip(
        torch.autograd.grad(output, wanted, d_output, materialize_grads=True),
        torch.autograd.grad(exact, wanted, d_output, materialize_grads=True),
        strict=True,
    ):
        assert_close_in_float64(f, e)


def compiled_as(layers, backend):
    torch._dynamo.reset()
    return torch.compile(layers, fullgraph=True, backend=backend)


@pytest.mark.parametrize(("cell", "compiler"), [(LSTMStep, "aot_eager"), (GRUStep, "inductor")])
def test_a_cell_compiles_in_one_graph_with_the_right_gradients(cell, compiler):
    layers = gatedcells.Recurrent(cell, 3, 4, 2, bidirectional=cell is LSTMStep).double()
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    lengths, resets = torch.tensor([6, 3]), torch.rand(6, 2) < 0.3
    found, exact = (
        run(x, lengths=lengths, resets=resets)[0] for run in (compiled_as(layers, compiler), layers)
    )
    assert_close_in_float64(found, exact)
    wanted = [x, *layers.parameters()]
    for f, e in zip(
        *(torch.autograd.grad(out.square().sum(), wanted) for out in (found, exact)), strict=True
    ):
        assert_close_in_float64(f, e)


class Attends(gatedcells.Cell):
    """Reads a memory that is neither its input nor its state."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.turn = nn.Linear(input_size + hidden_size, hidden_size)
        self.memory = None

    def step(self, x, h):
        memory = self.memory if isinstance(self.memory, torch.Tensor) else self.memory["of"]
        weights = torch.einsum("bh,tbh->tb", h, memory).softmax(0)
        return torch.tanh(self.turn(torch.cat((x, h), -1))) + torch.einsum("tb,tbh->bh", weights, memory)


class Decoder(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.held = held
        self.encoder = nn.Linear(3, 4)
        self.layers = gatedcells.Recurrent(Attends, 3, 4)

    def forward(self, x):
        self.layers.cells[0].memory = self.held(self.encoder(x))
        return self.layers(x)[0]


def test_what_a_step_reads_from_an_attribute_is_that_of_the_call_when_compiled_and_has_a_gradient():
    torch.manual_seed(0)
    model = Decoder(lambda memory: memory).double()
    run = compiled_as(model, "aot_eager")
    for x in torch.randn(2, 6, 2, 3, dtype=torch.float64):
        found, exact = run(x), model(x)
        assert_close_in_float64(found, exact)
        wanted = list(model.parameters())
        for f, e in zip(
            *(torch.autograd.grad(out.square().sum(), wanted) for out in (found, exact)), strict=True
        ):
            assert_close_in_float64(f, e)


def test_a_collection_of_tensors_that_a_step_may_read_is_refused_when_compiled_in_one_graph():
    model = Decoder(lambda memory: {"of": memory})
    says = "must hold each tensor as a separate attribute, got a dict"
    if torch.__version__ < "2.9":  # the compiler says that there was an error, not with what words
        says = "Observed exception"
    with pytest.raises(Exception, match=says):
        compiled_as(model, "eager")(torch.randn(6, 2, 3))


class Drops(Attends):
    def step(self, x, h):
        return self.turn(torch.cat((x, nn.functional.dropout(h, 0.5, self.training)), -1))


def test_a_compiled_step_that_draws_is_refused_where_its_gradient_would_be_another_draws():
    layers = gatedcells.Recurrent(Drops, 3, 4)
    run = compiled_as(layers, "aot_eager")
    x = torch.randn(6, 2, 3)
    output, _ = run(x)
    with pytest.raises(RuntimeError, match=r"Drops\.step draws random numbers"):
        output.sum().backward()
    layers.eval()
    run(x)[0].sum().backward()


def test_the_compiled_graph_does_not_grow_with_the_number_of_steps():
    sizes = []

    def count(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph

    for T in (2, 300):
        compiled_as(gatedcells.Recurrent(LSTMStep, 3, 4), count)(torch.randn(T, 2, 3))
    assert sizes[0] == sizes[1]


@pytest.mark.skipif(not scan.AVAILABLE, reason="before torch 2.13 torch's scan has wrong gradients")
def test_an_exported_program_takes_any_number_of_steps():
    layers = gatedcells.Recurrent(LSTMStep, 3, 4).double().eval()
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    dynamic = {"input": {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}}
    program = torch.export.export(layers, (x,), dynamic_shapes=dynamic).module()
    for shape in ((2, 1), (30, 3)):
        x = torch.randn(*shape, 3, dtype=torch.float64)
        assert_close_in_float64(program(x)[0], layers(x)[0])


def test_transforms_go_through_the_steps():
    layers, ours = pair()
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    assert_close_in_float64(torch.vmap(lambda row: layers(row)[0], 1, 1)(x), layers(x)[0])
    tangent = torch.randn_like(x)
    slopes = [torch.func.jvp(lambda x, m=m: m(x)[0], (x,), (tangent,))[1] for m in (layers, ours)]
    assert_close_in_float64(*slopes)
    x.requires_grad_()
    penalties = []
    for module in (layers, ours):
        (d_x,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(d_x.square().sum(), x)[0])
    assert_close_in_float64(*penalties)


def test_a_trace_has_the_states_and_what_the_step_names():
    custom, ours = pair(num_layers=2, bidirectional=True)
    x, lengths = torch.randn(5, 2, 3, dtype=torch.float64), torch.tensor([5, 3])
    found, exact = custom.trace(x, lengths=lengths), ours.trace(x, lengths=lengths)
    assert_close_in_float64(found.output, exact.output)
    for where in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert_close_in_float64(found[where]["hidden"], exact[where]["hidden"])
        assert_close_in_float64(found[where]["update"][:3], exact[where]["update"][:3])
    assert set(gatedcells.Recurrent(LSTMStep, 3, 4).trace(x.float())[0]) == {"hidden", "state_1"}
    with pytest.raises(IndexError, match=r"no layer 2, direction 0: there are 2 layer\(s\) in 2 direction"):
        found[2]
    assert custom.cells[0]._records is None


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
@pytest.mark.parametrize("asked", ["none", "lengths", "mask"])
def test_every_step_of_a_cell_of_ones_own_is_that_of_the_gru(options, asked):
    custom, ours = pair(**options)
    x = torch.randn(3, 3, 3, dtype=torch.float64, requires_grad=True)
    given = {"lengths": torch.tensor([3, 0, 2])} if asked == "lengths" else {}
    given |= {"mask": torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]]).bool()} if asked == "mask" else {}
    output, last, every = custom(x, return_states=True, **given)
    expected = ours(x, return_states=True, **given)
    assert list(every) == ["hidden"]
    right = (*expected[:2], expected[2]["hidden"])
    for found, exact in zip((output, last, every["hidden"]), right, strict=True):
        assert_close_in_float64(found, exact)
    gradients = [torch.autograd.grad(s["hidden"].square().sum(), x)[0] for s in (every, expected[2])]
    assert_close_in_float64(*gradients)


def test_every_state_of_a_cell_with_several_is_named():
    torch.manual_seed(0)
    layers = Recurrent(LSTMStep, 3, 4, 2, allow_empty=True)
    x, mask = torch.randn(5, 2, 3), torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]]).bool().T
    output, last, every = layers(x, mask=mask, return_states=True)
    names = ["hidden", "state_1"]
    assert [(name, tuple(v.shape)) for name, v in every.items()] == [(name, (2, 5, 2, 4)) for name in names]
    torch.testing.assert_close(every["hidden"][-1], output)
    assert not every["state_1"][:, ~mask].any()
    for row, end in ((0, 3), (1, 4)):
        torch.testing.assert_close(every["state_1"][:, end, row], last[1][:, row])
    alone, traced = layers(x[:1, :1], return_states=True)[2], layers.trace(x[:1, :1])
    torch.testing.assert_close(alone["state_1"], torch.stack([traced[row]["state_1"] for row in range(2)]))
    empty = layers(x[:0], return_states=True)[2]
    assert [(name, tuple(v.shape)) for name, v in empty.items()] == [(name, (2, 0, 2, 4)) for name in names]
    with pytest.raises(ValueError, match="return_states needs a padded input with lengths="):
        layers(pack_padded_sequence(x, [5, 3]), return_states=True)


def test_a_step_of_a_cell_of_ones_own_begins_anew_where_it_is_told_to():
    custom, ours = pair(num_layers=2)
    x, state = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 2, 4, dtype=torch.float64)
    begins = torch.tensor([True, False])
    both = [layers.step(x, state, resets=begins) for layers in (custom, ours)]
    for found, right in zip(*both, strict=True):
        assert_close_in_float64(found, right)


def test_who_computes_is_said():
    said = gatedcells.explain_backend(Recurrent(LSTMStep, 3, 4), torch.zeros(5, 2, 3))
    assert said == "LSTMStep: its steps run one by one in plain torch, on any device; no backend is chosen"


def test_steps_copies_and_no_steps():
    layers = gatedcells.Recurrent(LSTMStep, 3, 4, 2, allow_empty=True)
    x, state = torch.randn(5, 2, 3), None
    for x_t in x:
        output, state = layers.step(x_t, state)
    torch.testing.assert_close(output, layers(x)[0][-1])
    torch.testing.assert_close(state, layers(x)[1])
    empty, last = layers(x[:0], state)
    assert empty.shape == (0, 2, 4)
    assert all(torch.equal(a, b) for a, b in zip(last, state, strict=True))
    cell = layers.cells[0]
    new = cell(x[0], (state[0][0], state[1][0]))
    alone = cell(x[0, 1], (state[0][0, 1], state[1][0, 1]))
    torch.testing.assert_close(alone[0], new[0][1])
    for twin in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        assert {one._number for one in twin.cells}.isdisjoint(one._number for one in layers.cells)
        expected = layers(x)[0]
        with torch.no_grad():
            layers.cells[0].both.weight.mul_(1.5)
        torch.testing.assert_close(compiled_as(twin, "eager")(x)[0], expected)
        assert not torch.equal(layers(x)[0], expected)
        with torch.no_grad():
            layers.cells[0].both.weight.div_(1.5)


def test_autocast_goes_through_the_steps_eager_and_compiled():
    layers = gatedcells.Recurrent(GRUStep, 3, 4)
    x = torch.randn(5, 2, 3)
    results = []
    for run in (layers, compiled_as(layers, "aot_eager")):
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = run(x)
        assert output.dtype == torch.bfloat16
        results.append((output, *torch.autograd.grad(output.float().square().sum(), layers.parameters())))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


X = torch.zeros(5, 2, 3)


class TwoForOne(GRUStep):
    def step(self, x, h):
        return h, h


class Wide(GRUStep):
    def step(self, x, h):
        return h.double()


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: Recurrent(torch.nn.Linear, 3, 4), TypeError, "must return a gatedcells.Cell, got Linear"),
        (lambda: Recurrent(GRUStep, 3, 4, 0), ValueError, "num_layers must be at least 1, got 0"),
        (lambda: Recurrent(GRUStep, 3, 4, dropout=2), ValueError, "dropout must be a probability"),
        (lambda: Recurrent(gatedcells.Cell, 3, 4)(X), NotImplementedError,
         r"Cell must define step\(self, x_t, state\)"),
        (lambda: Recurrent(TwoForOne, 3, 4)(X), RuntimeError,
         r"TwoForOne.step must return states of shape \[2, 4\], got \[2, 4\], \[2, 4\]"),
        (lambda: Recurrent(Wide, 3, 4)(X), RuntimeError,
         r"Wide.step must return dtypes \['torch.float32'\], got \['torch.float64'\]"),
        (lambda: Recurrent(GRUStep, 3, 4)(torch.zeros(5, 2, 7)), RuntimeError, "Expected 3, got 7"),
        (lambda: Recurrent(GRUStep, 3, 4)(torch.zeros(5)), ValueError, "GRUStep: Expected input to be 2D"),
        (lambda: Recurrent(GRUStep, 3, 4)(X, torch.zeros(1, 3, 4)), RuntimeError,
         r"Expected hidden sizes \[\[1, 2, 4\]\], got \[\[1, 3, 4\]\]"),
        (lambda: Recurrent(GRUStep, 3, 4)(X, torch.zeros(1, 4)), RuntimeError,
         "For batched 3-D input, hx should also be 3-D but got 2-D tensor"),
        (lambda: Recurrent(GRUStep, 3, 4)(torch.zeros(0, 2, 3)), RuntimeError, "larger than 0"),
        (lambda: Recurrent(GRUStep, 3, 4, bidirectional=True).step(torch.zeros(2, 3)), RuntimeError,
         "step needs a unidirectional layer"),
        (lambda: GRUStep(3, 4)(torch.zeros(1, 2, 3)), ValueError, "Expected input to be 1D or 2D, got 3D"),
    ],
)  # fmt: skip
def test_wrong_cells_and_calls_are_named(run, error, message):
    with pytest.raises(error, match=message):
        run()


def test_a_cell_itself_is_not_what_makes_cells():
    with pytest.raises(
        TypeError, match="must be a class or function that makes cells, got an instance of GRUStep"
    ):
        Recurrent(GRUStep(3, 4), 3, 4)


def test_states_of_other_sizes_in_each_layer_are_refused_at_once():
    class Wide(GRUStep):
        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.state_sizes = (hidden_size, input_size)

    with pytest.raises(ValueError, match=r"must have the same sizes, got \(4, 3\) and \(4, 4\)"):
        Recurrent(Wide, 3, 4, num_layers=2)


def test_a_state_of_another_size_is_named_before_the_step_runs():
    with pytest.raises(RuntimeError, match=r"GRUStep: Expected hidden sizes \[\[2, 4\]\], got \[\[2, 5\]\]"):
        GRUStep(3, 4)(torch.zeros(2, 3), torch.zeros(2, 5))
    with pytest.raises(RuntimeError, match=r"Expected hidden sizes \[\[4\]\], got \[\[5\]\]"):
        GRUStep(3, 4)(torch.zeros(3), torch.zeros(5))


def test_a_trace_of_no_steps_says_so():
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0"):
        Recurrent(GRUStep, 3, 4).trace(torch.zeros(0, 2, 3))


def test_for_type_checkers_too_a_step_may_call_its_arguments_what_it_likes():
    _, *arguments = inspect.signature(gatedcells.Cell.step).parameters.values()
    assert [argument.kind for argument in arguments] == [inspect.Parameter.POSITIONAL_ONLY] * 2
