"""A packed weight is never older than the weight."""

import copy
import gc

import pytest
import torch

import gatedcells
from gatedcells_kernels.cpu import packing


@pytest.fixture
def layer(native):
    return gatedcells.GRU(5, 20, backend="cpu")


X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
MANY_ROWS = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(2)).bfloat16()


def forget(layer):
    fresh = copy.deepcopy(layer)
    return fresh(X)[0]


def by_optimizer(layer):
    layer(X)[0].sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def by_copy(layer):
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.randn(60, 20))


def by_state_dict(layer):
    layer.load_state_dict(gatedcells.GRU(5, 20).state_dict())


def by_one_number_through_data(layer):
    layer.weight_hh_l0.data[31, 7] += 0.5


def by_swapped_signs_through_data(layer):
    layer.weight_hh_l0.data.neg_()


def by_new_data(layer):
    layer.weight_ih_l0.data = torch.randn(60, 5)


def by_compiled_optimizer(layer):
    layer(X)[0].sum().backward()
    optimizer = torch.optim.SGD(layer.parameters(), lr=torch.tensor(0.1))
    torch.compile(optimizer.step, backend="aot_eager")()


@pytest.mark.parametrize(
    "change",
    [by_optimizer, by_copy, by_state_dict, by_one_number_through_data, by_swapped_signs_through_data,
     by_new_data, by_compiled_optimizer],
)  # fmt: skip
def test_a_changed_weight_is_packed_anew(layer, change):
    before = layer(X)[0].detach()
    change(layer)
    after = layer(X)[0].detach()
    assert not torch.equal(after, before)
    assert torch.equal(after, forget(layer).detach())


@pytest.mark.parametrize("inference", [True, False])
def test_a_changed_weight_is_widened_anew(native, inference):
    """Of bfloat16 that is multiplied in float32."""
    layer = gatedcells.GRU(5, 20, backend="cpu", dtype=torch.bfloat16)
    with torch.inference_mode(inference):
        before = layer(MANY_ROWS)[0]
        layer.weight_hh_l0.data[31, 7] += 0.5
        after = layer(MANY_ROWS)[0]
        assert not torch.equal(after, before)
        assert torch.equal(after, copy.deepcopy(layer)(MANY_ROWS)[0])


def test_functional_call_uses_the_given_weights(layer):
    layer(X)
    other = gatedcells.GRU(5, 20)
    called = torch.func.functional_call(layer, dict(other.named_parameters()), (X,))[0]
    assert torch.equal(called, other(X)[0])


def test_an_unchanged_weight_is_packed_once(layer, monkeypatch):
    made = []
    pack = packing.pack
    monkeypatch.setattr(packing, "pack", lambda *a, **k: made.append(1) or pack(*a, **k))
    layer(X)
    assert len(made) == 2
    layer(X + 1)
    assert len(made) == 2


def test_packed_weights_go_with_their_weight(native):
    gc.collect()
    before = len(packing._entries)
    layer = gatedcells.GRU(5, 20)
    with torch.no_grad():
        layer(X)
    assert len(packing._entries) == before + 2
    del layer
    gc.collect()
    assert len(packing._entries) == before
