"""Layer normalisation, peepholes, zoneout, dropouts of recurrent layers: held to loops written from the
papers in float64, with the random masks drawn again by the documented order."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatedcells
from gatedcells.interop.weights import LossyConversion, Weights
from gatedcells.testing import assert_close_in_float64
from tests.support.inputs import OURS

H, I, T, B = 4, 3, 5, 3


@pytest.fixture
def backend():
    """Instead of this folder's fixture: the tests here say themselves who computes."""


def layer_of(name, **options):
    torch.manual_seed(0)
    layer = OURS[name](I, H, dtype=torch.float64, **options)
    with torch.no_grad():  # gains of 1 and shifts of 0 would hide that they are left out
        for key, parameter in layer.named_parameters():
            if key.startswith("norm"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def seeded(seed=6):
    return torch.Generator().manual_seed(seed)


def sigma(a):
    return 1 / (1 + torch.exp(-a))


def normed(a, gain):
    """One group's ``gain ⊙ (a − mean) / √(var + 1e-5)``."""
    centred = a - a.mean(-1, keepdim=True)
    return gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def projected(v, weight, gain, groups):
    """``norm(W v)`` group by group, or ``W v``."""
    a = v @ weight.T
    if gain is None:
        return a
    return torch.cat([normed(a[:, g], gain[g]) for g in groups], dim=-1)


def masks_of(layer, generator, options):
    """One direction's masks, in the order in which they are documented to be drawn."""
    P = layer.proj_size or H
    found = dict.fromkeys(("read", "written", "kept_h", "kept_c"))

    def dropped(p, *shape):
        return (torch.rand(shape, generator=generator) >= p).double() * (0.0 if p == 1 else 1 / (1 - p))

    if layer.training and options.get("state_dropout"):
        found["read"] = dropped(options["state_dropout"], B, P)
    if layer.training and options.get("recurrent_dropout"):
        found["written"] = dropped(options["recurrent_dropout"], T, B, H)
    p = options.get("zoneout", 0.0)
    for key, share, width in zip(
        ("kept_h", "kept_c"), p if isinstance(p, tuple) else (p, p), (P, H), strict=True
    ):
        if not share or (key == "kept_c" and layer.mode == "GRU"):
            continue
        found[key] = share
        if layer.training:
            found[key] = (torch.rand(T, B, width, generator=generator) < share).double()
    return found


def at(mask, t, otherwise):
    return otherwise if mask is None else mask if isinstance(mask, float) else mask[t]


def loop(layer, x, state, reverse, masks):
    """One direction of a one-layer network, a line of the papers a line of code."""
    suffix = "_l0_reverse" if reverse else "_l0"
    w = {n: getattr(layer, n + suffix, None) for n in (
        "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "norm_ih", "norm_hh", "norm_cell",
        "norm_cell_shift", "peephole")}  # fmt: skip
    W, U = w["weight_ih"], w["weight_hh"]
    b, d = (0 if w[n] is None else w[n] for n in ("bias_ih", "bias_hh"))
    h, c = (part[int(reverse)] for part in state)
    outputs = {}
    for t in reversed(range(T)) if reverse else range(T):
        m, k_h, k_c = at(masks["written"], t, 1.0), at(masks["kept_h"], t, 0.0), at(masks["kept_c"], t, 0.0)
        read = h if masks["read"] is None else h * masks["read"]
        if layer.mode == "GRU":
            groups = slice(0, 2 * H), slice(2 * H, 3 * H)
            xr, xz, xn = (projected(x[t], W, w["norm_ih"], groups) + b).split(H, 1)
            if layer.reset_after:
                hr, hz, hn = (projected(read, U, w["norm_hh"], groups) + d).split(H, 1)
                r, z = sigma(xr + hr), sigma(xz + hz)
                n = torch.tanh(xn + r * hn)
            else:
                d_gates, d_new = (0, 0) if w["bias_hh"] is None else (d[: 2 * H], d[2 * H :])
                g_gates, g_new = (None, None) if w["norm_hh"] is None else w["norm_hh"].split((2 * H, H))
                hr, hz = (projected(read, U[: 2 * H], g_gates, groups[:1]) + d_gates).split(H, 1)
                r, z = sigma(xr + hr), sigma(xz + hz)
                n = torch.tanh(xn + projected(r * read, U[2 * H :], g_new, (slice(0, H),)) + d_new)
            new = (1 - z) * (m * n) + z * h
            h = k_h * h + (1 - k_h) * new
        else:
            whole = (slice(0, 4 * H),)
            a = projected(x[t], W, w["norm_ih"], whole) + b + projected(read, U, w["norm_hh"], whole) + d
            ai, af, ag, ao = a.split(H, 1)
            p_i, p_f, p_o = (0, 0, 0) if w["peephole"] is None else w["peephole"]
            i, f, g = sigma(ai + p_i * c), sigma(af + p_f * c), torch.tanh(ag)
            new_c = f * c + i * (m * g)
            o = sigma(ao + p_o * new_c)
            seen = new_c if w["norm_cell"] is None else normed(new_c, w["norm_cell"]) + w["norm_cell_shift"]
            new = o * torch.tanh(seen)
            new = new if w["weight_hr"] is None else new @ w["weight_hr"].T
            h, c = k_h * h + (1 - k_h) * new, k_c * c + (1 - k_c) * new_c
        outputs[t] = h
    return torch.stack([outputs[t] for t in range(T)]), h, c


probability = st.sampled_from([0.0, 0.3, 1.0])


@st.composite
def variants(draw):
    name = draw(st.sampled_from(["GRU", "LSTM"]))
    options = {
        "layer_norm": draw(st.booleans()),
        "zoneout": draw(probability),
        "recurrent_dropout": draw(probability),
        "state_dropout": draw(probability),
    }
    construct = {"bias": draw(st.booleans()), "bidirectional": draw(st.booleans())}
    if name == "LSTM":
        options["peephole"] = draw(st.booleans())
        options["zoneout"] = draw(st.tuples(probability, probability))
        construct["proj_size"] = draw(st.sampled_from([0, 2]))
    else:
        construct["reset_after"] = draw(st.booleans())
    return name, options, construct


@settings(max_examples=80)
@given(case=variants(), training=st.booleans())
def test_a_layer_is_the_loop_of_the_papers(case, training):
    name, options, construct = case
    layer = layer_of(name, **options, **construct).train(training)
    D = 2 if layer.bidirectional else 1
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    widths = (layer.proj_size or H, H)[: 1 + (name == "LSTM")]
    state = [torch.randn(D, B, width, dtype=torch.float64, requires_grad=True) for width in widths]
    output, last = layer(x, state if name == "LSTM" else state[0], generator=seeded())
    found = (output, *(last if name == "LSTM" else (last,)))
    again = seeded()
    masks = [masks_of(layer, again, options) for _ in range(D)]
    loops = [loop(layer, x, (state * 2)[:2], row == 1, masks[row]) for row in range(D)]
    exact = (torch.cat([one[0] for one in loops], -1),
             *(torch.stack([one[1 + s] for one in loops]) for s in range(len(state))))  # fmt: skip
    torch.manual_seed(1)
    weights = [torch.randn(value.shape, dtype=torch.float64) for value in exact]
    wanted = [x, *state, *layer.parameters()]
    grads = [
        torch.autograd.grad(
            sum((v * w).sum() for v, w in zip(values, weights, strict=True)), wanted, materialize_grads=True
        )
        for values in (found, exact)
    ]
    for f, e in zip((*found, *grads[0]), (*exact, *grads[1]), strict=True):
        assert_close_in_float64(f, e)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("who", ["cpu", "reference"])
def test_inputs_and_weights_are_dropped_before_any_backend_reads_them(name, who):
    layer = layer_of(name, num_layers=2, bidirectional=True, input_dropout=0.4, dropconnect=0.3, backend=who)
    plain = layer_of(name, num_layers=2, bidirectional=True, backend=who)
    x = torch.randn(T, B, I, dtype=torch.float64)
    found = layer(x, generator=seeded())[0]
    drawn = seeded()

    def mask(p, *shape):
        return (torch.rand(shape, generator=drawn) >= p).double() / (1 - p)

    with torch.no_grad():
        for key, weight in plain.named_parameters():
            if key.startswith("weight_hh"):
                weight.mul_(mask(0.3, *weight.shape))
    inputs = []  # one mask for all steps of a layer's input
    single = [
        OURS[name](width, H, dtype=torch.float64, bidirectional=True, backend=who) for width in (I, 2 * H)
    ]
    exact = x
    for number, one in enumerate(single):
        one.load_state_dict({n.replace(f"_l{number}", "_l0"): p for n, p in plain.named_parameters()
                             if f"_l{number}" in n})  # fmt: skip
        inputs.append(mask(0.4, B, exact.shape[-1]))
        exact = one(exact * inputs[-1])[0]
    assert_close_in_float64(found, exact)
    assert 0 < inputs[0].count_nonzero() < inputs[0].numel()


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_one_seed_gives_one_result_whoever_computes_and_leaves_torchs_generator_alone(name):
    options = {"num_layers": 2, "dropout": 0.5, "dropconnect": 0.3, "input_dropout": 0.3}
    x, lengths = torch.randn(T, B, I, dtype=torch.float64), torch.tensor([5, 0, 3])
    layers = [layer_of(name, **options, backend=who) for who in ("cpu", "reference")]
    before = torch.get_rng_state()
    results = [layer(x, lengths=lengths, generator=seeded())[0] for layer in layers]
    assert_close_in_float64(*results)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[0](x, lengths=lengths, generator=seeded())[0], results[0])
    assert not torch.equal(layers[0](x, lengths=lengths, generator=seeded(7))[0], results[0])
    torch.manual_seed(3)
    first = layers[0](x)[0]
    torch.manual_seed(3)
    assert torch.equal(layers[0](x)[0], first)
    assert not torch.equal(layers[0](x)[0], first)
    low = layer_of(name, state_dropout=0.5, recurrent_dropout=0.5).bfloat16()
    wide = layer_of(name, state_dropout=0.5, recurrent_dropout=0.5)
    for layer, dtype in ((low, torch.bfloat16), (wide, torch.float64)):
        steps = layer(x.to(dtype) * 0, generator=seeded(), return_gates=True)[2]
        results.append(steps["hidden"].double())
    assert (results[-1] - results[-2]).abs().max() < 0.05  # other masks would differ by far more


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_evaluation_is_the_expectation(name):
    """Of inverted masks that is the plain cell, of zoneout the mean, one step from a given state."""
    x, states = torch.randn(1, B, I, dtype=torch.float64), torch.randn(2, 1, B, H, dtype=torch.float64)
    hx = states[0] if name == "GRU" else tuple(states)
    dropping = layer_of(
        name, recurrent_dropout=0.5, state_dropout=0.5, input_dropout=0.5, dropconnect=0.5
    ).eval()
    plain = layer_of(name, backend="cpu")
    assert torch.equal(dropping(x, hx)[0], plain(x, hx)[0])
    assert "cpu        CHOSEN" in gatedcells.explain_backend(dropping, x)
    p, draws = 0.25, 4000
    zoned = layer_of(name, zoneout=p)
    mean = zoned.eval()(x, hx)[0]
    assert_close_in_float64(mean, p * states[0] + (1 - p) * plain(x, hx)[0])
    many = [part.expand(1, B, H).repeat(1, draws, 1) for part in states]
    drawn = zoned.train()(x.repeat(1, draws, 1), many[0] if name == "GRU" else tuple(many))[0]
    spread = (states[0] - plain(x, hx)[0]).abs().max() * math.sqrt(p * (1 - p) / draws)
    assert (drawn.view(draws, B, H).mean(0) - mean[0]).abs().max() < 6 * spread


def test_masks_of_the_candidate_and_of_zoneout_differ_from_step_to_step():
    gru = layer_of("GRU", recurrent_dropout=0.5)
    x = torch.randn(40, 1, I, dtype=torch.float64)
    _, _, steps = gru(x, return_gates=True)
    before = torch.cat((torch.zeros(1, 1, H, dtype=torch.float64), steps["hidden"][0, :-1]))
    z, n = steps["update"][0], steps["candidate"][0]
    written = ((steps["hidden"][0] - z * before) / ((1 - z) * n)).round(decimals=6)
    assert set(written.unique().tolist()) == {0.0, 2.0}
    assert all(0 < column.count_nonzero() < 40 for column in written[:, 0].T)
    lstm = layer_of("LSTM", zoneout=(0.5, 0.0))
    _, _, steps = lstm(x, return_gates=True)
    kept = steps["hidden"][0, 1:] == steps["hidden"][0, :-1]
    assert 0.3 < kept.double().mean() < 0.7
    assert not (steps["cell"][0, 1:] == steps["cell"][0, :-1]).any()


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_lengths_resets_and_packing_go_with_variants(name):
    layer = layer_of(name, layer_norm=True, zoneout=0.3, num_layers=2, bidirectional=True).eval()
    x = torch.randn(T, B, I, dtype=torch.float64)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2] = True
    assert_close_in_float64(layer(x, resets=resets)[0], torch.cat([layer(x[:2])[0], layer(x[2:])[0]]))
    found = layer(x, lengths=torch.tensor([5, 2, 0]))[0]
    assert_close_in_float64(found[:2, 1], layer(x[:2, 1])[0])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x[:, :2], [5, 2])
    assert_close_in_float64(layer(packed)[0].data[-1], found[4, 0])
    one_direction = layer_of(name, layer_norm=True, zoneout=0.3).eval()
    state = None
    for x_t in x:
        output, state = one_direction.step(x_t, state)
    assert_close_in_float64(output, one_direction(x)[0][-1])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_variants_compile_export_map_and_differentiate(name):
    layer = layer_of(name, layer_norm=True, zoneout=0.2, state_dropout=0.3, recurrent_dropout=0.3)
    x = torch.randn(T, B, I, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.manual_seed(2)
    found = compiled(x)[0]
    torch.manual_seed(2)
    assert_close_in_float64(found, layer(x)[0])
    layer.eval()
    dynamic = {"input": {0: torch.export.Dim("T")}}
    if gatedcells.reference.scan.AVAILABLE:
        program = torch.export.export(layer, (x,), dynamic_shapes=dynamic).module()
        longer = torch.randn(9, B, I, dtype=torch.float64)
        assert_close_in_float64(program(longer)[0], layer(longer)[0])
    mapped = torch.vmap(lambda row: layer(row)[0], in_dims=1, out_dims=1)(x)
    assert_close_in_float64(mapped, layer(x)[0])
    tangent = torch.randn_like(x)
    _, slope = torch.func.jvp(lambda x: layer(x)[0], (x,), (tangent,))
    step = 1e-5
    with torch.no_grad():
        difference = (layer(x + step * tangent)[0] - layer(x - step * tangent)[0]) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_normalised_layer_has_one_second_derivative_in_forward_and_in_reverse_mode(name):
    layer = layer_of(name, layer_norm=True)
    x = torch.randn(2, 1, I, dtype=torch.float64)

    def loss(x):
        return layer(x)[0].square().sum()

    forward, reverse = torch.func.jacfwd, torch.func.jacrev
    (d_x,) = torch.autograd.grad(loss(x.requires_grad_()), x, create_graph=True)
    exact = torch.stack([torch.autograd.grad(d, x, retain_graph=True)[0] for d in d_x.flatten()])
    for outer in (forward, reverse):
        for inner in (forward, reverse):
            found = outer(inner(loss))(x.detach()).reshape(exact.shape)
            torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("GRU", {"layer_norm": True}, "layer_norm"),
        ("LSTM", {"peephole": True}, "peephole"),
        ("LSTM", {"zoneout": (0.0, 0.1)}, "zoneout"),
        ("GRU", {"state_dropout": 0.1, "recurrent_dropout": 0.1}, "state_dropout, recurrent_dropout"),
    ],
)
def test_who_computes_is_said_and_another_that_is_asked_for_is_refused(name, options, words):
    x = torch.randn(T, B, I, dtype=torch.float64)
    for bidirectional in (False, True):
        layer = layer_of(name, **options, backend="cpu", bidirectional=bidirectional)
        with pytest.raises(gatedcells.BackendUnavailable, match="its kernels do not support") as raised:
            layer(x)
        unsupported = str(raised.value).split("do not support ")[1].split(";")[0]
        assert set(words.split(", ")) == set(unsupported.split(", "))
        said = gatedcells.explain_backend(layer_of(name, **options), x)
        assert "reference  CHOSEN" in said
        assert f"with {', '.join(sorted(words.split(', '), key=said.index))}" in said


def test_a_trace_has_the_values_and_refuses_the_plain_equations():
    layer = layer_of("LSTM", layer_norm=True, peephole=True)
    x = torch.randn(T, B, I, dtype=torch.float64)
    trace = layer.trace(x)
    assert torch.equal(trace.output, layer(x)[0])
    assert torch.equal(trace[0]["forget"], layer(x, return_gates=True)[2]["forget"][0])
    for refused in (trace.check, lambda: trace.explain(0), trace.to_html):
        with pytest.raises(RuntimeError, match="needs a plain LSTM, got one with layer_norm, peephole"):
            refused()
    assert "layer_norm, peephole" in trace._repr_html_()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("GRU", {"zoneout": 1.5}, ValueError, r"zoneout must be a probability in 0..1, got 1.5"),
        ("GRU", {"zoneout": (0.1, 0.1)}, ValueError, r"zoneout must be a probability, got \(0.1, 0.1\)"),
        ("LSTM", {"zoneout": (0.1,)}, ValueError,
         r"zoneout must be a probability or a pair \(hidden, cell\), got \(0.1,\)"),
        ("LSTM", {"dropconnect": -0.1}, ValueError, r"dropconnect must be a probability in 0..1, got -0.1"),
        ("LSTM", {"input_dropout": True}, ValueError, "input_dropout must be a probability"),
        ("GRU", {"layer_norm": 1}, TypeError, "layer_norm must be True or False, got 1"),
        ("GRU", {"layer_norm": True, "recompute": True}, ValueError,
         "recompute=True supports the plain cell only, got layer_norm=True"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        OURS[name](I, H, **options)


def test_an_inference_call_is_not_remembered_where_training_differs():
    layer = layer_of("GRU", dropconnect=0.5)
    x = torch.randn(T, B, I, dtype=torch.float64)
    with torch.no_grad():
        layer.eval()
        plain = [layer(x)[0], layer(x)[0]]
        assert torch.equal(*plain)
        layer.train()
        assert not torch.equal(layer(x)[0], plain[0])
    assert repr(layer) == "GRU(3, 4, dropconnect=0.5)"
    assert repr(layer_of("LSTM", zoneout=(0.1, 0.2), layer_norm=True)) == (
        "LSTM(3, 4, layer_norm=True, zoneout=(0.1, 0.2))"
    )


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_autocast_takes_variants_along(name):
    layer = layer_of(name, layer_norm=True, zoneout=0.3, state_dropout=0.2).float()
    x = torch.randn(T, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = layer(x)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"zoneout": 0.1}, {"learn_h0": True}])
def test_what_no_other_library_takes_is_not_lost_in_an_exchange(options):
    (said,) = (f"{name}={value}" for name, value in options.items())
    with pytest.raises(LossyConversion, match=f"this LSTM has {said if said[0] != 'z' else 'zoneout'}"):
        Weights.of(gatedcells.LSTM(3, 4, **options))
    Weights.of(gatedcells.LSTM(3, 4, state_dropout=0.1, dropconnect=0.1, init="chrono", t_max=9).eval())
