"""A model's recurrent modules are computed by ours, and everything else about the model stays."""

import copy
import io
import pickle
import types
import warnings

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import gatedcells
from gatedcells.conversion import convert, revert
from gatedcells.testing import assert_close_in_float64, assert_within_budget
from tests.support.inputs import OURS, TORCHS, Case, layer_cases
from tests.support.run import everything, pooled

KINDS = list(OURS)


class Tagger(nn.Module):
    """Layers and cells, nested, shared, tied, frozen, in a list that torch does not know of."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.encoder = nn.ModuleDict(
            {"gru": nn.GRU(3, 4, num_layers=2, bidirectional=True, dropout=0.5, batch_first=True)}
        )
        self.lstm = nn.LSTM(8, 6, proj_size=4)
        self.cell = nn.LSTMCell(4, 4)
        self.twin = self.cell
        self.steps = nn.ModuleList([nn.GRUCell(4, 4), nn.GRUCell(4, 4)])
        self.steps[1].weight_hh = self.steps[0].weight_hh
        self.steps[0].bias_ih.requires_grad_(False)
        self.unregistered = [self.steps[0]]
        self.to(dtype)

    def forward(self, tokens):
        x, _ = self.encoder["gru"](self.embedding(tokens))
        x, _ = self.lstm(x)
        state, hidden = None, torch.zeros_like(x[0])
        for x_t in x:
            state = self.twin(x_t, self.cell(x_t, state))
            hidden = self.steps[1](state[0], self.unregistered[0](x_t, hidden))
        return hidden


TOKENS = torch.tensor([[1, 2, 3, 0, 6], [4, 4, 5, 2, 1]])


def loss_and_gradients(model, tokens=TOKENS):
    model.zero_grad()
    torch.manual_seed(5)
    output = model(tokens)
    output.square().sum().backward()
    return [output, *(p.grad for p in model.parameters() if p.grad is not None)]


def state_of(model):
    return {name: (type(module), dict(vars(module))) for name, module in model.named_modules()}


def test_a_model_computes_the_same_outputs_and_gradients():
    theirs = Tagger()
    ours = convert(copy.deepcopy(theirs), report=None)
    assert not any(type(module) in TORCHS.values() for module in ours.modules())
    for found, exact in zip(loss_and_gradients(ours), loss_and_gradients(theirs), strict=True):
        assert_close_in_float64(found, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_lower_precision_a_model_is_as_exact_as_with_torchs(dtype):
    exact, theirs = Tagger(), Tagger(dtype)
    theirs.load_state_dict(exact.state_dict())
    exact.load_state_dict(theirs.state_dict())
    ours = convert(theirs, inplace=False, report=None)
    found = [torch.cat([v.flatten() for v in loss_and_gradients(m)]) for m in (ours, exact, theirs)]
    assert_within_budget(found[0], exact=found[1], rival=found[2])


@given(layer_cases())
def test_any_layer_is_its_counterpart(case: Case):
    _, theirs = case.modules(torch.float64)
    ours = convert(theirs, inplace=False, report=None)
    for kind in ("values", "gradients"):
        found, exact = (pooled(everything(m, case, torch.float64), kind) for m in (ours, theirs))
        assert_close_in_float64(found, exact)


def test_modules_and_parameters_stay_the_same_objects():
    model = Tagger().eval()
    modules, parameters = list(model.modules()), list(model.parameters())
    frozen = [p.requires_grad for p in parameters]
    keys = list(model.state_dict())
    generator = torch.get_rng_state()
    assert convert(model, report=None) is model
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [p.requires_grad for p in model.parameters()] == frozen
    assert list(model.state_dict()) == keys
    assert not any(module.training for module in model.modules())
    assert model.cell is model.twin
    assert model.steps[0].weight_hh is model.steps[1].weight_hh
    assert type(model.unregistered[0]) is gatedcells.GRUCell


def test_an_optimizer_goes_on_across_conversion_and_reversal():
    def train(between):
        torch.manual_seed(0)
        model = Tagger()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(6):
            between(step, model)
            loss_and_gradients(model)
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def there_and_back(step, model):
        if step in (2, 4):
            (convert if step == 2 else revert)(model, report=None)

    assert_close_in_float64(train(there_and_back), train(lambda *_: None))


def test_reversal_restores_class_and_attributes_exactly():
    model = Tagger()
    model.lstm.note = "kept"
    before = state_of(model)
    revert(convert(model, report=None), report=None)
    after = state_of(model)
    for name, (cls, attributes) in before.items():
        assert after[name][0] is cls
        assert after[name][1].keys() == attributes.keys()
        for key, value in attributes.items():
            found = after[name][1][key]
            if key == "_flat_weights":
                assert all(a is b for a, b in zip(found, value, strict=True))
            else:
                assert found is value or found == value
    assert model.lstm.note == "kept"


@pytest.mark.parametrize("name", KINDS)
def test_a_model_that_is_itself_a_recurrent_module_is_returned_as_the_other(name):
    module = TORCHS[name](3, 4)
    before = repr(module)
    assert type(convert(module, report=None)) is OURS[name]
    assert repr(module) == before
    assert type(revert(module, report=None)) is TORCHS[name]


def test_not_in_place_the_model_itself_stays_torchs():
    model = Tagger()
    before = state_of(model)
    copied = convert(model, inplace=False, report=None)
    assert state_of(model).keys() == before.keys()
    assert all(state_of(model)[name][0] is cls for name, (cls, _) in before.items())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in copied.parameters()}
    assert type(revert(copied, inplace=False, report=None).lstm) is nn.LSTM
    assert type(copied.lstm) is gatedcells.LSTM


def test_state_dicts_pickles_and_copies_go_on():
    theirs = Tagger().eval()
    ours = convert(theirs, inplace=False, report=None)
    exact = theirs(TOKENS)
    fresh = Tagger().eval()
    fresh.load_state_dict(ours.state_dict())
    assert_close_in_float64(fresh(TOKENS), exact)
    convert(fresh, report=None).load_state_dict(theirs.state_dict(), assign=True)
    for model in (fresh, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), ours.float().double()):
        assert type(model.lstm) is gatedcells.LSTM
        assert_close_in_float64(model(TOKENS), exact)


def test_a_layer_whose_parameters_were_replaced_is_converted():
    layer = nn.GRU(3, 4, dtype=torch.float64)
    layer._parameters["weight_hh_l0"] = nn.Parameter(torch.randn(12, 4, dtype=torch.float64))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = copy.deepcopy(layer)(x)[0]
    assert type(convert(layer, report=None)) is gatedcells.GRU
    assert_close_in_float64(layer(x)[0], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch about its own quantization and exporters
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::torch.jit.TracerWarning")
def test_what_knows_torchs_classes_alone_takes_a_reverted_model():
    model, x = nn.Sequential(gatedcells.GRU(3, 4)).eval(), torch.randn(5, 2, 3)
    quantize = torch.ao.quantization.quantize_dynamic
    assert type(quantize(model)[0]) is gatedcells.GRU  # without a word, as the page says
    with pytest.raises(torch.onnx.errors.UnsupportedOperatorError):
        torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False)
    expected = model(x)[0]
    reverted = revert(model, report=None)
    assert type(quantize(reverted)[0]) is torch.ao.nn.quantized.dynamic.GRU
    torch.testing.assert_close(torch.jit.script(reverted)(x)[0], expected)
    torch.onnx.export(reverted, (x,), io.BytesIO(), dynamo=False)


def test_hooks_of_every_kind_go_on_being_called():
    def called(convert_it):
        log = []
        layer = nn.LSTM(3, 4)
        layer.register_forward_pre_hook(lambda m, i: log.append(len(i)))
        layer.register_forward_hook(lambda m, i, o: log.append((m is layer, len(o))))
        layer.register_full_backward_hook(lambda m, gi, go: log.append(gi[0].shape))
        layer.register_state_dict_post_hook(lambda m, d, p, _: log.append(len(d)))
        layer.weight_hh_l0.register_hook(lambda g: log.append(g.shape))
        if convert_it:
            convert(layer, report=None)
        layer(torch.randn(2, 1, 3, requires_grad=True))[0].sum().backward()
        layer.state_dict()
        return log

    assert called(True) == called(False)
    assert len(called(True)) == 5


def spectral(module, name):
    return parametrizations.spectral_norm(module.eval(), name)


def old_weight_norm(module, name):
    with pytest.warns(FutureWarning, match="deprecated"):
        return nn.utils.weight_norm(module, name)


def pruned(module, name):
    return prune.l1_unstructured(module, name, amount=0.5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("how", [parametrizations.weight_norm, spectral, old_weight_norm, pruned])
def test_parametrized_and_pruned_weights_are_the_ones_used(name, how):
    weight = "weight_hh" if "Cell" in name else "weight_hh_l0"
    theirs = how(TORCHS[name](3, 4, dtype=torch.float64), weight)
    plain = TORCHS[name](3, 4, dtype=torch.float64)
    x = torch.randn((2, 3) if "Cell" in name else (5, 2, 3), dtype=torch.float64)

    def numbers(module):
        module.zero_grad()
        outputs = torch.utils._pytree.tree_leaves(module(x))
        sum(part.square().sum() for part in outputs).backward()
        return [*outputs, *(p.grad for p in module.parameters())]

    exact = [value.clone() for value in numbers(theirs)]
    plain.load_state_dict({n: getattr(theirs, n).detach() for n in plain.state_dict()})
    assert_close_in_float64(torch.utils._pytree.tree_leaves(plain(x))[0], exact[0])
    ours = convert(theirs, report=None)
    for found, right in zip(numbers(ours), exact, strict=True):
        assert_close_in_float64(found, right)
    assert gatedcells.explain_backend(ours, x).startswith(name.removesuffix("Cell"))
    if parametrize.is_parametrized(ours):
        assert_close_in_float64(numbers(copy.deepcopy(ours))[0], exact[0])
        parametrize.remove_parametrizations(ours, weight)
        assert type(ours) is OURS[name]
    assert_close_in_float64(numbers(revert(ours, report=None))[0], exact[0])
    assert type(ours) is TORCHS[name]


def test_a_compiled_model_notices():
    model = nn.Sequential(nn.Linear(3, 3), nn.GRUCell(3, 4)).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    exact = compiled(x)
    convert(compiled, backend="reference", report=None)
    assert type(model[1]) is gatedcells.GRUCell
    assert_close_in_float64(compiled(x), exact)
    traced = torch._dynamo.explain(model)(x)
    assert traced.graph_break_count == 0


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
def test_distributed_models_are_converted_after_ddp_and_before_fully_shard():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = Tagger()
        wrapped = convert(nn.parallel.DistributedDataParallel(copy.deepcopy(model)), report=None)
        for found, exact in zip(loss_and_gradients(wrapped), loss_and_gradients(model), strict=True):
            assert_close_in_float64(found, exact)
        told = []
        for sharded in (nn.GRU(3, 4), gatedcells.GRU(3, 4)):
            fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
            (convert if isinstance(sharded, nn.GRU) else revert)(sharded, report=told.append)
        assert [report.left[0].why for report in told] == [
            "it was sharded by fully_shard: convert or revert before sharding"
        ] * 2
    finally:
        dist.destroy_process_group()


class Bigger(nn.GRU):
    """With something of its own."""


class Other(nn.RNNBase):
    """As other libraries make theirs."""


def replaced_forward():
    layer = nn.GRU(3, 4)
    layer.forward = types.MethodType(lambda self, x: nn.GRU.forward(self, 2 * x), layer)
    return layer


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch about its own compiler
        return torch.jit.script(nn.GRU(3, 4))


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch about its own quantization
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.GRU(3, 4)))[0]


def with_low_rank_weights():
    layer = nn.GRU(3, 4)
    layer._flat_weights = [weight + 1 for weight in layer._flat_weights]
    return layer


LEFT = {
    "a subclass": (lambda: Bigger(3, 4), "it is a subclass of torch.nn.GRU, and what it adds would be lost"),
    "a parametrized subclass": (
        lambda: parametrizations.weight_norm(Bigger(3, 4), "weight_hh_l0"),
        "a subclass of torch.nn.GRU",
    ),
    "an object with its own forward": (replaced_forward, "its forward was replaced on the instance"),
    "one of ours": (
        lambda: gatedcells.GRU(3, 4, backend="reference"),
        "already a gatedcells module, with backend='reference'",
    ),
    "a plain RNN": (lambda: nn.RNN(3, 4), "gatedcells implements gated cells only"),
    "a plain cell": (lambda: nn.RNNCell(3, 4), "gatedcells implements gated cells only"),
    "another library's": (lambda: Other("GRU", 3, 4), "not one of torch.nn's own modules"),
    "other tensors in the list of its weights": (with_low_rank_weights, "holds tensors other than its"),
    "scripted": (scripted, "compiled by torch.jit"),
    "to be quantized": (lambda: torch.ao.nn.quantizable.LSTM(3, 4), "it is quantized"),
    "quantized": (quantized, "it is quantized"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_swapped_is_left_and_named(case):
    make, reason = LEFT[case]
    model = nn.ModuleDict({"odd": make(), "plain": nn.GRU(3, 4)})
    kind, told = type(model["odd"]), []
    convert(model, report=told.append)
    assert type(model["odd"]) is kind
    assert [row.names for row in told[0].swapped] == [("plain",)]
    assert told[0].left[0].names == ("odd",)
    assert reason in told[0].left[0].why
    assert f"not converted: {told[0].left[0].why}" in str(told[0])


def with_gate_hook(layer):
    layer.register_gate_hook("update", lambda values, where: None)
    return layer


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: gatedcells.GRU(3, 4, reset_after=False), "torch has no counterpart of reset_after=False"),
        (lambda: gatedcells.GRUCell(3, 4, reset_after=False), "no counterpart of reset_after=False"),
        (lambda: gatedcells.LSTM(3, 4, allow_empty=True), "torch has no counterpart of allow_empty=True"),
        (lambda: gatedcells.GRU(3, 4, zoneout=0.1), "torch has no counterpart of zoneout=0.1"),
        (lambda: gatedcells.LSTM(3, 4, learn_h0=True), "torch has no counterpart of learn_h0=True"),
        (lambda: gatedcells.GRU(3, 4, precision="bf16"), "torch has no counterpart of precision='bf16'"),
        (lambda: with_gate_hook(gatedcells.GRU(3, 4)), "torch has no counterpart of _gate_hooks"),
        (lambda: type("Mine", (gatedcells.LSTM,), {})(3, 4), "torch.nn has no counterpart of its class"),
    ],
)
def test_what_torch_cannot_compute_is_not_reverted(make, reason):
    module, told = make(), []
    kind = type(module)
    revert(module, report=told.append)
    assert type(module) is kind
    assert reason in told[0].left[0].why


def test_modules_made_as_ours_become_torchs_and_forget_who_computes():
    ours = gatedcells.GRU(3, 4, backend="reference", recompute=True, init="orthogonal", dtype=torch.float64)
    ours.register_gate_hook("update", lambda values, where: None).remove()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    exact = ours(x)[0]
    theirs = revert(ours, report=None)
    assert vars(theirs).keys() == vars(nn.GRU(3, 4)).keys()
    assert_close_in_float64(theirs(x)[0], exact)


def test_the_report_names_every_recurrent_module_and_who_computes_it(capsys):
    model = Tagger()
    model.odd = Bigger(3, 4)
    convert(model)
    assert capsys.readouterr().out.splitlines() == [
        "Tagger: 5 of 6 recurrent modules now run on gatedcells",
        "  encoder.gru  GRU(3, 4, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)"
        " on the cpu backend",
        "  lstm         LSTM(8, 6, proj_size=4) on the cpu backend",
        "  cell, twin   LSTMCell(4, 4) on the cpu backend",
        "  steps.0      GRUCell(4, 4) on the cpu backend",
        "  steps.1      GRUCell(4, 4) on the cpu backend",
        "  odd          Bigger not converted: it is a subclass of torch.nn.GRU,"
        " and what it adds would be lost",
    ]
    revert(model.encoder)
    assert capsys.readouterr().out.splitlines() == [
        "ModuleDict: 1 of 1 recurrent modules now run on torch.nn",
        "  gru  GRU(3, 4, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)",
    ]
    convert(nn.Linear(2, 2))
    assert capsys.readouterr().out == "Linear: 0 of 0 recurrent modules now run on gatedcells\n"
    revert(model, report=None)
    convert(model, report=None)
    assert capsys.readouterr().out == ""


def test_the_asked_for_backend_and_recompute_reach_the_modules():
    model, told = Tagger(), []
    convert(model, backend="reference", recompute=True, report=told.append)
    assert {row.backend for row in told[0].swapped} == {"reference"}
    assert "backend='reference'" in told[0].swapped[0].explanation
    assert model.lstm.recompute
    assert model.cell.backend == "reference"


def test_a_backend_that_cannot_run_here_is_said_to():
    told = []
    layer = convert(nn.GRU(3, 4, device="meta"), backend="cpu", report=told.append)
    assert told[0].swapped[0].backend is None
    assert str(told[0]).endswith("which cpu cannot run: needs a tensor on cpu, got meta")
    with pytest.raises(gatedcells.BackendUnavailable):
        layer(torch.empty(2, 1, 3, device="meta"))


def test_wrong_arguments_are_refused_before_anything_changes():
    model = Tagger()
    with pytest.raises(ValueError, match="backend must be one of 'auto'.*got 'cudnn'"):
        convert(model, backend="cudnn")
    assert type(model.lstm) is nn.LSTM
    for function in (convert, revert):
        with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got dict"):
            function(dict(model.state_dict()))


@pytest.mark.parametrize("name", ["GRU", "LSTM", "GRUCell", "LSTMCell"])
def test_weights_that_were_frozen_as_buffers_go_along(name):
    model = nn.ModuleDict({"frozen": getattr(nn, name)(3, 4), "other": nn.GRU(3, 4)})
    for key in list(model.frozen._parameters):
        model.frozen.register_buffer(key, model.frozen._parameters.pop(key).detach())
    x = torch.randn(5, 3) if name.endswith("Cell") else torch.randn(5, 2, 3)
    expected = model.frozen(x)
    gatedcells.convert(model, report=None)
    assert type(model.frozen) is getattr(gatedcells, name)
    assert type(model.other) is gatedcells.GRU
    torch.testing.assert_close(model.frozen(x), expected)


class WeightDrop(nn.Module):
    """As awd-lstm has it: weights are computed before each call, and are not there before the first."""

    def __init__(self, inner, names):
        super().__init__()
        self.inner, self.names = inner, names
        inner.flatten_parameters = lambda: None
        for name in names:
            self.register_parameter(f"{name}_raw", nn.Parameter(inner._parameters.pop(name).detach()))

    def forward(self, x):
        for name in self.names:
            raw = getattr(self, f"{name}_raw")
            setattr(self.inner, name, nn.functional.dropout(raw, 0.5, self.training))
        return self.inner(x)[0]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize(
    "names",
    [["weight_ih_l0", "weight_hh_l0"], [f"{w}_{d}_l0" for w in ("weight", "bias") for d in ("ih", "hh")]],
)
def test_weights_that_are_not_there_before_the_first_call_are_those_of_the_call(kind, names):
    def trained(change):
        torch.manual_seed(0)
        model = nn.ModuleList([WeightDrop(kind(3, 4, dtype=torch.float64), names), nn.GRUCell(3, 4)])
        change(model)
        return model, loss_and_gradients(model[0], torch.randn(5, 2, 3, dtype=torch.float64))

    told = []
    model, found = trained(lambda model: convert(model, report=told.append))
    assert [str(row).split("(")[0] for row in told[0].swapped] == [kind.__name__, "GRUCell"]
    for ours, theirs in zip(found, trained(lambda _: None)[1], strict=True):
        assert_close_in_float64(ours, theirs)
    revert(model, report=None)
    assert type(model[0].inner) is kind
