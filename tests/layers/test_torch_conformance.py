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

from gatedcells.testing import assert_close_in_float64, assert_within_budget
from tests.support.inputs import OURS, TORCHS

DTYPES = (torch.float32, torch.float64)
FLOAT32_TOLERANCES = {"rtol": 1.3e-6, "atol": 1e-5}  # assert_close's, by which torch runs these cases
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
    args = [_leaf(argument) for argument in arguments.args]
    result = module(*args, **arguments.kwargs)
    outputs = [
        t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point()
    ]
    sum(
        (out * torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in outputs
    ).backward()
    leaves = [t for t in torch.utils._pytree.tree_leaves(args) if isinstance(t, Tensor) and t.requires_grad]
    return [t.detach() for t in outputs] + [t.grad for t in (*leaves, *module.parameters())]


def _leaf(value, dtype=None):
    def made(tensor):
        return None if tensor is None else tensor.detach().to(dtype or tensor.dtype).requires_grad_()

    if isinstance(value, PackedSequence):
        return value._replace(data=made(value.data))
    return torch.utils._pytree.tree_map(made, value)


def _in_float64(sample):
    """The same case, its numbers as float64."""
    arguments = sample.forward_input
    args = [_leaf(argument, torch.float64) for argument in arguments.args]
    return common_modules.ModuleInput(
        constructor_input=sample.constructor_input,
        forward_input=common_modules.FunctionInput(*args, **arguments.kwargs),
    )


@pytest.mark.parametrize(("name", "dtype", "sample"), INPUT_CASES)
def test_torchs_shipped_inputs_give_torchs_results_and_gradients(name, dtype, sample):
    ours, theirs = (_build(kind, name, dtype, sample) for kind in (OURS, TORCHS))
    assert repr(ours) == repr(theirs)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    ours = pickle.loads(pickle.dumps(ours))
    results, expected = _run(ours, sample), _run(theirs, sample)
    assert len(results) == len(expected) > 2
    if dtype == torch.float64:
        for actual, exact in zip(results, expected, strict=True):
            assert_close_in_float64(actual, exact)
        return
    precise = _run(copy.deepcopy(theirs).double(), _in_float64(sample))
    for actual, rival, exact in zip(results, expected, precise, strict=True):
        # some weights are so large that float32 cannot be right to the tolerance of torch's own tests
        if torch.allclose(rival, exact.float(), **FLOAT32_TOLERANCES):
            torch.testing.assert_close(actual, exact.float(), **FLOAT32_TOLERANCES)
        else:
            assert_within_budget(actual, exact=exact, rival=rival)


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
