"""Run a layer forward and backward and collect every number that it yields."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.support.inputs import Case, exactly_representable


def everything(
    module: nn.Module, case: Case, dtype: torch.dtype, dropout_seed: int = 7, device: str = "cpu"
) -> dict[str, Tensor]:
    """Outputs, last states, and the gradients of input, initial states and parameters."""
    x = case.input(dtype).to(device).requires_grad_()
    state = case.state(dtype)
    if state is not None:
        state = tuple(part.to(device).requires_grad_() for part in state)
    given = x
    if case.lengths is not None:
        given = pack_padded_sequence(
            x, torch.tensor(case.lengths), case.options["batch_first"], enforce_sorted=False
        )
    hx = None if state is None else state[0] if len(state) == 1 else state
    torch.manual_seed(dropout_seed)
    output, last = module(given, hx)
    last = (last,) if isinstance(last, Tensor) else tuple(last)
    results = {"output": output.data if isinstance(output, PackedSequence) else output}
    if isinstance(output, PackedSequence):
        assert isinstance(given, PackedSequence)
        assert torch.equal(output.batch_sizes, given.batch_sizes)
        assert torch.equal(output.unsorted_indices, given.unsorted_indices)
    results |= {f"state {i}": part for i, part in enumerate(last)}
    # a loss whose gradient differs at every element
    generator = torch.Generator().manual_seed(3)
    loss = sum(
        (value * exactly_representable(generator, *value.shape).to(device, dtype)).sum()
        for value in list(results.values())
    )
    loss.backward()
    results["d input"] = x.grad
    for i, part in enumerate(state or ()):
        results[f"d state {i}"] = part.grad
    for name, parameter in module.named_parameters():
        results[f"d {name}"] = parameter.grad
        parameter.grad = None
    return {name: value.detach() for name, value in results.items()}


def pooled(results: dict[str, Tensor], kind: str) -> Tensor:
    """All values, or all gradients, as one vector. A budget is twice a rival's error, and over the few
    numbers of one small tensor a rival's rounding errors may cancel by luck."""
    chosen = [v for name, v in results.items() if name.startswith("d ") == (kind == "gradients")]
    return torch.cat([value.flatten() for value in chosen])
