"""A call like the one before it skips the checks, and nothing else."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch.nn.utils import parametrizations, prune

import gatedcells
from gatedcells.functional import again
from gatedcells.functional.again import Again
from gatedcells_kernels.cpu import sequence

KINDS = ["GRU", "LSTM", "GRUCell", "LSTMCell"]


def build(kind, **options):
    torch.manual_seed(0)
    return getattr(gatedcells, kind)(3, 6, **options)


def given(kind, B=2, dtype=torch.float32):
    x = torch.randn(B, 3, dtype=dtype) if kind.endswith("Cell") else torch.randn(4, B, 3, dtype=dtype)
    parts = [torch.randn(B, 6, dtype=dtype) for _ in range(2 if "LSTM" in kind else 1)]
    if not kind.endswith("Cell"):
        parts = [part[None] for part in parts]
    return x, tuple(parts) if "LSTM" in kind else parts[0]


def leaves(result):
    return torch.utils._pytree.tree_leaves(result)


def fresh(module, *call):
    """What a module with no memory says."""
    with torch.no_grad():
        return leaves(copy.deepcopy(module)(*call))


def assert_as_fresh(module, *call):
    for _ in range(2):
        found = leaves(module(*call))
        assert all(torch.equal(a, b) for a, b in zip(found, fresh(module, *call), strict=True))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def backend():
    """Instead of the folder's: only kernels have something to remember."""
    with gatedcells.use_backend("auto"):
        yield


@pytest.fixture
def runs(monkeypatch):
    """How often a remembered call was made."""
    made = []
    run = Again.run

    def counted(self, *arguments):
        found = run(self, *arguments)
        made.append(found is not None)
        return found

    monkeypatch.setattr(Again, "run", counted)
    return made


@pytest.fixture(params=[1, 2])
def threads(request):
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def test_a_call_like_the_last_is_not_checked_again(runs, kind):
    module, call = build(kind), given(kind)
    with torch.no_grad():
        module(*call)
        assert runs[-1] is False
        for _ in range(3):
            assert_as_fresh(module, *given(kind))
            assert runs[-2] is True  # the last is that of the copy


def test_other_shapes_and_dtypes_are_checked_in_full(runs, kind):
    module = build(kind)
    with torch.no_grad():
        module(*given(kind))
        assert_as_fresh(module, *given(kind, B=5))
        assert_as_fresh(module, *given(kind, B=2))
        x, hx = given(kind)
        with pytest.raises(RuntimeError, match="input"):
            module(x[..., :2], hx)
        with pytest.raises((RuntimeError, ValueError)):
            module(x.double(), hx)
        module.double()
        assert_as_fresh(module, *given(kind, dtype=torch.float64))
        module.float()
        assert_as_fresh(module, *given(kind))


def test_changed_weights_are_seen(runs, kind):
    module, call = build(kind), given(kind)
    with torch.no_grad():
        module(*call)
        for change in (
            lambda w: w.mul_(2),
            lambda w: w.data.neg_(),
            lambda w: setattr(w, "data", torch.randn_like(w)),
        ):
            for weight in module.parameters():
                change(weight)
                assert_as_fresh(module, *call)
        other = build(kind)
        for weight in other.parameters():
            weight.add_(1)
        called = torch.func.functional_call(module, dict(other.named_parameters()), call)
        assert all(torch.equal(a, b) for a, b in zip(leaves(called), fresh(other, *call), strict=True))


LAYOUTS = {
    "one number expanded": lambda w: w.flatten()[:1].expand_as(w),
    "numbers in another order": lambda w: w.as_strided(w.shape, (1, len(w)) if w.dim() == 2 else (1,)),
    "every other number": lambda w: torch.arange(2.0 * w.numel()).sin()[::2].view(w.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_lie_otherwise_at_their_address_are_seen(runs, kind, layout):
    module, call = build(kind), given(kind)
    with torch.no_grad():
        module(*call)
        for weight in module.parameters():
            weight.data = LAYOUTS[layout](weight.data)
            assert_as_fresh(module, *call)


def test_tied_weights_and_one_state_given_twice_are_remembered(runs, kind):
    torch.manual_seed(0)
    module = getattr(gatedcells, kind)(6, 6)
    names = list(module._parameters)
    setattr(module, names[1], getattr(module, names[0]))
    x, hx = given(kind)
    x = torch.randn(*x.shape[:-1], 6)
    hx = (hx[0], hx[0]) if "LSTM" in kind else hx
    with torch.no_grad():
        module(x, hx)
        assert_as_fresh(module, x, hx)
        assert runs[-2] is True


def test_a_negative_view_is_read_as_what_it_says(runs, kind):
    module, (x, hx) = build(kind), given(kind)
    negative = torch._neg_view(x)
    assert negative.is_contiguous()
    with torch.no_grad():
        module(x, hx)
        expected = fresh(module, -x, hx)
        for _ in range(3):
            found = leaves(module(negative, hx))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("calls", [0, 3])
def test_freed_memory_is_an_error_and_not_a_crash(runs, kind, calls):
    for which in range(8):
        module, (x, hx) = build(kind), given(kind)
        states = hx if isinstance(hx, tuple) else (hx,)
        tensors = [x, *states, *module.parameters()]
        with torch.no_grad():
            for _ in range(calls):
                module(x, hx)
            tensors[which % len(tensors)].untyped_storage().resize_(0)
            with pytest.raises(RuntimeError, match=r"storage|not allocated"):
                module(x, hx)


def test_a_parametrized_weight_is_computed_anew(runs, kind):
    module, call = build(kind), given(kind)
    with torch.no_grad():
        module(*call)
        parametrizations.weight_norm(module, "weight_hh" if kind.endswith("Cell") else "weight_hh_l0")
        assert_as_fresh(module, *call)
        before = fresh(module, *call)
        next(iter(module.parametrizations.values())).original0.mul_(2)
        assert_as_fresh(module, *call)
        assert not torch.equal(fresh(module, *call)[0], before[0])


@pytest.mark.parametrize("which", ["all", "last"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_weights_pruned_after_a_call_are_those_computed_with(runs, kind, training, bias, which):
    module, call = build(kind, bias=bias), given(kind)
    with torch.set_grad_enabled(training):
        for _ in range(3):
            module(*call)
        names = [name for name, one in module._parameters.items() if one is not None]
        for name in names if which == "all" else names[-1:]:
            prune.random_unstructured(module, name, amount=0.5)
        found = leaves(module(*call))
    reference = build(kind, bias=bias, backend="reference")
    reference.load_state_dict({name: getattr(module, name).detach() for name in names})
    torch.testing.assert_close(found, leaves(reference(*call)))
    assert not torch.equal(found[0], leaves(build(kind, bias=bias)(*call))[0])
    if training:
        found[0].sum().backward()
        pruned = module._parameters[f"{names[-1]}_orig"]
        assert not pruned.grad[getattr(module, f"{names[-1]}_mask") == 0].any()


def test_what_another_thread_remembers_during_a_call_is_not_mixed_with_what_was_read(monkeypatch, kind):
    module, short, long = build(kind), given(kind, B=2), given(kind, B=5)
    modes, between = again._dispatch_modes, []

    def interrupted():
        if between:
            between.pop()()
        return modes()

    monkeypatch.setattr(again, "_dispatch_modes", interrupted)
    with torch.no_grad():
        expected = fresh(module, *long)
        module(*short)
        # as if the other thread's turn came while this one looks at what is remembered
        between.append(lambda: module(*long))
        found = leaves(module(*long))
    assert not between
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_goes_on_around_a_call_is_seen(runs, kind):
    module, (x, hx) = build(kind), given(kind)
    with torch.no_grad():
        plain = leaves(module(x, hx))
        with torch.autocast("cpu", torch.bfloat16):
            assert leaves(module(x, hx))[0].dtype == torch.bfloat16
        module(x, hx)
        with gatedcells.use_backend("reference"):
            reference = leaves(module(x, hx))
        assert runs[-1] is False
        torch.testing.assert_close(reference, plain)
        module(x, hx)
        mapped = torch.vmap(lambda one: leaves(module(one, hx))[0])(torch.stack([x, x + 1]))
        torch.testing.assert_close(mapped[0], plain[0])
    assert leaves(module(x, hx))[0].requires_grad


def test_the_memory_is_neither_copied_nor_pickled(runs, kind):
    module, call = build(kind), given(kind)
    with torch.no_grad():
        module(*call)
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert other._again._known is None
            assert_as_fresh(other, *call)


def test_tensors_that_lie_otherwise_in_memory_are_checked_in_full(runs, kind):
    module, (x, hx) = build(kind), given(kind)
    with torch.no_grad():
        exact = leaves(module(x, hx))
        odd = x.transpose(0, -1).contiguous().transpose(0, -1)
        found = leaves(module(odd, hx))
        assert runs[-1] is False
        assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}, {"batch_first": True},
                                     {"bias": False}])  # fmt: skip
def test_layers_of_other_make_give_the_same_again(runs, options):
    for kind in ("GRU", "LSTM"):
        module = build(kind, **options)
        with torch.no_grad():
            for _ in range(3):
                assert_as_fresh(module, given(kind)[0])


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
@pytest.mark.parametrize("shape", [(1, 1, 64, 256), (5, 2, 64, 256), (7, 16, 20, 37)], ids=str)
@pytest.mark.usefixtures("threads")
def test_the_last_state_is_a_tensor_of_its_own(layer, shape):
    T, B, I, H = shape
    module, x = getattr(gatedcells, layer)(I, H), torch.randn(T, B, I)
    with torch.no_grad():
        for _ in range(3):
            output, last = module(x)
            h_n = last[0] if layer == "LSTM" else last
            assert torch.equal(h_n, output[-1:])
            assert h_n.untyped_storage().data_ptr() != output.untyped_storage().data_ptr()
            assert h_n.untyped_storage().nbytes() == h_n.nbytes
            assert output.is_contiguous()


def gradients(module, x, hx):
    """Outputs and the gradients of the input, the states and all weights."""
    module.zero_grad()
    x, *hx = (t.detach().requires_grad_() for t in (x, *(hx if isinstance(hx, tuple) else (hx,))))
    outputs = leaves(module(x, tuple(hx) if len(hx) == 2 else hx[0]))
    sum((out * torch.arange(1, out.numel() + 1).view_as(out)).sum() for out in outputs).backward()
    return [*outputs, *(t.grad for t in (x, *hx, *module.parameters()))]


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
@pytest.mark.parametrize("bias", [True, False])
def test_training_like_the_last_is_not_checked_again_and_gives_the_same(runs, layer, bias):
    module = build(layer, bias=bias)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for number in range(4):
        call = given(layer)
        found = gradients(module, *call)
        assert runs[-1] is (number > 1)  # a shape that comes once is not remembered
        exact = gradients(copy.deepcopy(module), *call)
        assert runs[-1] is False
        assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))
        optimizer.step()
    with torch.no_grad():  # a memory of its own
        assert_as_fresh(module, *given(layer))
    gradients(module, *given(layer))
    assert runs[-1] is True


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_training_in_other_ways_is_checked_in_full(runs, layer):
    module, call = build(layer), given(layer)
    for _ in range(3):
        gradients(module, *call)
    assert runs[-1] is True
    with torch.autocast("cpu", torch.bfloat16):
        assert gradients(module, *call)[0].dtype == torch.bfloat16
    assert runs[-1] is False
    for _ in range(2):
        gradients(module, *call)
    assert runs[-1] is True
    module.recompute = True
    made = len(runs)
    gradients(module, *call)
    assert len(runs) == made
    module.recompute = False
    x, hx = call
    torch.func.grad(lambda x: leaves(module(x, hx))[0].sum())(x)
    assert runs[-1] is False


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_second_derivatives_of_a_repeated_call_are_those_of_the_first(layer):
    module, (x, hx) = build(layer, dtype=torch.float64), given(layer, dtype=torch.float64)
    found = []
    for _ in range(3):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(leaves(module(leaf, hx))[0].square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [leaf, *module.parameters()]))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_computed_weights_are_not_held(layer):
    module, call = build(layer), given(layer)
    made = {name: p.detach().clone().requires_grad_() * 1 for name, p in module.named_parameters()}
    watched = [weakref.ref(w) for w in made.values()]
    for _ in range(2):
        torch.func.functional_call(module, made, call)
    del made
    gc.collect()
    assert all(watch() is None for watch in watched)


def reversed_in_memory(tensor):
    """The same numbers, laid out in the opposite order of dimensions, as an offloading hook may give them."""
    dims = list(reversed(range(tensor.dim())))
    return tensor.permute(dims).contiguous().permute(dims)


SINCE_FORWARD = {
    "other numbers": lambda w: w.data.mul_(2),
    "numbers elsewhere": lambda w: setattr(w, "data", w.data.flip(0).clone()),
    "another layout": lambda w: setattr(w, "data", w.data.clone().as_strided(w.shape, (1, len(w)))),
    "the other sign, there": lambda w: setattr(w, "data", torch._neg_view(w.data)),
}


@pytest.fixture
def backward_passes(monkeypatch):
    """A list with one entry for each backward pass that prepared kernels make."""
    made = []
    for kernels in (sequence.GRUTraining, sequence.LSTMTraining):
        run = kernels.backward
        monkeypatch.setattr(kernels, "backward", lambda *a, run=run: made.append(1) or run(*a))
    return made


@pytest.fixture(params=[False, True], ids=["no backward pass before", "a backward pass before"])
def remembered(request, backward_passes):
    """Makes a layer that remembers training without gradients of its inputs; a copy that does not; a call."""

    def make(layer):
        module, call = build(layer), given(layer)
        for _ in range(3 if request.param else 2):
            outputs = leaves(module(*call))
            if request.param:
                outputs[0].square().sum().backward()
        assert len(backward_passes) == request.param
        backward_passes.clear()
        module.zero_grad()
        return module, copy.deepcopy(module), call

    return make


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
@pytest.mark.parametrize("change", SINCE_FORWARD)
def test_a_weight_changed_through_data_since_a_repeated_call_is_read_as_it_is(
    layer, change, backward_passes, remembered
):
    *modules, (x, hx) = remembered(layer)
    found = []
    for module in modules:
        out = leaves(module(x, hx))[0]
        SINCE_FORWARD[change](module.weight_hh_l0)
        found.append(torch.autograd.grad(out.square().sum(), [*module.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert len(backward_passes) == (change == "other numbers")


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_a_weight_of_another_shape_since_a_repeated_call_is_refused(layer, backward_passes, remembered):
    *modules, (x, hx) = remembered(layer)
    for module in modules:
        out = leaves(module(x, hx))[0]
        weight = module.weight_hh_l0
        weight.data = weight.data.view(weight.shape[::-1])  # its numbers are where they were
        weight.data.mul_(2)
        with pytest.raises(RuntimeError, match="weight_hh must be"):
            out.sum().backward()
    assert not backward_passes


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_a_repeated_calls_backward_pass_reads_what_hooks_give_it(layer, backward_passes, remembered):
    *modules, (x, hx) = remembered(layer)
    found = []
    for module in modules:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: reversed_in_memory(t.detach()), lambda t: t):
            out = leaves(module(x, hx))[0]
        found.append(torch.autograd.grad(out.square().sum(), [*module.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not backward_passes  # weight_hh lies elsewhere


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_states_that_hooks_lay_out_otherwise_are_read_right(layer, backward_passes, remembered):
    *modules, (x, hx) = remembered(layer)
    found = []
    for module in modules:
        kept = {id(weight) for weight in module.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: t if id(t) in kept else reversed_in_memory(t.detach()), lambda t: t
        ):
            out = leaves(module(x, hx))[0]
        found.append(torch.autograd.grad(out.square().sum(), [*module.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert len(backward_passes) == 1


LOSSES = {
    "the sum, whose gradient is one number expanded": lambda states, last: states.sum(),
    "the last state alone": lambda states, last: last.square().sum(),
    "a part of the states": lambda states, last: states.transpose(0, 2)[1].square().sum(),
}


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_any_output_of_a_repeated_call_are_those_of_the_first(
    layer, loss, backward_passes, remembered
):
    *modules, (x, hx) = remembered(layer)
    found = []
    for module in modules:
        states, last, *_ = leaves(module(x, hx))
        found.append(torch.autograd.grad(LOSSES[loss](states, last), [*module.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert len(backward_passes) == 1


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_a_batch_of_gradients_of_a_repeated_call_is_taken_by_the_reference(
    layer, backward_passes, remembered
):
    module, _, (x, hx) = remembered(layer)
    states, weights = leaves(module(x, hx))[0], [*module.parameters()]
    d = torch.randn(3, *states.shape)
    batched = torch.autograd.grad(states, weights, d, is_grads_batched=True, retain_graph=True)
    assert not backward_passes
    for index, one in enumerate(d):
        each = torch.autograd.grad(states, weights, one, retain_graph=True)
        for whole, part in zip(batched, each, strict=True):
            torch.testing.assert_close(whole[index], part)
    assert len(backward_passes) == 3
