"""torch's own shipped cases for its recurrent modules, run on ours: all of them hold.

The cases are those of torch.testing._internal.common_modules: for GRU, LSTM and their cells in float32
and float64, inputs on which results and gradients must be torch's, and wrong uses that must raise the
error that torch names.
"""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal import common_modules
from torch.testing._internal.common_modules import ModuleErrorEnum

from gatedcells.testing import assert_close_in_float64
from tests.support.inputs import OURS, TORCHS

DTYPES = (torch.float32, torch.float64)
INPUTS = {
    "GRU": lambda **k: common_modules.module_inputs_torch_nn_RNN_GRU(
        None, is_rnn=False, with_packed_sequence=True, **k
    ),
    "LSTM": lambda **k: common_modules.module_inputs_torch_nn_LSTM(None, **k),
    "GRUCell": lambda **k: common_modules.module_inputs_torch_nn_RNN_GRU_Cell(None, is_rnn=False, **k),
    "LSTMCell": lambda **k: common_modules.module_inputs_torch_nn_LSTMCell(None, **k),
}
ERRORS = {
    "GRU": common_modules.module_error_inputs_torch_nn_RNN_GRU,
    "LSTM": common_modules.module_error_inputs_torch_nn_RNN_GRU,
    "GRUCell": common_modules.module_error_inputs_torch_nn_RNN_GRU_Cell,
    "LSTMCell": common_modules.module_error_inputs_torch_nn_LSTMCell,
}


def _cases(make, **extra):
    found = []
    for name, maker in make.items():
        for dtype in DTYPES:
            torch.manual_seed(0)
            options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": True}
            samples = list(maker(**options, **extra))
            found += [
                pytest.param(name, dtype, sample, id=f"{name}-{str(dtype)[6:]}-{number}")
                for number, sample in enumerate(samples)
            ]
    return found


INPUT_CASES = _cases(INPUTS)
ERROR_CASES = _cases(ERRORS, module_info=None)


def _build(kind, name, dtype, sample):
    arguments = sample.constructor_input
    torch.manual_seed(5)
    return kind[name](*arguments.args, **({"dtype": dtype} | arguments.kwargs))


def _run(module: nn.Module, sample) -> list[Tensor]:
    """Outputs and the gradients of every input and parameter."""
    arguments = sample.forward_input
    args = [_leaf(a) for a in copy.deepcopy(arguments.args)]
    result = module(*args, **arguments.kwargs)
    outputs = [
        t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point()
    ]
    sum(
        (out * torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in outputs
    ).backward()
    leaves = [t for t in torch.utils._pytree.tree_leaves(args) if isinstance(t, Tensor) and t.requires_grad]
    return [t.detach() for t in outputs] + [t.grad for t in (*leaves, *module.parameters())]


def _leaf(value):
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.detach().requires_grad_())
    return torch.utils._pytree.tree_map(lambda t: t.detach().requires_grad_(), value)


@pytest.mark.parametrize(("name", "dtype", "sample"), INPUT_CASES)
def test_torchs_shipped_inputs_give_torchs_results_and_gradients(name, dtype, sample):
    ours, theirs = (_build(kind, name, dtype, sample) for kind in (OURS, TORCHS))
    assert repr(ours) == repr(theirs)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    ours = pickle.loads(pickle.dumps(ours))
    results, expected = _run(ours, sample), _run(theirs, sample)
    assert len(results) == len(expected) > 2
    for actual, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(actual, exact)
        if dtype == torch.float64:
            assert_close_in_float64(actual, exact)


@pytest.mark.parametrize(("name", "dtype", "sample"), ERROR_CASES)
def test_torchs_shipped_wrong_uses_raise_what_torch_names(name, dtype, sample):
    given = sample.module_error_input
    constructor, forward = given.constructor_input, given.forward_input
    if sample.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(sample.error_type, match=sample.error_regex):
            OURS[name](*constructor.args, **constructor.kwargs)
        return
    module = OURS[name](*constructor.args, **constructor.kwargs)
    with pytest.raises(sample.error_type, match=sample.error_regex):
        module(*forward.args, **forward.kwargs)


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="other releases ship other cases")
def test_there_are_212_shipped_cases():
    assert len(INPUT_CASES) + len(ERROR_CASES) == 212
