"""Orders of gates, torch's own modules, cells and layers, cuDNN's buffer, Haste's layout."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import gatedcells
from gatedcells import interop
from gatedcells.interop import LossyConversion, gate_order
from gatedcells.interop.gate_order import GateOrder, reorder
from gatedcells.testing import assert_close_in_float64, assert_golden, golden_cases
from tests.support.exchange import assert_same, golden_layer, layers, run_golden

ORDERS = [order for order in vars(gate_order).values() if isinstance(order, GateOrder)]
KINDS = ("GRU", "LSTM", "GRUCell", "LSTMCell")


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_every_order_is_of_all_gates_and_leads_back(cell):
    orders = [order for order in ORDERS if order.cell == cell]
    assert len({order.library for order in orders}) == 7
    weight = torch.randn(len(orders[0].gates) * 5, 3)
    for one, other in itertools.product(orders, orders):
        there = reorder(weight, one, other)
        assert torch.equal(reorder(there, other, one), weight)
        assert torch.equal(reorder(weight.T, one, other, dim=1), there.T)
        blocks = gate_order.split(there, other)
        for gate, block in gate_order.split(weight, one).items():
            assert torch.equal(blocks[gate], block)


def test_the_orders_are_those_of_the_libraries_documents():
    """The letters as the documents named in `gate_order` write them."""
    letters = {
        "GRU": dict(zip(("reset", "update", "candidate"), "rzn", strict=True)),
        "LSTM": dict(zip(("input", "forget", "candidate", "output"), "ifgo", strict=True)),
    }
    found = {(o.library, o.cell): "".join(letters[o.cell][gate] for gate in o.gates) for o in ORDERS}
    assert found == {
        ("torch", "GRU"): "rzn", ("torch", "LSTM"): "ifgo",
        ("cuDNN", "GRU"): "rzn", ("cuDNN", "LSTM"): "ifgo",
        ("Equinox", "GRU"): "rzn", ("Equinox", "LSTM"): "ifgo",
        ("Flax", "GRU"): "rzn", ("Flax", "LSTM"): "ifgo",
        ("Keras", "GRU"): "zrn", ("Keras", "LSTM"): "ifgo",
        ("ONNX", "GRU"): "zrn", ("ONNX", "LSTM"): "iofg",
        ("Haste", "GRU"): "zrn", ("Haste", "LSTM"): "igfo",
    }  # fmt: skip


def test_orders_of_different_cells_and_other_sizes_are_refused():
    with pytest.raises(ValueError, match="must be orders of the same cell, got torch's GRU and Keras's LSTM"):
        reorder(torch.ones(12), gate_order.TORCH_GRU, gate_order.KERAS_LSTM)
    with pytest.raises(ValueError, match="axis 0 must hold the 3 gates of a GRU, got 8 entries"):
        reorder(torch.ones(8, 3), gate_order.TORCH_GRU, gate_order.KERAS_GRU)
    with pytest.raises(
        ValueError, match=r"expected the gates \['reset', 'update', 'candidate'\] of a GRU, got"
    ):
        gate_order.join({"reset": torch.ones(2)}, gate_order.TORCH_GRU)


@settings(max_examples=40)
@given(ours=layers(reset_before=False))
def test_layers_go_to_torch_and_back_bit_for_bit(ours):
    theirs = interop.torch_nn.to_module(ours)
    assert type(theirs) is getattr(nn, ours.mode)
    assert_same(interop.torch_nn.from_module(theirs), ours)
    x = torch.randn(2, 3, ours.input_size, dtype=torch.float64)
    assert_close_in_float64(ours.double()(x)[0], theirs.double()(x)[0])


@pytest.mark.parametrize("name", KINDS)
def test_torchs_modules_come_with_options_mode_dtype_and_no_random_numbers(name):
    theirs = getattr(nn, name)(3, 4, bias=False, dtype=torch.float64).eval()
    before = torch.get_rng_state()
    ours = interop.torch_nn.from_module(theirs)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(ours) is getattr(gatedcells, name)
    assert not ours.training
    assert_same(interop.torch_nn.to_module(ours), theirs)
    with torch.no_grad():
        ours.weight_ih_l0.zero_() if "Cell" not in name else ours.weight_ih.zero_()
    assert all(parameter.any() for parameter in theirs.parameters())  # a copy


def test_parametrized_weights_come_as_they_are_computed():
    theirs = weight_norm(nn.GRU(3, 4, dtype=torch.float64), "weight_hh_l0")
    with torch.no_grad():
        theirs.parametrizations.weight_hh_l0.original0.mul_(2)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert_close_in_float64(interop.torch_nn.from_module(theirs)(x)[0], theirs(x)[0])


@settings(max_examples=40)
@given(ours=layers())
def test_a_checkpoint_tells_everything_that_it_can(ours):
    state = {f"model.rnn.{name}": tensor for name, tensor in ours.state_dict().items()}
    state["model.head.weight"] = torch.ones(2, 2)
    options = {"batch_first": ours.batch_first, "dropout": ours.dropout}
    if ours.mode == "GRU":
        options["reset_after"] = ours.reset_after
    assert_same(interop.torch_nn.from_state_dict(state, prefix="model.rnn.", **options), ours)


def test_a_cells_checkpoint_is_a_cell():
    cell = gatedcells.LSTMCell(3, 4)
    assert_same(interop.torch_nn.from_state_dict(cell.state_dict()), cell)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "expected the names of one GRU or LSTM"),
        (nn.RNN(3, 4).state_dict(), r"weight_hh must have 3 rows \(GRU\) .*, got 4 rows for 4 units"),
        (
            {"weight_ih_l1": torch.ones(3, 1), "weight_hh_l1": torch.ones(3, 1)},
            "expected the names of one GRU",
        ),
        ({"weight_ih_l0": torch.ones(3, 1)}, "expected weight_ih, weight_hh and both biases or none"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        interop.torch_nn.from_state_dict(state)


def test_a_layer_that_takes_no_steps_is_not_torchs():
    with pytest.raises(LossyConversion, match="torch's layers refuse sequences of length 0"):
        interop.torch_nn.to_module(gatedcells.LSTM(3, 4, allow_empty=True))


def test_other_modules_are_refused():
    class Mine(nn.GRU):
        def forward(self, x):
            return x

    for module in (nn.RNN(3, 4), nn.Linear(3, 4), Mine(3, 4), gatedcells.GRU(3, 4)):
        with pytest.raises(TypeError, match=r"expected a GRU, LSTM, GRUCell or LSTMCell of torch\.nn, got "):
            interop.torch_nn.from_module(module)
    with pytest.raises(TypeError, match="expected a GRU, LSTM, GRUCell or LSTMCell of gatedcells, got "):
        interop.torch_nn.to_module(nn.GRU(3, 4))
    with pytest.raises(TypeError, match="expected a GRU, LSTM, GRUCell or LSTMCell, got torch.*Linear"):
        interop.haste.to_state_dict(nn.Linear(3, 4))


@pytest.mark.parametrize(
    ("library", "convert"),
    [
        ("torch", interop.torch_nn.to_module),
        ("cuDNN", interop.cudnn.to_packed),
        ("Haste", interop.haste.to_state_dict),
    ],
)
def test_a_reset_gate_before_the_product_is_refused_where_there_is_none(library, convert):
    with pytest.raises(
        LossyConversion, match=rf"acts before the matrix product.*, {library}'s acts after it"
    ):
        convert(gatedcells.GRU(3, 4, reset_after=False))


@settings(max_examples=40)
@given(ours=layers(projections=False))
def test_a_layer_is_made_of_its_cells(ours):
    cells = interop.cells_of(ours)
    assert len(cells) == ours.num_layers
    options = {"batch_first": ours.batch_first, "dropout": ours.dropout}
    assert_same(interop.layer_of(cells, **options).eval(), ours)
    x = torch.randn(2, ours.input_size, dtype=torch.float64)
    cell = cells[0][0].double()
    by_cell = cell(x) if ours.mode == "GRU" else cell(x)[0]
    assert_close_in_float64(interop.layer_of(cell)(x[None])[0][0], by_cell)


def test_cells_that_make_no_layer_are_refused():
    a, b = gatedcells.GRUCell(3, 4), gatedcells.GRUCell(4, 4, bias=False)
    with pytest.raises(
        ValueError, match=r"layer 1: expected GRU\(4, 4\), bias=True.*got GRU\(4, 4\), bias=False"
    ):
        interop.layer_of([[a], [b]])
    with pytest.raises(ValueError, match=r"layer 1: expected GRU\(8, 4\)"):
        interop.layer_of([[a, a], [a, a]])
    with pytest.raises(ValueError, match=r"needs one cell, or each two \(forward and reverse\), got \["):
        interop.layer_of([[a], [a, a]])
    with pytest.raises(TypeError, match="got torch.nn.*GRU"):
        interop.layer_of([[nn.GRU(3, 4)]])
    with pytest.raises(
        TypeError,
        match="expected a GRU or LSTM, got gatedcells.cells.gru.GRUCell; gatedcells.interop.layer_of",
    ):
        interop.cells_of(a)
    with pytest.raises(LossyConversion, match="no LSTM with a projection"):
        interop.cells_of(gatedcells.LSTM(3, 4, proj_size=2))


@settings(max_examples=40)
@given(ours=layers(reset_before=False))
def test_cudnns_buffer_leads_back_and_has_all_matrices_before_all_biases(ours):
    packed = interop.cudnn.to_packed(ours)
    rows = ours.all_weights
    parts = [part for dim in (2, 1) for row in rows for part in row if part.dim() == dim]
    assert torch.equal(packed, torch.cat([part.detach().flatten() for part in parts]))
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
    options = {name: getattr(ours, name) for name in (*names, "proj_size")}
    assert_same(interop.cudnn.from_packed(packed, ours.mode, **options), ours)


@pytest.mark.gpu
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "options"), [("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2})])
def test_cudnns_buffer_is_the_one_into_which_torch_flattens(name, options, bias):
    theirs = getattr(nn, name)(3, 5, num_layers=2, bidirectional=True, bias=bias, device="cuda", **options)
    theirs.flatten_parameters()
    storage = theirs.weight_ih_l0.untyped_storage()
    numbers = torch.empty(0, device="cuda").set_(storage)
    packed = interop.cudnn.to_packed(interop.torch_nn.from_module(theirs))
    assert torch.equal(numbers[: len(packed)], packed)


def test_a_buffer_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"these sizes need a buffer of shape \[96\], got \[95\]"):
        interop.cudnn.from_packed(torch.ones(95), "GRU", 2, 4)
    with pytest.raises(ValueError, match="cell must be 'GRU' or 'LSTM', got 'RNN'"):
        interop.cudnn.from_packed(torch.ones(96), "RNN", 2, 4)
    with pytest.raises(ValueError, match="only an LSTM has a projection: a GRU needs proj_size=0"):
        interop.cudnn.from_packed(torch.ones(96), "GRU", 2, 4, proj_size=2)


def hastes_equations(state, x, hidden, cell):
    """Haste's step as its document has it: rows times matrices, gates z, r, g or i, g, f, o."""
    if cell is None:
        x_z, x_r, x_g = (x @ state["kernel"] + state["bias"]).chunk(3, 1)
        h_z, h_r, h_g = (hidden @ state["recurrent_kernel"] + state["recurrent_bias"]).chunk(3, 1)
        z, r = torch.sigmoid(x_z + h_z), torch.sigmoid(x_r + h_r)
        return z * hidden + (1 - z) * torch.tanh(x_g + r * h_g), None
    i, g, f, o = (x @ state["kernel"] + hidden @ state["recurrent_kernel"] + state["bias"]).chunk(4, 1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


HASTES = [
    c for c in golden_cases() if not c.bidirectional and c.lengths is None and "weight_hr_l0" not in c.weights
]


@pytest.mark.parametrize("case", [case for case in HASTES if case.reset_after], ids=lambda case: case.name)
def test_hastes_equations_with_our_weights_give_the_golden_vectors(case):
    state = interop.haste.to_state_dict(golden_layer(case))
    zeros = torch.zeros_like(case.last[0][0])
    initial = tuple(part[0] for part in case.initial) if case.initial else (zeros, zeros)
    hidden, cell = initial[0], initial[1] if case.cell == "LSTM" else None
    outputs = []
    for x in case.input:
        hidden, cell = hastes_equations(state, x, hidden, cell)
        outputs.append(hidden)
    assert_golden(case, torch.stack(outputs), [part[None] for part in (hidden, cell) if part is not None])
    assert_golden(case, *run_golden(case, interop.haste.from_state_dict(state)))


@settings(max_examples=40)
@given(ours=layers(depth=1, bidirectional=False, projections=False, reset_before=False))
def test_hastes_layout_leads_back(ours):
    state = interop.haste.to_state_dict(ours)
    back = interop.haste.from_state_dict(state, batch_first=ours.batch_first)
    again = interop.haste.to_state_dict(back)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    if ours.mode == "GRU" and ours.bias:
        assert_same(back, ours)
    x = torch.randn(3, 2, ours.input_size, dtype=torch.float64)
    assert_close_in_float64(back.double()(x)[0], ours.double()(x)[0])


def test_what_haste_has_not_or_we_have_not_is_refused():
    with pytest.raises(LossyConversion, match=r"2 layer\(s\) of 1 direction.*cells_of"):
        interop.haste.to_state_dict(gatedcells.GRU(3, 4, num_layers=2))
    with pytest.raises(LossyConversion, match=r"Haste has no LSTM with a projection"):
        interop.haste.to_state_dict(gatedcells.LSTM(3, 4, proj_size=2))
    state = interop.haste.to_state_dict(gatedcells.GRUCell(3, 4))
    with pytest.raises(
        LossyConversion, match=r"expected the parameters .* of Haste's GRU or .*, got \['bias', 'gamma'"
    ):
        interop.haste.from_state_dict(state | {"gamma": torch.ones(2, 12)})
    with pytest.raises(ValueError, match=r"recurrent_kernel of Haste's GRU must be \[I, 12\] and \[4, 12\]"):
        interop.haste.from_state_dict(state | {"kernel": torch.ones(3, 16)})


def test_what_a_hook_or_a_precision_makes_is_not_lost():
    hooked = gatedcells.GRU(3, 4)
    hooked.register_gate_hook("update", lambda values, where: values * 0)
    with pytest.raises(LossyConversion, match="a gate hook"):
        interop.torch_nn.to_module(hooked)
    with pytest.raises(LossyConversion, match="precision='bf16'"):
        interop.torch_nn.to_module(gatedcells.LSTM(3, 4, precision="bf16"))


@pytest.mark.parametrize(
    "options", [{"state_dropout": 0.5}, {"dropconnect": 0.5}, {"recurrent_dropout": 0.5}]
)
def test_dropouts_that_others_have_not_are_not_lost_in_training(options):
    layer = gatedcells.GRU(3, 4, 2, **options)
    (name,) = options
    exchanges = (interop.cudnn.to_packed, interop.haste.to_state_dict, interop.cells_of)
    for exchange in (interop.torch_nn.to_module, *exchanges):
        with pytest.raises(
            LossyConversion, match=f"in training with {name}.*, which no conversion preserves: call eval"
        ):
            exchange(layer)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(interop.torch_nn.to_module(layer.eval())(x)[0], layer(x)[0])


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"peephole": True}, {"learn_h0": True}])
def test_a_checkpoint_of_more_than_the_plain_cell_is_refused(options):
    state = gatedcells.LSTM(3, 4, **options).state_dict(prefix="rnn.")
    with pytest.raises(
        LossyConversion, match="expected the parameters of a plain GRU or LSTM, got .* besides"
    ):
        interop.torch_nn.from_state_dict(state, prefix="rnn.")


def test_a_forward_replaced_on_the_object_is_refused():
    theirs = nn.GRU(3, 4)
    theirs.forward = lambda x: x
    with pytest.raises(TypeError, match="with an overridden forward"):
        interop.torch_nn.from_module(theirs)


def once_normalised(layer):
    with pytest.warns(FutureWarning, match="deprecated"):
        return nn.utils.weight_norm(layer, "weight_hh_l0")


@pytest.mark.parametrize(
    "how",
    [
        once_normalised,
        lambda layer: nn.utils.spectral_norm(layer.eval(), "weight_hh_l0"),
        lambda layer: prune.l1_unstructured(layer, "weight_hh_l0", amount=0.5),
    ],
    ids=["weight_norm", "spectral_norm", "pruned"],
)
def test_weights_that_a_hook_makes_are_those_of_the_next_call(how):
    """After an optimizer's step: what lies at weight_hh_l0 is what the last call made there."""
    layer, x = how(gatedcells.GRU(3, 4, dtype=torch.float64)), torch.randn(5, 2, 3, dtype=torch.float64)
    layer(x)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    gone = interop.torch_nn.to_module(layer)
    assert_close_in_float64(gone(x)[0], layer(x)[0])
    assert_close_in_float64(interop.torch_nn.from_module(gone).weight_hh_l0, layer.weight_hh_l0)


@pytest.mark.parametrize("base", [nn.GRU, gatedcells.GRU])
def test_a_forward_of_a_subclass_is_not_lost(base):
    class Mine(base):
        def forward(self, x):
            return super().forward(2 * x)

    replaced = base(3, 4)
    replaced.forward = lambda x: x
    for layer in (Mine(3, 4), replaced):
        for exchange in (interop.cudnn.to_packed, interop.haste.to_state_dict, interop.cells_of):
            with pytest.raises(
                LossyConversion, match="(GRU|Mine) overrides forward, which no conversion preserves"
            ):
                exchange(layer)
    interop.cells_of(type("Named", (base,), {})(3, 4))


def test_what_does_not_fit_together_is_told_by_name():
    state = gatedcells.LSTM(3, 4, num_layers=2).state_dict()
    state["weight_ih_l1"] = torch.ones(16, 5)
    with pytest.raises(ValueError, match=r"fit together: expected shapes \{'weight_ih_l1': \[16, 4\]\}, got"):
        interop.torch_nn.from_state_dict(state)
    del state["bias_ih_l1"], state["bias_hh_l1"]
    state["weight_ih_l1"] = torch.ones(16, 4)
    with pytest.raises(ValueError, match=r"bias_ih_l1': \[16\].*got .*'bias_ih_l1': None"):
        interop.torch_nn.from_state_dict(state)
    with pytest.raises(TypeError, match=r"expected gatedcells\.GRUCell or LSTMCell, got torch.*GRUCell"):
        interop.layer_of(nn.GRUCell(3, 4))


@pytest.mark.parametrize("how", [prune.identity, weight_norm], ids=["pruned", "weight_norm"])
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_a_checkpoint_of_weights_that_something_computes_is_refused(how, kind):
    """Without either bias it was read as a layer without biases."""
    layer = nn.LSTM(3, 4)
    for half in ("ih", "hh"):
        how(layer, f"{kind}_{half}_l0")
    with pytest.raises(ValueError, match=f"the weights are computed from .*{kind}_ih_l0"):
        interop.torch_nn.from_state_dict(layer.state_dict())
