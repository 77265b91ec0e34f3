"""``return_states=``, ``return_gates=`` and gate hooks: what every step computed, and changing it."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatedcells
from gatedcells.testing import assert_close_in_float64
from tests.support.inputs import OURS

GATES = {"GRU": ("reset", "update", "candidate"), "LSTM": ("input", "forget", "candidate", "output")}


@pytest.fixture
def backend():
    """Instead of this folder's fixture: the tests here say themselves who computes."""


def layer_of(name, **options):
    torch.manual_seed(0)
    return OURS[name](3, 4, dtype=torch.float64, **options)


def with_torchs_cell(layer, x, row, reverse):
    """A loop over torch's own cell in the place of one direction of a one-layer network: states and gates
    ``[T, B, H]``, the gates from torch's weights by the words of torch's documentation."""
    suffix = "_l0_reverse" if reverse else "_l0"
    W, U, b, d = (getattr(layer, n + suffix) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    B = x.shape[1]
    h, c = torch.zeros(B, 4, dtype=torch.float64), torch.zeros(B, 4, dtype=torch.float64)
    steps = {}
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        a, u = x[t] @ W.T + b, h @ U.T + d
        if layer.mode == "GRU":
            (xr, xz, xn), (hr, hz, hn) = a.split(4, 1), u.split(4, 1)
            r, z = 1 / (1 + torch.exp(-xr - hr)), 1 / (1 + torch.exp(-xz - hz))
            n = torch.tanh(xn + r * hn)
            h = (1 - z) * n + z * h
            steps[t] = {"hidden": h, "reset": r, "update": z, "candidate": n}
        else:
            i, f, g, o = (a + u).split(4, 1)
            i, f, o = (1 / (1 + torch.exp(-v)) for v in (i, f, o))
            g = torch.tanh(g)
            c = f * c + i * g
            h = o * torch.tanh(c)
            steps[t] = {"hidden": h, "cell": c, "input": i, "forget": f, "candidate": g, "output": o}
    return {name: torch.stack([steps[t][name] for t in range(len(x))]) for name in steps[0]}


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_states_and_gates_are_those_of_a_loop_written_out_and_so_are_their_gradients(name):
    layer = layer_of(name, bidirectional=True)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    output, _, steps = layer(x, return_gates=True)
    loops = [with_torchs_cell(layer, x, row, reverse) for row, reverse in enumerate((False, True))]
    assert set(steps) == set(loops[0])
    for what, values in steps.items():
        exact = torch.stack([loop[what] for loop in loops])
        assert_close_in_float64(values, exact, what)
        for f, e in zip(
            torch.autograd.grad(values.square().sum(), [x, *layer.parameters()], materialize_grads=True,
                                retain_graph=True),
            torch.autograd.grad(exact.square().sum(), [x, *layer.parameters()], materialize_grads=True,
                                retain_graph=True),
            strict=True,
        ):  # fmt: skip
            assert_close_in_float64(f, e, f"gradient through {what}")
    assert torch.equal(output, torch.cat(list(steps["hidden"]), dim=-1))


@settings(max_examples=20)
@given(
    name=st.sampled_from(["GRU", "LSTM"]),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    kind=st.sampled_from(["plain", "lengths", "mask", "unbatched"]),
    gates=st.booleans(),
)
def test_what_is_returned_lies_like_the_input_and_ends_in_the_last_states(
    name, layers, bidirectional, batch_first, kind, gates
):
    layer = layer_of(name, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first)
    T, B, rows = 5, 3, layers * (2 if bidirectional else 1)
    shape = (T, 3) if kind == "unbatched" else (B, T, 3) if batch_first else (T, B, 3)
    x = torch.randn(shape, dtype=torch.float64)
    asked = {}
    if kind == "lengths":
        asked["lengths"] = torch.tensor([5, 2, 0])
    if kind == "mask":
        asked["mask"] = torch.rand(shape[:2]) < 0.6
    output, _ = layer(x, **asked)
    found, end, steps = layer(x, return_states=True, return_gates=gates, **asked)
    assert_close_in_float64(found, output)
    assert set(steps) == {"hidden", *(["cell"] * (name == "LSTM")), *(GATES[name] if gates else ())}
    for values in steps.values():
        assert values.shape == (rows, *shape[:-1], 4)
    last_layer = list(steps["hidden"])[-2 if bidirectional else -1 :]
    assert_close_in_float64(torch.cat(last_layer, -1), output)
    for state, final in zip(("hidden", "cell"), end if name == "LSTM" else (end,), strict=False):
        if kind == "plain":
            by_time = steps[state].transpose(1, 2) if batch_first else steps[state]
            ends = [by_time[row, 0 if bidirectional and row % 2 else -1] for row in range(rows)]
            assert_close_in_float64(torch.stack(ends), final)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_who_computes_is_said_and_another_that_is_asked_for_is_refused(name):
    layer = layer_of(name, backend="cpu")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    with pytest.raises(
        gatedcells.BackendUnavailable,
        match=f"backend='cpu' cannot run this {name} sequence with differentiable return_gates on cpu,"
        " float64: its kernels do not support differentiable return_gates;"
        " usable here: 'reference'",
    ):
        layer(x, return_gates=True)
    said = gatedcells.explain_backend(layer_of(name), x, return_gates=True)
    assert "reference  CHOSEN" in said
    assert "cpu        cannot run: its kernels do not support differentiable return_gates" in said
    if name == "GRU":  # all hidden states are what the kernel returns anyway
        assert torch.equal(layer(x, return_states=True)[2]["hidden"][0], layer(x)[0])
    else:
        with pytest.raises(gatedcells.BackendUnavailable, match="with differentiable return_states on cpu"):
            layer(x, return_states=True)
    with torch.no_grad():
        assert "cpu        CHOSEN" in gatedcells.explain_backend(layer_of(name), x, return_gates=True)
        assert torch.equal(layer(x, return_gates=True)[0], layer(x)[0])
    layer.requires_grad_(False)
    assert "cpu        CHOSEN" in gatedcells.explain_backend(layer, x, return_gates=True)
    with pytest.raises(gatedcells.BackendUnavailable, match="with differentiable return_gates on cpu"):
        layer(x.requires_grad_(), return_gates=True)


CELLS = [("GRU", {}), ("GRU", {"reset_after": False}), ("LSTM", {}), ("LSTM", {"proj_size": 2})]
GIVEN = [(), ("lengths",), ("mask",), ("resets",), ("lengths", "resets"), ("mask", "resets")]


@pytest.mark.parametrize("computing", ["cpu", "reference"])
@settings(max_examples=30)
@given(
    cell=st.sampled_from(CELLS),
    options=st.fixed_dictionaries(
        {
            "num_layers": st.integers(1, 2),
            "bidirectional": st.booleans(),
            "bias": st.booleans(),
            "batch_first": st.booleans(),
            "dropconnect": st.sampled_from([0.0, 0.5]),
        }
    ),
    asked=st.sampled_from(GIVEN),
    gates=st.booleans(),
)
def test_without_gradients_a_backend_gives_what_the_differentiable_ones_are(
    computing, cell, options, asked, gates
):
    layer = layer_of(cell[0], **cell[1], **options)
    T, B = 6, 3
    x, masks = torch.randn(T, B, 3, dtype=torch.float64), torch.rand(2, T, B)
    all_given = {"lengths": torch.tensor([6, 2, 0]), "mask": masks[0] < 0.7, "resets": masks[1] < 0.3}
    if "lengths" in asked:
        x[2:, 1] = x[:, 2] = torch.nan
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    hx = tuple(torch.randn(rows, B, width, dtype=torch.float64) for width in layer._state_widths())
    if options["batch_first"]:
        x = x.transpose(0, 1)
        all_given |= {name: all_given[name].t() for name in ("mask", "resets")}

    def run():
        given_ = {name: all_given[name] for name in asked}
        state = hx if cell[0] == "LSTM" else hx[0]
        generator = torch.Generator().manual_seed(1)
        return layer(x, state, generator=generator, return_states=True, return_gates=gates, **given_)

    expected, form = torch.utils._pytree.tree_flatten(run())
    assert all(values.grad_fn is not None for values in expected)
    layer.backend = computing
    with torch.no_grad():
        found, same = torch.utils._pytree.tree_flatten(run())
    assert form == same
    for values, exact in zip(found, expected, strict=True):
        assert values.grad_fn is None
        assert_close_in_float64(values, exact.detach())


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_without_gradients_a_compiled_layer_gives_its_gates_and_its_graph_does_not_grow_with_T(name):
    layer = layer_of(name, num_layers=2, bidirectional=True)
    sizes = []

    def counted(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph

    for T in (3, 30):
        torch._dynamo.reset()
        x = torch.randn(T, 2, 3, dtype=torch.float64)
        with torch.no_grad():
            found = torch.compile(layer, fullgraph=True, backend=counted)(x, return_gates=True)
            expected = layer(x, return_gates=True)
        for what, values in expected[2].items():
            assert_close_in_float64(found[2][what], values, what)
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_without_gradients_gates_are_mapped_and_have_tangents(name):
    layer = layer_of(name)
    x = torch.randn(3, 5, 2, 3, dtype=torch.float64)

    def gates(one):
        return layer(one, return_gates=True)[2]

    with torch.no_grad():
        found = torch.vmap(gates)(x)
        for k, one in enumerate(x):
            for what, values in gates(one).items():
                assert_close_in_float64(found[what][k], values, what)
        _, tangents = torch.func.jvp(gates, (x[0],), (x[1],))
    _, expected = torch.func.jvp(gates, (x[0],), (x[1],))
    for what, values in expected.items():
        assert values.abs().max() > 0
        assert_close_in_float64(tangents[what], values.detach(), what)


def test_packed_input_is_pointed_to_lengths():
    x = torch.nn.utils.rnn.pack_padded_sequence(torch.zeros(5, 2, 3, dtype=torch.float64), [5, 2])
    with pytest.raises(ValueError, match="need a padded input with lengths=, got a PackedSequence"):
        layer_of("GRU")(x, return_states=True)


def test_no_steps_return_nothing_of_each_kind():
    layer = layer_of("LSTM", num_layers=2, proj_size=2, allow_empty=True, bidirectional=True)
    _, _, steps = layer(torch.zeros(0, 2, 3, dtype=torch.float64), return_gates=True)
    assert {n: v.shape for n, v in steps.items()} == {
        n: (4, 0, 2, 2 if n == "hidden" else 4) for n in ("hidden", "cell", *GATES["LSTM"])
    }


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_hook_sees_every_gate_of_every_step_once(name):
    layer = layer_of(name, num_layers=2, bidirectional=True)
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    plain, seen = layer(x)[0], {}
    handles = [
        layer.register_gate_hook(
            gate, lambda values, where, gate=gate: seen.update({(gate, *where): values.detach()})
        )
        for gate in GATES[name]
    ]
    output, _, steps = layer(x, return_gates=True)
    assert_close_in_float64(output, plain)
    assert len(seen) == len(GATES[name]) * 2 * 2 * 3
    for (gate, which, direction, t), values in seen.items():
        assert torch.equal(steps[gate][2 * which + direction, t], values)
    for handle in handles:
        handle.remove()
    seen.clear()
    assert torch.equal(layer(x)[0], plain)
    assert seen == {}


def test_a_replaced_gate_changes_what_follows_and_gets_no_gradient():
    layer = layer_of("GRU")
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    h = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    handle = layer.register_gate_hook("update", lambda values, where: torch.ones_like(values))
    output, last = layer(x, h)  # with z = 1 a state stays for ever
    assert torch.equal(last, h)
    weights = torch.autograd.grad(output.sum(), layer.parameters())
    assert all(torch.equal(w, torch.zeros_like(w)) for w in weights)
    handle.remove()
    layer.register_gate_hook("reset", lambda values, where: values * 0 if where.t == 2 else None)
    _, _, steps = layer(x, h, return_gates=True)
    assert torch.equal(steps["reset"][0, 2], torch.zeros(2, 4, dtype=torch.float64))
    assert (steps["reset"][0, 1] > 0).all()


def test_a_hook_takes_a_layer_off_the_quick_way_and_says_so():
    layer = layer_of("GRU")
    x, seen = torch.randn(4, 2, 3, dtype=torch.float64), []
    with torch.no_grad():
        layer(x), layer(x)  # remembered
        layer.step(x[0]), layer.step(x[0])
        handle = layer.register_gate_hook("reset", lambda values, where: seen.append(where))
        layer(x), layer.step(x[0])
        assert seen == [gatedcells.GateAt(0, 0, t) for t in (0, 1, 2, 3, 0)]
        assert "do not support a gate hook" in gatedcells.explain_backend(layer, x)
        with gatedcells.use_backend("cpu"), pytest.raises(gatedcells.BackendUnavailable, match="a gate hook"):
            layer(x)
        handle.remove()
        layer(x), layer(x)
    assert len(seen) == 5
    assert "cpu        CHOSEN" in gatedcells.explain_backend(layer, x)


def test_wrong_hooks_are_named_and_copies_stand_alone():
    layer = layer_of("GRU")
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="gate must be one of 'reset', 'update', 'candidate', got 'forget'"):
        layer.register_gate_hook("forget", print)
    twin = pickle.loads(pickle.dumps(layer))
    handle = layer.register_gate_hook("update", lambda values, where: values[:1])
    with pytest.raises(
        RuntimeError, match=r"a gate hook on 'update' must return None or \[2, 4\] torch.float64"
    ):
        layer(x)
    handle.remove()
    assert torch.equal(twin(x)[0], copy.deepcopy(layer)(x)[0])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_autocast_reaches_every_step(name):
    layer = layer_of(name).float()
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output, _, steps = layer(x, return_gates=True)
        trace, plain = layer.trace(x), layer(x)[0]
    assert {value.dtype for value in (output, plain, trace.output, *steps.values())} == {torch.bfloat16}
    low = copy.deepcopy(layer).bfloat16()
    assert torch.equal(output, low(x.bfloat16(), return_gates=True)[0])
