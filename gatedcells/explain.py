"""`explain_backend`: which backend would compute a module's call, and why."""

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatedcells._ops import implementation
from gatedcells.backends import explain, resolve
from gatedcells.cells import GRUCell
from gatedcells.cells.base import RecurrentCell
from gatedcells.cells.custom import Cell
from gatedcells.functional.inputs import each_to_autocast
from gatedcells.layers.base import RecurrentLayer
from gatedcells.layers.beyond import needs
from gatedcells.layers.recurrent import Recurrent


def explain_backend(
    module: nn.Module,
    input: Tensor | PackedSequence,
    *,
    return_states: bool = False,
    return_gates: bool = False,
) -> str:
    """Explain which backend ``module(input)`` would use and why the others would not be used.

    Args:
        module: a `gatedcells` layer or cell.
        input: what the module would be called with; only its type, shape, dtype and device are read.
        return_states, return_gates: the flags that the layer would be called with.

    Returns:
        One line for the request, then one for each backend; if Triton is chosen, also its kernel.

    Raises:
        TypeError: ``module`` is not a `gatedcells` layer or cell.
    """
    if isinstance(module, (Recurrent, Cell)):
        kind = module.mode if isinstance(module, Recurrent) else type(module).__name__
        return f"{kind}: its steps run one by one in plain torch, on any device; no backend is chosen"
    data = input.data if isinstance(input, PackedSequence) else input
    asked = _call(module, input)
    more, precision = "", None
    if isinstance(module, RecurrentLayer):
        more = needs(module, (data, *module.parameters()), return_states, return_gates)
        precision, data = module.factors(), data.bfloat16() if module.precision == "bf16" else data
    tensors: Any = each_to_autocast(data.device.type, (data, *module.parameters()))
    data = tensors[0]
    request = asked.cell, asked.form, tuple(tensors), asked.backend, more, precision
    said = explain(*request)
    if "CHOSEN" not in said or resolve(*request).backend != "triton":
        return said
    plan = implementation("triton").explain(
        asked.cell, data, asked.steps, asked.rows, asked.units, asked.outputs, asked.reset_after,
        asked.directions,
    )  # fmt: skip
    return "\n".join([said, *(f"    {line}" for line in plan.splitlines())])


class _Call(NamedTuple):
    """What a module would be asked to do."""

    cell: str
    form: str
    steps: int
    rows: int
    units: int
    outputs: int
    reset_after: bool
    directions: int
    backend: str


def _call(module: nn.Module, input: Tensor | PackedSequence) -> _Call:
    after = bool(getattr(module, "reset_after", True))
    if isinstance(module, RecurrentLayer):
        steps, rows = _steps_and_rows(module, input)
        units, outputs = module.hidden_size, module.proj_size or module.hidden_size
        directions = 2 if module.bidirectional else 1
        return _Call(module.mode, "sequence", steps, rows, units, outputs, after, directions, module.backend)
    if isinstance(module, RecurrentCell) and isinstance(input, Tensor):
        cell, units = "GRU" if isinstance(module, GRUCell) else "LSTM", module.hidden_size
        rows = 1 if input.dim() == 1 else len(input)
        return _Call(cell, "step", 1, rows, units, units, after, 1, module.backend)
    raise TypeError(f"module must be a gatedcells layer or cell, got {type(module).__name__}")


def _steps_and_rows(module: RecurrentLayer, input: Tensor | PackedSequence) -> tuple[int, int]:
    if isinstance(input, PackedSequence):
        return len(input.batch_sizes), int(input.batch_sizes[0])
    if input.dim() == 2:
        return len(input), 1
    return (input.shape[1], input.shape[0]) if module.batch_first else (input.shape[0], input.shape[1])
