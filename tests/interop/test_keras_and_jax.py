"""Keras, Flax and Equinox themselves compute what we compute, with our weights and with theirs.

One file, and imports in a fixture: every worker of a run reads this file, and seldom more than one runs it.
"""

import os
import sys
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatedcells
from gatedcells import interop
from gatedcells.interop import LossyConversion, gate_order
from gatedcells.testing import (
    assert_close_in_float64,
    assert_golden,
    assert_within_budget,
    golden_cases,
)
from tests.support.exchange import assert_same, golden_layer, layers, randomised, run_golden

jax = keras = eqx = linen = nnx = None


@pytest.fixture(scope="module", autouse=True)
def _libraries():
    global jax, keras, eqx, linen, nnx
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["KERAS_HOME"] = os.devnull  # no settings of this machine
    jax, keras, eqx, linen, nnx = (
        pytest.importorskip(name, reason="from Python 3.11 on")
        for name in ("jax", "keras", "equinox", "flax.linen", "flax.nnx")
    )


GOLDEN = [case for case in golden_cases() if "weight_hr_l0" not in case.weights]
AFTER = [case for case in GOLDEN if case.reset_after]
sizes = st.integers(1, 7)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def as_jax(tensor):
    return jax.numpy.asarray(tensor.detach().numpy())


def as_torch(array):
    return torch.from_numpy(np.array(array))


# Keras


def run_keras(case, layer, dtype):
    """A Keras layer on a golden case: outputs ``[T, B, D*H]`` and last states."""
    x = case.input.to(dtype).transpose(0, 1)
    mask = None if case.lengths is None else torch.arange(x.shape[1]) < case.lengths[:, None]
    initial = None
    if case.initial is not None:
        initial = [part[d].to(dtype) for d in range(len(case.initial[0])) for part in case.initial]
    with torch.no_grad():
        output, *states = layer(x, mask=mask, initial_state=initial)
    kinds = len(case.last)
    last = tuple(torch.stack(states[k::kinds]) for k in range(kinds))
    return output.transpose(0, 1), last


@pytest.mark.parametrize("case", [c for c in AFTER if c.lengths is None], ids=lambda case: case.name)
def test_keras_gives_the_golden_vectors(case):
    layer = interop.keras.to_layer(golden_layer(case), return_state=True)
    assert_golden(case, *run_keras(case, layer, torch.float64))
    assert_golden(case, *run_golden(case, interop.keras.from_layer(layer, batch_first=False)))


@pytest.mark.parametrize(("cell", "reset_after"), [("GRU", True), ("GRU", False), ("LSTM", True)])
def test_keras_in_float32_is_as_near_to_the_golden_vectors_as_we_are(cell, reset_after):
    """With a mask, or the gate before the product, Keras on torch multiplies float64 matrices in float32."""
    assert keras.ops.matmul(*torch.ones(2, 3, 3, dtype=torch.float64)).dtype == torch.float32
    found, exact, ours = [], [], []
    for case in GOLDEN:
        if (case.cell, case.reset_after) != (cell, reset_after):
            continue
        layer = interop.keras.to_layer(golden_layer(case), return_state=True, dtype=torch.float32)
        for (output, last), parts in (
            (run_keras(case, layer, torch.float32), found),
            (run_golden(case, golden_layer(case, torch.float32)), ours),
            ((case.output, case.last), exact),
        ):
            parts += [part.detach().flatten() for part in (output[_steps(case)], *last)]
    assert_within_budget(torch.cat(found), exact=torch.cat(exact), rival=torch.cat(ours))


def _steps(case):
    T, B = case.output.shape[:2]
    return torch.arange(T)[:, None] < (torch.full((B,), T) if case.lengths is None else case.lengths)


@settings(max_examples=15)
@given(ours=layers(depth=2, projections=False, reset_before=False), T=sizes, B=sizes)
def test_keras_layers_of_any_size_compute_what_ours_do(ours, T, B):
    ours = ours.double()
    theirs = interop.keras.to_layers(ours)
    back = interop.keras.from_layers(theirs, batch_first=ours.batch_first).eval()
    x = torch.randn(T, B, ours.input_size, dtype=torch.float64)
    exact = by_time(ours, x)
    output = x.transpose(0, 1)
    for layer in theirs:
        output = layer(output, training=False)
    assert_close_in_float64(output.detach().transpose(0, 1), exact)
    assert_close_in_float64(by_time(back, x), exact)


@torch.no_grad()
def by_time(layer, x):
    if layer.batch_first:
        return layer(x.transpose(0, 1))[0].transpose(0, 1)
    return layer(x)[0]


def values(*theirs):
    return [variable.value.detach() for layer in theirs for variable in layer.weights]


@settings(max_examples=12)
@given(ours=layers(depth=2, projections=False))
def test_keras_layers_come_back_bit_for_bit(ours):
    theirs = interop.keras.to_layers(ours)
    back = interop.keras.from_layers(theirs, batch_first=ours.batch_first)
    if (ours.mode == "GRU" and ours.reset_after) or not ours.bias:
        assert_same(back.eval(), ours)
    again = interop.keras.to_layers(back)
    assert all(map(torch.equal, values(*theirs), values(*again)))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_gradients_through_keras_are_ours_in_its_order(name):
    ours = randomised(getattr(gatedcells, name)(3, 4, batch_first=True, dtype=torch.float64))
    theirs = interop.keras.to_layer(ours)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 5, 4, dtype=torch.float64)
    (ours(x)[0] * weight).sum().backward()
    exact, x.grad = x.grad, None
    (theirs(x) * weight).sum().backward()
    assert_close_in_float64(x.grad, exact)
    source, target = gate_order.OURS[name], getattr(gate_order, f"KERAS_{name}")
    for mine, kernel in (
        (ours.weight_ih_l0, theirs.cell.kernel),
        (ours.weight_hh_l0, theirs.cell.recurrent_kernel),
    ):
        assert_close_in_float64(kernel.value.grad.T, gate_order.reorder(mine.grad, source, target))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_keras_layer_that_goes_backwards_is_ours_on_the_input_turned_round(name):
    ours = randomised(getattr(gatedcells, name)(3, 4, batch_first=True, dtype=torch.float64, bias=False))
    theirs = interop.keras.to_layer(ours, go_backwards=True)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    assert_close_in_float64(theirs(x).detach(), ours(x.flip(1))[0].detach())
    assert_same(interop.keras.from_layer(theirs, go_backwards=True), ours)
    with pytest.raises(
        LossyConversion, match=r"from the last step to the first.*from_layer\(layer, go_backwards=True\)"
    ):
        interop.keras.from_layer(theirs)
    with pytest.raises(
        ValueError, match="go_backwards=True was given, but this layer has go_backwards=False"
    ):
        interop.keras.from_layer(interop.keras.to_layer(ours), go_backwards=True)
    both = gatedcells.GRU(3, 4, bidirectional=True)
    with pytest.raises(ValueError, match="needs a unidirectional layer, got a bidirectional one"):
        interop.keras.to_layer(both, go_backwards=True)
    with pytest.raises(ValueError, match="needs a unidirectional layer, got a Bidirectional"):
        interop.keras.from_layer(interop.keras.to_layer(both), go_backwards=True)


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell"])
def test_keras_cells_compute_what_ours_do_and_come_back(name):
    ours = randomised(getattr(gatedcells, name)(3, 4))
    theirs = interop.keras.to_cell(ours)
    x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    state = h if name == "GRUCell" else (h, c)
    exact = getattr(gatedcells, name)(3, 4).double()
    exact.load_state_dict(ours.state_dict())
    right = exact(x.double(), h.double() if name == "GRUCell" else (h.double(), c.double()))
    mine, found = ours(x, state), theirs(x, [h] if name == "GRUCell" else [h, c])[0]
    if name == "LSTMCell":
        right, mine = right[0], mine[0]
    assert_within_budget(found.detach(), exact=right.detach(), rival=mine.detach())
    again = interop.keras.to_cell(interop.keras.from_cell(theirs))
    assert all(map(torch.equal, values(theirs), values(again)))
    with pytest.raises(TypeError, match=r"expected a keras\.layers\.GRUCell or LSTMCell, got .*\.Dense"):
        interop.keras.from_cell(keras.layers.Dense(3))


def test_keras_weights_in_bfloat16_come_back_and_no_numbers_are_drawn():
    ours = randomised(gatedcells.GRU(3, 4, num_layers=2, batch_first=True, dtype=torch.bfloat16))
    before = torch.get_rng_state()
    theirs = interop.keras.to_layers(ours)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(interop.keras.from_layers(theirs), ours)
    assert type(theirs[0].cell.kernel_initializer).__name__ == "GlorotUniform"


def test_keras_is_not_let_to_round_in_silence(monkeypatch):
    """As on JAX without 64-bit numbers: what it holds is not what was asked for."""
    monkeypatch.setattr(keras.backend, "standardize_dtype", lambda dtype: "float32")
    with pytest.raises(
        LossyConversion, match="Keras on torch holds weights of float64 in float32: pass dtype=torch.float32"
    ):
        interop.keras.to_layer(gatedcells.GRU(3, 4, dtype=torch.float64))


def built(layer):
    layer.build((2, None, 3))
    return layer


def GRU(*args, **options):
    return keras.layers.GRU(*args, **options)


def LSTM(*args, **options):
    return keras.layers.LSTM(*args, **options)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: GRU(4, activation="relu"), "this layer has activation=relu, expected tanh"),
        (
            lambda: LSTM(4, recurrent_activation="hard_sigmoid"),
            "this layer has recurrent_activation=hard_sigmoid, expected sigmoid",
        ),
        (lambda: GRU(4, recurrent_dropout=0.2), r"recurrent_dropout=0\.2, which is not converted"),
        (lambda: LSTM(4, dropout=0.1), r" dropout=0\.1, which is not converted"),
        (lambda: GRU(4, stateful=True), "keeps its state from call to call"),
        (lambda: GRU(4, dtype="mixed_bfloat16"), "computes in bfloat16 with weights in float32"),
        (lambda: keras.layers.Bidirectional(GRU(4), merge_mode="sum"), "merge_mode='sum', expected 'concat'"),
        (
            lambda: keras.layers.Bidirectional(GRU(4, go_backwards=True), backward_layer=GRU(4)),
            "needs a forward_layer with go_backwards=False and a backward_layer .*, got True and False",
        ),
    ],
)  # fmt: skip
def test_what_ours_do_not_compute_is_refused(layer, message):
    with pytest.raises(LossyConversion, match=message):
        interop.keras.from_layer(built(layer()))


def test_a_keras_layer_without_its_dropouts_is_for_inference():
    layer = built(
        keras.layers.Bidirectional(LSTM(4, dropout=0.1, recurrent_dropout=0.2, return_sequences=True))
    )
    with pytest.raises(LossyConversion, match="for inference only, set dropout of its cell to 0 first"):
        interop.keras.from_layer(layer)
    x = torch.randn(2, 5, 3)
    theirs = layer(x, training=False)
    for one in (layer.forward_layer, layer.backward_layer):
        one.cell.dropout = one.cell.recurrent_dropout = 0
    ours = interop.keras.from_layer(layer)
    torch.testing.assert_close(ours(x)[0], theirs)


def test_other_objects_of_keras_are_refused_in_words():
    with pytest.raises(ValueError, match=r"this Keras GRU has no weights yet: call it or its build\(\)"):
        interop.keras.from_layer(GRU(4))
    with pytest.raises(
        TypeError, match=r"expected a keras\.layers\.GRU, LSTM or Bidirectional of one, got .*\.SimpleRNN"
    ):
        interop.keras.from_layer(built(keras.layers.SimpleRNN(4)))

    class Mine(keras.layers.GRU):
        pass

    with pytest.raises(TypeError, match="got .*Mine"):
        interop.keras.from_layer(built(Mine(4)))
    stack = [built(GRU(4, return_sequences=True)), keras.layers.Dropout(0.5)]
    with pytest.raises(
        ValueError, match="expected recurrent layers with a Dropout of the same rate between all of them or"
    ):
        interop.keras.from_layers(stack)
    with pytest.raises(ValueError, match="every layer but the last needs return_sequences=True"):
        interop.keras.from_layers([built(GRU(3)), built(GRU(3))])
    with pytest.raises(ValueError, match=r"layer 1: expected GRU\(4, 4\).*got GRU\(3, 4\)"):
        interop.keras.from_layers([built(GRU(4, return_sequences=True)), built(GRU(4))])
    with pytest.raises(
        LossyConversion, match="a Keras layer holds a single layer, got num_layers=2: use to_layers"
    ):
        interop.keras.to_layer(gatedcells.GRU(3, 4, num_layers=2))
    with pytest.raises(LossyConversion, match="Keras has no LSTM with a projection"):
        interop.keras.to_layers(gatedcells.LSTM(3, 4, proj_size=2))


def test_beyond_a_rows_length_keras_repeats_its_last_output_or_gives_zeros():
    """What docs/exchange.md says of masks."""
    layer = interop.keras.to_layer(gatedcells.GRU(3, 4))
    x, mask = torch.randn(1, 3, 3), torch.tensor([[True, False, False]])
    output = layer(x, mask=mask).detach()
    assert torch.equal(output[0, 2], output[0, 0])
    layer.zero_output_for_mask = True
    assert not layer(x, mask=mask)[0, 1:].any()


# Flax


@cache
def linen_rnn():
    @partial(jax.jit, static_argnums=(0, 1))
    def run(cell, reverse, params, x, carry, lengths):
        kind = linen.GRUCell if cell == "GRU" else linen.OptimizedLSTMCell
        rnn = linen.RNN(
            kind(3, param_dtype=float), time_major=True, return_carry=True, reverse=reverse, keep_order=True
        )
        return rnn.apply({"params": {"cell": params}}, x, initial_carry=carry, seq_lengths=lengths)

    return run


def run_flax(case, params):
    """linen.RNN, or two of them, on a golden case."""
    outputs, lasts = [], []
    T, B = case.input.shape[:2]
    lengths = jax.numpy.full((B,), T) if case.lengths is None else as_jax(case.lengths)
    for d, one in enumerate(params):
        initial = (
            [np.zeros((B, 3))] * 2 if case.initial is None else [as_jax(part[d]) for part in case.initial]
        )
        carry = initial[0] if case.cell == "GRU" else tuple(initial[::-1])  # (c, h)
        last, output = linen_rnn()(case.cell, d == 1, one, as_jax(case.input), carry, lengths)
        outputs.append(as_torch(output))
        lasts.append([as_torch(last)] if case.cell == "GRU" else [as_torch(part) for part in last[::-1]])
    return torch.cat(outputs, -1), [torch.stack(parts) for parts in zip(*lasts, strict=True)]


@pytest.mark.parametrize("case", AFTER, ids=lambda case: case.name)
def test_flax_gives_the_golden_vectors(case):
    cells = interop.cells_of(golden_layer(case))
    params = [interop.flax.to_params(cell) for cell in cells[0]]
    assert_golden(case, *run_flax(case, params))
    back = interop.layer_of([[interop.flax.from_params(one) for one in params]])
    assert_golden(case, *run_golden(case, back))


def steps_of_jax(params, theirs, x, h, c):
    """One step by linen and by Equinox: each one's new states."""
    if isinstance(theirs, eqx.nn.GRUCell):
        return [linen.GRUCell(h.shape[-1]).apply(params, h, x)[0]], [jax.vmap(theirs)(x, h)]
    return linen.LSTMCell(h.shape[-1]).apply(params, (c, h), x)[0][::-1], jax.vmap(theirs)(x, (h, c))


@settings(max_examples=5)
@given(ours=layers(depth=1, bidirectional=False, projections=False, reset_before=False), B=sizes)
def test_a_step_of_flax_and_of_equinox_of_any_size_is_ours(ours, B):
    ours = interop.cells_of(ours.double())[0][0]
    x = torch.randn(B, ours.input_size, dtype=torch.float64)
    h, c = (torch.randn(B, ours.hidden_size, dtype=torch.float64) for _ in range(2))
    exact = (ours(x, h),) if isinstance(ours, gatedcells.GRUCell) else ours(x, (h, c))
    params = {"params": interop.flax.to_params(ours)}
    for found in jax.jit(steps_of_jax)(params, interop.equinox.to_cell(ours), *map(as_jax, (x, h, c))):
        for mine, other in zip(exact, found, strict=True):
            assert_close_in_float64(as_torch(other), mine.detach())


@settings(max_examples=30)
@given(ours=layers(depth=1, bidirectional=False, projections=False, reset_before=False))
def test_what_goes_to_jax_comes_back_bit_for_bit(ours):
    params = interop.flax.to_params(ours)
    there_and_back = interop.flax.to_params(interop.flax.from_params({"params": {"cell": params}}))
    jax.tree.map(np.testing.assert_array_equal, params, there_and_back)
    theirs = interop.equinox.to_cell(ours)
    again = interop.equinox.to_cell(interop.equinox.from_cell(theirs))
    jax.tree.map(np.testing.assert_array_equal, theirs, again)
    if not ours.bias:
        assert_same(interop.equinox.from_cell(theirs), interop.cells_of(ours)[0][0])


def test_flax_takes_our_parameters_for_its_own():
    cells = {"GRU": (linen.GRUCell,), "LSTM": (linen.LSTMCell, linen.OptimizedLSTMCell)}
    for name, kinds in cells.items():
        ours = interop.flax.to_params(getattr(gatedcells, f"{name}Cell")(3, 4))
        for kind in kinds:
            carry = jax.numpy.zeros((1, 4))
            theirs = jax.eval_shape(
                kind(4).init, jax.random.PRNGKey(0), carry if name == "GRU" else (carry, carry), carry[:, :3]
            )["params"]
            assert jax.tree.structure(ours) == jax.tree.structure(theirs)
            assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)


def test_nnx_computes_what_ours_do_where_it_has_all_biases():
    x, h, c = (torch.randn(2, width, dtype=torch.float64) for width in (3, 4, 4))
    gru = randomised(gatedcells.GRUCell(3, 4, dtype=torch.float64))
    with pytest.raises(
        LossyConversion, match=r"flax\.nnx\.GRUCell has no hidden bias of the candidate \(b_hn\)"
    ):
        interop.flax.to_nnx(gru)
    with torch.no_grad():
        gate_order.split(gru.bias_hh, gate_order.TORCH_GRU)["candidate"].zero_()
    theirs = interop.flax.to_nnx(gru)
    assert_close_in_float64(as_torch(theirs(as_jax(h), as_jax(x))[0]), gru(x, h).detach())
    assert_close_in_float64(interop.flax.from_nnx(theirs)(x, h).detach(), gru(x, h).detach())
    lstm = randomised(gatedcells.LSTMCell(3, 4, dtype=torch.float64))
    exact = lstm(x, (h, c))[0].detach()
    theirs = interop.flax.to_nnx(lstm)
    assert_close_in_float64(as_torch(theirs((as_jax(c), as_jax(h)), as_jax(x))[1]), exact)
    assert_close_in_float64(interop.flax.from_nnx(theirs)(x, (h, c))[0].detach(), exact)
    theirs = nnx.LSTMCell(3, 4, param_dtype=float, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0))
    exact = as_torch(theirs((as_jax(c), as_jax(h)), as_jax(x))[1])
    assert_close_in_float64(interop.flax.from_nnx(theirs)(x, (h, c))[0].detach(), exact)


def test_other_cells_of_flax_are_refused():
    h, x = jax.numpy.zeros((1, 4)), jax.numpy.zeros((1, 3))
    for kind, what in ((linen.SimpleCell, "a SimpleCell, "), (linen.MGUCell, "an MGUCell, which has one")):
        params = jax.eval_shape(kind(4).init, jax.random.PRNGKey(0), h, x)
        with pytest.raises(LossyConversion, match=f"got those of {what}"):
            interop.flax.from_params(params)
    with pytest.raises(
        LossyConversion, match=r"expected the parameters of a GRUCell or LSTMCell, got \['ir'"
    ):
        interop.flax.from_params({"ir": {}, "iz": {}})
    relu = nnx.eval_shape(lambda: nnx.GRUCell(3, 4, activation_fn=nnx.relu, rngs=nnx.Rngs(0)))
    with pytest.raises(
        LossyConversion, match="has the activation relu, expected sigmoid for the gates and tanh"
    ):
        interop.flax.from_nnx(relu)
    for kind in (nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell):
        low = nnx.eval_shape(lambda kind=kind: kind(3, 4, dtype=jax.numpy.bfloat16, rngs=nnx.Rngs(0)))
        with pytest.raises(LossyConversion, match="computes in bfloat16 with weights in float32; gatedcells"):
            interop.flax.from_nnx(low)
    with pytest.raises(TypeError, match="got .*SimpleCell"):
        interop.flax.from_nnx(nnx.eval_shape(lambda: nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))))


# Equinox


@cache
def equinox_scan():
    @partial(jax.jit, static_argnums=1)
    def run(cell, reverse, x, state, lengths):
        """A cell over time, ``[T, B, I]``; a row keeps its state outside of its steps."""

        def step(state, step_input):
            t, x = step_input
            new = jax.vmap(cell)(x, state)
            state = jax.tree.map(lambda n, o: jax.numpy.where((t < lengths)[:, None], n, o), new, state)
            return state, state if isinstance(cell, eqx.nn.GRUCell) else state[0]

        return jax.lax.scan(step, state, (jax.numpy.arange(len(x)), x), reverse=reverse)

    return run


def run_equinox(case, cells):
    """Equinox' cells on a golden case."""
    outputs, lasts = [], []
    T, B = case.input.shape[:2]
    lengths = jax.numpy.full((B,), T) if case.lengths is None else as_jax(case.lengths)
    for d, cell in enumerate(cells):
        initial = (
            [np.zeros((B, 3))] * 2 if case.initial is None else [as_jax(part[d]) for part in case.initial]
        )
        state = initial[0] if case.cell == "GRU" else tuple(initial)
        last, output = equinox_scan()(cell, d == 1, as_jax(case.input), state, lengths)
        outputs.append(as_torch(output))
        lasts.append([as_torch(part) for part in ((last,) if case.cell == "GRU" else last)])
    return torch.cat(outputs, -1), [torch.stack(parts) for parts in zip(*lasts, strict=True)]


@pytest.mark.parametrize("case", AFTER, ids=lambda case: case.name)
def test_equinox_gives_the_golden_vectors(case):
    cells = [interop.equinox.to_cell(cell) for cell in interop.cells_of(golden_layer(case))[0]]
    assert_golden(case, *run_equinox(case, cells))
    back = interop.layer_of([[interop.equinox.from_cell(cell) for cell in cells]])
    assert_golden(case, *run_golden(case, back))


def test_gradients_through_equinox_are_ours():
    """Of the biases too: their sums' gradients are those of either part."""
    ours = randomised(gatedcells.GRUCell(3, 4, dtype=torch.float64))
    theirs = interop.equinox.to_cell(ours)
    x, h = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    ours(x, h).square().sum().backward()
    loss = jax.jit(jax.grad(lambda cell: (cell(as_jax(x[0]), as_jax(h[0])) ** 2).sum()))
    found = loss(theirs)
    for name in ("weight_ih", "weight_hh"):
        assert_close_in_float64(as_torch(getattr(found, name)), getattr(ours, name).grad, name)
    assert_close_in_float64(as_torch(found.bias), ours.bias_ih.grad, "bias")
    candidate = gate_order.split(ours.bias_hh.grad, gate_order.TORCH_GRU)["candidate"]
    assert_close_in_float64(as_torch(found.bias_n), candidate, "bias_n")


def test_other_objects_are_no_equinox_cells():
    with pytest.raises(
        TypeError, match=r"expected an equinox\.nn\.GRUCell or LSTMCell, got equinox.*\.Identity"
    ):
        interop.equinox.from_cell(eqx.nn.Identity())


TO_JAX = [interop.flax.to_params, interop.flax.to_nnx, interop.equinox.to_cell]


@pytest.mark.parametrize("convert", TO_JAX, ids=lambda convert: convert.__qualname__)
def test_jax_is_not_let_to_round_in_silence(convert):
    cell = gatedcells.LSTMCell(3, 4, dtype=torch.float64)
    with jax.enable_x64(False):
        with pytest.raises(
            LossyConversion, match=r"would round float64 to float32, .*pass dtype=torch\.float32"
        ):
            convert(cell)
        assert "float32" in str(jax.tree.leaves(convert(cell, dtype=torch.float32))[0].dtype)


def test_jax_gets_memory_of_its_own():
    cell = gatedcells.GRUCell(16, 64)
    kept = [tensor.clone() for tensor in cell.parameters()]
    params = [interop.flax.to_params(cell) for _ in range(8)]  # some lie as JAX would share them
    with torch.no_grad():
        cell.bias_hh.add_(1)
    candidate = gate_order.split(kept[3], gate_order.TORCH_GRU)["candidate"]
    for one in params:
        assert torch.equal(as_torch(one["hn"]["bias"]), candidate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precisions_go_to_jax_and_back(dtype):
    cell = randomised(gatedcells.GRUCell(3, 4, dtype=dtype, bias=False))
    assert_same(interop.equinox.from_cell(interop.equinox.to_cell(cell)), cell)
    back = interop.flax.from_params(interop.flax.to_params(cell))
    assert torch.equal(back.weight_hh, cell.weight_hh)
    assert back.weight_hh.dtype == dtype


@pytest.mark.parametrize("convert", TO_JAX, ids=lambda convert: convert.__qualname__)
def test_what_jaxs_libraries_have_not_is_refused(convert):
    for module, message in (
        (gatedcells.GRU(3, 4, reset_after=False), "acts before the matrix product"),
        (gatedcells.LSTM(3, 4, proj_size=2), "has no LSTM with a projection"),
        (gatedcells.GRU(3, 4, bidirectional=True), r"1 layer\(s\) of 2 direction\(s\)"),
    ):
        with pytest.raises(LossyConversion, match=message):
            convert(module)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    for module, convert, extra in (
        ("onnx", interop.onnx.to_model, "onnx"),
        ("keras", interop.keras.to_layer, "keras"),
        ("jax", interop.flax.to_params, "jax"),
        ("equinox", interop.equinox.to_cell, "jax"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        message = rf"this conversion needs {module}: pip install 'gatedcells\[{extra}\]'"
        with pytest.raises(ModuleNotFoundError, match=message):
            convert(randomised(gatedcells.GRU(3, 4)))
