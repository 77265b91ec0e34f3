"""Models of other libraries compute and train with our modules as they do with torch's."""

import copy

import pytest
import torch
from torch import nn

import gatedcells
from benchmarks.models import MODELS
from gatedcells.testing import assert_within_budget
from tests.support.inputs import OURS, TORCHS

HOLDS = {
    "AttentiveFP": ["GRUCell", "GRUCell", "GRUCell"],
    "GraphSAGE, LSTM aggregator": ["LSTM", "LSTM"],
    "RecurrentPPO policy": ["LSTM", "LSTM"],
    "BiLSTM-CRF": ["LSTM"],
    "BiGRU-CRF": ["GRU"],
}


@pytest.fixture(params=MODELS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    small = {
        "AttentiveFP": {"B": 20},
        "GraphSAGE, LSTM aggregator": {"B": 100},
        "RecurrentPPO policy": {"T": 32},
    }
    try:
        return MODELS[name](**small.get(name, {}))
    except ImportError as error:
        pytest.skip(f"{error}: pip install -e '.[models]' -c constraints.txt")


def recurrent(module, library):
    return [type(m).__name__ for m in module.modules() if type(m) in library.values()]


def joined(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def test_every_recurrent_module_is_swapped_and_comes_back(name, model):
    names = HOLDS[name]
    ours = gatedcells.convert(model.module, inplace=False, report=None)
    assert (recurrent(ours, OURS), recurrent(ours, TORCHS)) == (names, [])
    gatedcells.revert(ours, report=None)
    assert (recurrent(ours, OURS), recurrent(ours, TORCHS)) == ([], names)


def test_outputs_are_as_exact_as_torchs(model):
    theirs = copy.deepcopy(model.module).eval()
    ours = gatedcells.convert(theirs, inplace=False, report=None)
    exact = copy.deepcopy(theirs).double()
    with torch.no_grad():
        found, right, other = (joined(model.infer(module)) for module in (ours, exact, theirs))
    assert_within_budget(found, exact=right, rival=other)


def test_a_training_step_leaves_the_same_gradients_and_weights(model):
    theirs = copy.deepcopy(model.module)
    ours = gatedcells.convert(theirs, inplace=False, report=None)
    exact = copy.deepcopy(theirs).double()
    gradients, weights = [], []
    for module in (ours, exact, theirs):
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        torch.manual_seed(1)  # dropout
        loss = model.loss(module)
        loss.backward()
        optimizer.step()
        assert all(p.grad is not None for m in module.modules() if is_recurrent(m) for p in m.parameters())
        gradients.append(joined(p.grad for p in module.parameters() if p.grad is not None))
        weights.append(joined(module.parameters()))
    assert gradients[0].abs().max() > 0
    for kind, (mine, right, other) in (("gradients", gradients), ("weights", weights)):
        assert_within_budget(mine, exact=right, rival=other, name=kind)


def is_recurrent(module):
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def test_saved_weights_go_both_ways(model, tmp_path):
    theirs = copy.deepcopy(model.module).eval()
    ours = gatedcells.convert(theirs, inplace=False, report=None)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(0.9)
        torch.save(ours.state_dict(), tmp_path / "ours.pt")
        theirs.load_state_dict(torch.load(tmp_path / "ours.pt"))
        torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
        fresh = gatedcells.convert(model.module, inplace=False, report=None).eval()
        fresh.load_state_dict(torch.load(tmp_path / "theirs.pt"))
        for again, right in zip(model.infer(fresh), model.infer(ours), strict=True):
            assert torch.equal(again, right)
