"""Our layers compute what torch's do: every output and every gradient, over torch's whole contract."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from gatedcells.testing import assert_close_in_float64, assert_within_budget
from tests.support.inputs import Case, as_double, layer_cases
from tests.support.run import everything, pooled

# A budget is twice a rival's error. In one small case the rival's roundings may cancel by luck, so errors
# are compared over several draws of the same shape.
DRAWS = 5


@settings(max_examples=150)
@given(case=layer_cases())
def test_float64_layers_agree_with_torch_to_1e12(case: Case):
    ours, theirs = case.modules(torch.float64)
    actual, exact = (everything(module, case, torch.float64) for module in (ours, theirs))
    assert actual.keys() == exact.keys()
    for name in exact:
        assert_close_in_float64(actual[name], exact[name], name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=60)
@given(case=layer_cases())
def test_layers_are_as_exact_as_torch(dtype, case: Case):
    # one seed draws other masks in other precisions
    case.options["dropout"] = 0.0
    runs = {"ours": [], "torch": [], "exact": []}
    for seed in range(case.seed, case.seed + DRAWS):
        drawn = replace(case, seed=seed)
        ours, theirs = drawn.modules(dtype)
        runs["ours"].append(everything(ours, drawn, dtype))
        runs["torch"].append(everything(theirs, drawn, dtype))
        runs["exact"].append(everything(as_double(theirs), drawn, torch.float64))
    for kind in ("values", "gradients"):
        actual, rival, exact = (
            torch.cat([pooled(run, kind) for run in runs[who]]) for who in ("ours", "torch", "exact")
        )
        assert_within_budget(actual, exact=exact, rival=rival, name=kind)
