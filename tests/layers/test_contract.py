"""The parts of torch's contract that are not numbers: construction, state_dict, copies, shapes, hooks."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import gatedcells
from gatedcells.testing import assert_within_budget
from tests.support.inputs import OURS, TORCHS, as_double, pair

LAYERS = ["GRU", "LSTM"]
CONFIGURATIONS = [
    {},
    {"num_layers": 3, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "dropout": 0.25, "bias": False},
    {"bias": False},
]


def seeded(cls, *args, **kwargs):
    torch.manual_seed(123)
    return cls(*args, **kwargs)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in LAYERS for options in CONFIGURATIONS]
    + [("LSTM", {"proj_size": 2, "num_layers": 2})],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_seed_gives_torchs_parameters_bit_for_bit(name, options, dtype):
    ours, theirs = (seeded(kind[name], 3, 5, dtype=dtype, **options) for kind in (OURS, TORCHS))
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert repr(ours) == repr(theirs)
    assert str(ours.state_dict().keys()) == str(theirs.state_dict().keys())
    assert ours.__constants__ == theirs.__constants__
    assert [len(w) for w in ours.all_weights] == [len(w) for w in theirs.all_weights]


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_seed_gives_torchs_cells_bit_for_bit(name, bias):
    ours, theirs = (seeded(kind[name], 3, 5, bias=bias) for kind in (OURS, TORCHS))
    for (mine_name, mine), (other_name, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert mine_name == other_name
        assert torch.equal(mine, other)
    assert repr(ours) == repr(theirs)
    assert (ours.bias_ih is None) == (theirs.bias_ih is None)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_state_dict_goes_both_ways(name, options):
    ours, theirs = OURS[name](3, 5, **options), TORCHS[name](3, 5, **options)
    assert not theirs.load_state_dict(ours.state_dict()).missing_keys
    fresh = OURS[name](3, 5, **options)
    fresh.load_state_dict(theirs.state_dict())
    for a, b in zip(ours.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
    assigned = OURS[name](3, 5, **options, device="meta")
    assigned.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(4, 2, 3)
    for module in (ours, fresh, assigned):
        module.eval()
    assert torch.equal(assigned(x)[0], ours(x)[0])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_copies_compute_the_same_and_stand_alone(name, copied):
    layer = OURS[name](3, 5, num_layers=2, backend="reference")
    twin = copied(layer)
    x = torch.randn(4, 2, 3)
    assert torch.equal(layer(x)[0], twin(x)[0])
    assert repr(layer) == repr(twin)
    with torch.no_grad():
        twin.weight_hh_l0.zero_()
    assert not torch.equal(layer(x)[0], twin(x)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_batch_first_and_unbatched_are_views_of_one_result(name):
    by_time, batch_first = (seeded(OURS[name], 3, 5, num_layers=2, batch_first=b) for b in (False, True))
    x = torch.randn(4, 2, 3)
    output, last = by_time(x)
    swapped, last_swapped = batch_first(x.transpose(0, 1))
    assert torch.equal(output, swapped.transpose(0, 1))
    assert not swapped.is_contiguous()  # as torch's: a view, not a copy
    for a, b in zip(tuple(last), tuple(last_swapped), strict=True):
        assert torch.equal(a, b)
    for layer in (by_time, batch_first):
        alone, _ = layer(x[:, 0])
        assert alone.shape == (4, 5)


@pytest.mark.parametrize("name", LAYERS)
def test_results_are_plain_tuples_and_no_state_shares_memory(name):
    layer = OURS[name](3, 5)
    result = layer(torch.randn(4, 2, 3))
    assert type(result) is tuple
    output, last = result
    states = (last,) if name == "GRU" else last
    assert name == "GRU" or type(last) is tuple
    pointers = {t.untyped_storage().data_ptr() for t in (output, *states)}
    assert len(pointers) == 1 + len(states)


@pytest.mark.parametrize("name", LAYERS)
def test_an_lstm_takes_its_states_as_a_list_and_a_cell_none(name):
    layer = OURS[name](3, 5)
    x = torch.randn(4, 2, 3)
    zeros = torch.zeros(1, 2, 5)
    given = zeros if name == "GRU" else [zeros, zeros]
    assert torch.equal(layer(x, given)[0], layer(x)[0])
    cell = OURS[name + "Cell"](3, 5)
    given = zeros[0] if name == "GRU" else (zeros[0], zeros[0])
    with_zeros, with_none = cell(x[0], given), cell(x[0])
    assert all(torch.equal(a, b) for a, b in zip(with_zeros, with_none, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_a_loop_over_the_cell_is_the_layer(name):
    layer = OURS[name](3, 5, dtype=torch.float64)
    cell = OURS[name + "Cell"](3, 5, dtype=torch.float64)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    state, states = None, []
    for x_t in x:
        state = cell(x_t, state)
        states.append(state if name == "GRU" else state[0])
    torch.testing.assert_close(layer(x)[0], torch.stack(states), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_streaming_in_chunks_is_one_long_run(name):
    layer = OURS[name](3, 5, num_layers=2, dtype=torch.float64)
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    whole, last = layer(x)
    state, parts = None, []
    for chunk in x.split([1, 4, 2, 2]):
        part, state = layer(chunk, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_an_empty_batch_goes_forward_and_backward(name, options):
    layer = OURS[name](3, 5, **options)
    output, _ = layer(torch.zeros(4, 0, 3, requires_grad=True))
    assert output.shape == (4, 0, 5 * (2 if options else 1))
    output.sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_no_steps_raise_unless_asked_to_return_the_initial_state(name, batch_first):
    shape = (2, 0, 3) if batch_first else (0, 2, 3)
    layer = OURS[name](3, 5, num_layers=2, bidirectional=True, batch_first=batch_first)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0 in RNN"):
        layer(torch.zeros(shape))
    layer = OURS[name](3, 5, 2, True, batch_first, 0.0, True, allow_empty=True)
    state = torch.randn(4, 2, 5)
    output, last = layer(torch.zeros(shape), state if name == "GRU" else (state, state + 1))
    assert output.shape == ((2, 0, 10) if batch_first else (0, 2, 10))
    found = (last,) if name == "GRU" else last
    assert torch.equal(found[0], state)
    assert len(found) == 1 or torch.equal(found[1], state + 1)
    assert found[0].data_ptr() != state.data_ptr()


def test_dropout_and_layout_can_be_changed_after_construction():
    layer = OURS["GRU"](3, 5, num_layers=2)
    x = torch.randn(4, 2, 3)
    plain, _ = layer(x)
    layer.dropout = 1.0
    assert not torch.equal(layer(x)[0], plain)
    layer.eval()
    assert torch.equal(layer(x)[0], plain)
    layer.batch_first = True
    assert layer(x)[0].shape == (4, 2, 5)
    assert layer(x)[1].shape == (2, 4, 5)


def test_packed_sequences_keep_the_users_order():
    layer = OURS["LSTM"](3, 5, num_layers=2, bidirectional=True, dtype=torch.float64)
    sequences = [torch.randn(T, 3, dtype=torch.float64) for T in (2, 5, 1, 3)]
    h, c = (torch.randn(4, 4, 5, dtype=torch.float64) for _ in range(2))
    packed, (h_n, c_n) = layer(pack_sequence(sequences, enforce_sorted=False), (h, c))
    assert isinstance(packed, PackedSequence)
    padded, lengths = nn.utils.rnn.pad_packed_sequence(packed)
    assert lengths.tolist() == [2, 5, 1, 3]
    for row, x in enumerate(sequences):
        output, (h_alone, c_alone) = layer(x, (h[:, row], c[:, row]))
        torch.testing.assert_close(padded[: len(x), row], output, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(h_n[:, row], h_alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(c_n[:, row], c_alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(OURS))
def test_the_signature_is_real_and_the_documented_positions_hold(name):
    parameters = inspect.signature(OURS[name]).parameters
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    expected = ["input_size", "hidden_size", "bias", "device", "dtype"]
    if "Cell" not in name:
        expected = [
            "input_size",
            "hidden_size",
            "num_layers",
            "bias",
            "batch_first",
            "dropout",
            "bidirectional",
        ]
        expected += ["proj_size"] * (name == "LSTM") + ["device", "dtype"]
    assert positional == expected
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())


def test_the_eighth_position_of_gru_is_the_device_as_documented():
    layer = OURS["GRU"](3, 4, 1, True, False, 0.0, False, "meta", torch.float64)
    assert layer.weight_ih_l0.device.type == "meta"
    assert layer.weight_ih_l0.dtype == torch.float64
    # torch's own takes it for proj_size
    with pytest.raises(TypeError):
        nn.GRU(3, 4, 1, True, False, 0.0, False, "meta")


@pytest.mark.parametrize("name", LAYERS)
def test_skip_init_works_where_torchs_raises(name):
    layer = nn.utils.skip_init(OURS[name], 3, 4, num_layers=2)
    assert layer.weight_hh_l1.shape == ((3 if name == "GRU" else 4) * 4, 4)
    with pytest.raises(RuntimeError, match="must support a 'device' arg"):
        nn.utils.skip_init(TORCHS[name], 3, 4)


@pytest.mark.parametrize("name", list(OURS))
def test_shapes_come_out_on_the_meta_device(name):
    ours, theirs = (kind[name](3, 4, device="meta") for kind in (OURS, TORCHS))
    x = torch.empty((2, 3) if "Cell" in name else (5, 2, 3), device="meta")
    mine, other = ours(x), theirs(x)
    flat = [torch.utils._pytree.tree_leaves(result) for result in (mine, other)]
    assert [t.shape for t in flat[0]] == [t.shape for t in flat[1]]
    assert all(t.device.type == "meta" for t in flat[0])


@pytest.mark.parametrize("name", LAYERS)
def test_hooks_see_what_torchs_see(name):
    seen = {}
    for library, kind in (("ours", OURS), ("torch", TORCHS)):
        log = seen[library] = []
        layer = kind[name](3, 5)
        layer.register_forward_pre_hook(lambda m, inputs, log=log: log.append(len(inputs)))
        layer.register_forward_hook(lambda m, i, o, log=log: log.append((len(i), len(o))))
        layer.register_full_backward_hook(lambda m, gi, go, log=log: log.append((gi[0].shape, len(go))))
        layer(torch.randn(4, 2, 3, requires_grad=True))[0].sum().backward()
    assert seen["ours"] == seen["torch"]
    assert seen["ours"][:2] == [1, (1, 2)]


class Halve(nn.Module):
    def forward(self, weight):
        return weight / 2


@pytest.mark.parametrize("name", LAYERS)
def test_parametrized_weights_are_the_ones_used(name):
    ours, theirs = pair(name, 3, 5, num_layers=2, dtype=torch.float64)
    for layer in (ours, theirs):
        parametrize.register_parametrization(layer, "weight_hh_l1", Halve())
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    exact = theirs.__class__.__mro__[1](3, 5, 2, dtype=torch.float64)
    exact.load_state_dict(
        {n: getattr(theirs, n).detach() for n in exact.state_dict()}  # halved once, by hand
    )
    torch.testing.assert_close(ours(x)[0], exact(x)[0], rtol=1e-12, atol=1e-12)


def test_functional_call_tied_weights_and_prune_are_obeyed():
    layer = OURS["GRU"](4, 4, num_layers=2, dtype=torch.float64)
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    other = {n: p.detach() * 0.5 for n, p in layer.named_parameters()}
    swapped = torch.func.functional_call(layer, other, (x,))[0]
    twin = OURS["GRU"](4, 4, num_layers=2, dtype=torch.float64)
    twin.load_state_dict(other)
    assert torch.equal(swapped, twin(x)[0])
    layer.weight_hh_l1 = layer.weight_hh_l0
    theirs = TORCHS["GRU"](4, 4, num_layers=2, dtype=torch.float64)
    theirs.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x)[0], theirs(x)[0], rtol=1e-12, atol=1e-12)
    prune.l1_unstructured(layer, "weight_hh_l0", amount=0.5)
    assert not torch.equal(layer(x)[0], theirs(x)[0])


def test_data_parallel_replicas_and_module_apply_keep_the_weights():
    layer = OURS["GRU"](3, 4)
    x = torch.randn(2, 1, 3)
    before = layer(x)[0]
    replica = layer._replicate_for_data_parallel()
    replica._parameters.update(layer._parameters)
    assert torch.equal(replica(x)[0], before)
    assert layer.double().weight_hh_l0.dtype == torch.float64
    assert layer(x.double())[0].dtype == torch.float64
    assert layer.flatten_parameters() is None


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_torchs(name, dtype):
    if "Cell" in name:
        options, shape = {}, (9, 6)
    else:
        options, shape = {"num_layers": 2, "bidirectional": True}, (12, 9, 6)
    ours, theirs = pair(name, 6, 8, dtype=dtype, **options)
    x = torch.randn(shape).to(dtype)

    def run(module, dtype):
        given = x.to(dtype, copy=True).requires_grad_()
        output = torch.utils._pytree.tree_leaves(module(given))[0]
        output.square().sum().backward()
        return output, given.grad

    try:
        rivals = run(theirs, dtype)
    except RuntimeError:
        pytest.skip(f"torch's own {name} cannot run {dtype} on this CPU")
    exact = run(as_double(theirs), torch.float64)
    for kind, actual, truth, rival in zip(
        ("output", "gradient"), run(ours, dtype), exact, rivals, strict=True
    ):
        assert_within_budget(actual, exact=truth, rival=rival, name=kind)


@pytest.mark.parametrize("name", list(OURS))
def test_complex_numbers_run_as_torchs(name):
    ours, theirs = pair(name, 3, 4, dtype=torch.complex128)
    x = torch.randn((2, 3) if "Cell" in name else (5, 2, 3), dtype=torch.complex128)
    grads = []
    for module in (ours, theirs):
        given = x.clone().requires_grad_()
        output = torch.utils._pytree.tree_leaves(module(given))[0]
        (output * output.conj()).real.sum().backward()
        grads.append(
            (
                output.detach(),
                given.grad,
                module.weight_hh.grad if "Cell" in name else module.weight_hh_l0.grad,
            )
        )
    for actual, exact in zip(*grads, strict=True):
        torch.testing.assert_close(actual, exact, rtol=1e-12, atol=1e-12)


def test_reset_before_is_another_function_with_the_same_parameters():
    after = seeded(gatedcells.GRU, 3, 5, dtype=torch.float64)
    before = seeded(gatedcells.GRU, 3, 5, dtype=torch.float64, reset_after=False)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert torch.equal(after.weight_hh_l0, before.weight_hh_l0)
    assert (after(x)[0] - before(x)[0]).abs().max() > 1e-3
    assert repr(before) == "GRU(3, 5, reset_after=False)"
    cell = gatedcells.GRUCell(3, 5, dtype=torch.float64, reset_after=False)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in before.state_dict().items()})
    torch.testing.assert_close(cell(x[0]), before(x)[0][0], rtol=1e-12, atol=1e-12)


def test_dropout_draws_torchs_masks_for_packed_input_too():
    ours, theirs = pair("GRU", 3, 5, num_layers=3, dropout=0.5, dtype=torch.float64)
    x = torch.randn(6, 3, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([2, 6, 4]), enforce_sorted=False)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(11)
        results.append((module(packed)[0].data, torch.rand(())))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=1e-12)
    assert results[0][1] == results[1][1]  # and leaves the generator where torch leaves it
