"""`torch.utils.flop_counter` counts the operations of our layers and cells as it counts torch's."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support.inputs import OURS, pair

# In float64 torch's LSTM shows the counter every product, as its GRU always does.
FLOAT64 = {"dtype": torch.float64}
LAYERS = [
    ("GRU", {}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2}),
]


def counted(module, x, state=None):
    with FlopCounterMode(display=False) as counter:
        outputs = torch.utils._pytree.tree_leaves(module(x, state))
        if torch.is_grad_enabled():
            sum(output.sum() for output in outputs).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("name", "options"), LAYERS, ids=str)
def test_a_layers_operations_are_as_many_as_torchs(name, options, training):
    ours, theirs = pair(name, 3, 4, **options, **FLOAT64)
    x = torch.randn(5, 2, 3, requires_grad=training, **FLOAT64)
    with torch.no_grad():
        last = theirs(x)[1]
    state = torch.utils._pytree.tree_map(lambda part: part.requires_grad_(training), last)
    with torch.set_grad_enabled(training):
        assert counted(ours, x, state) == counted(theirs, x, state) > 0


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_the_first_states_gradient_counts_if_it_is_asked_for(name):
    ours, theirs = pair(name, 3, 4, **FLOAT64)
    x = torch.randn(5, 2, 3, **FLOAT64)
    assert counted(ours, x) == counted(theirs, x) > 0


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_in_bfloat16_there_are_as_many(name):
    wide, narrow = (OURS[name](3, 4, num_layers=2, dtype=d) for d in (torch.float64, torch.bfloat16))
    x = torch.randn(5, 2, 3, **FLOAT64)
    assert counted(narrow, x.bfloat16()) == counted(wide, x)


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell"])
def test_a_cells_operations_are_as_many_as_torchs(name):
    ours, theirs = pair(name, 3, 4, **FLOAT64)
    x = torch.randn(2, 3, **FLOAT64)
    assert counted(ours, x) == counted(theirs, x) > 0


@pytest.mark.parametrize(
    ("name", "options"), [("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2})], ids=str
)
def test_what_is_computed_again_is_counted_again(name, options):
    plain, again = (OURS[name](3, 4, **options, recompute=recompute) for recompute in (False, True))
    x = torch.randn(5, 2, 3)
    state = torch.utils._pytree.tree_map(lambda part: part.detach().requires_grad_(), plain(x)[1])
    with torch.no_grad():
        forward = counted(plain, x, state)
    assert forward > 0
    assert counted(again, x, state) == counted(plain, x, state) + forward


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_layers_operations_are_counted_at_its_name(name):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), OURS[name](3, 4))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(5, 2, 3))
    multiplied = sum(weight.numel() for weight in model[1].parameters() if weight.dim() == 2)
    assert sum(counter.get_flop_counts()["Sequential.1"].values()) == 2 * 5 * 2 * multiplied
