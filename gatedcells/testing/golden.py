"""Golden vectors: small GRUs and LSTMs with all intermediate values, exact to the last bit of float64.

They were computed with 60 digits by a separate program (tests/reference/make_golden_vectors.py) that shares
no code with this library. Weights and inputs are multiples of 1/64, which every dtype represents exactly.
Use them to test whether an implementation computes the GRU or LSTM that it should::

    for case in golden_cases("GRU"):
        if case.reset_after:
            layer = build(case.weights, case.bidirectional)  # yours
            assert_golden(case, *layer(case.input, case.initial))
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells.testing.budget import FLOAT64_TOLERANCE

FOLDER = Path(__file__).parent / "vectors"


class GoldenCase(NamedTuple):
    """One layer with its inputs and all values that it computes, in float64.

    Attributes:
        name: the case's name.
        cell: "GRU" or "LSTM".
        reset_after: the GRU's convention, see `gatedcells.reference.gru`.
        bidirectional: whether there is a second, reverse direction.
        lengths: ``[B]``, each row's number of steps, or None if all have T.
        weights: by torch's names, ``weight_ih_l0`` and so on.
        input: ``[T, B, I]``.
        initial: ``h_0`` (and ``c_0``), each ``[D, B, ...]``, or None for zeros.
        steps: for "forward" (and "reverse") the intermediate values by their names in `gatedcells.reference`,
            ``[T, B, ...]``; NaN beyond a row's length.
        output: ``[T, B, D*H]`` (``[T, B, D*P]`` with a projection), zeros beyond a row's length as in torch.
        last: ``h_n`` (and ``c_n``), each ``[D, B, ...]``.
    """

    name: str
    cell: str
    reset_after: bool
    bidirectional: bool
    lengths: Tensor | None
    weights: dict[str, Tensor]
    input: Tensor
    initial: tuple[Tensor, ...] | None
    steps: dict[str, dict[str, Tensor]]
    output: Tensor
    last: tuple[Tensor, ...]


def golden_cases(cell: str | None = None) -> list[GoldenCase]:
    """The golden vectors of a cell.

    Args:
        cell: "GRU" or "LSTM"; None for both.

    Raises:
        ValueError: ``cell`` is anything else.
    """
    if cell not in (None, "GRU", "LSTM"):
        raise ValueError(f"cell must be 'GRU', 'LSTM' or None, got {cell!r}")
    found = [_read(path) for path in sorted(FOLDER.glob("*.json"))]
    return [case for case in found if cell in (None, case.cell)]


def assert_golden(
    case: GoldenCase,
    output: Tensor,
    last: Tensor | Sequence[Tensor],
    *,
    tolerance: float = FLOAT64_TOLERANCE,
) -> None:
    """Check an implementation's result against a golden vector.

    Args:
        case: one of `golden_cases`.
        output: shaped like ``case.output``; values beyond a row's length are ignored.
        last: ``h_n``, or ``(h_n, c_n)``.
        tolerance: the largest absolute error allowed; the default is for float64.

    Raises:
        AssertionError: a shape or a value is wrong.
    """
    states = (last,) if isinstance(last, Tensor) else tuple(last)
    if len(states) != len(case.last):
        raise AssertionError(f"{case.name}: {len(states)} last states, expected {len(case.last)}")
    names = ("output", "h_n", "c_n")[: 1 + len(states)]
    for name, found, exact in zip(names, (output, *states), (case.output, *case.last), strict=True):
        if found.shape != exact.shape:
            raise AssertionError(f"{case.name}: {name} is {list(found.shape)}, expected {list(exact.shape)}")
        error = (found.detach().to("cpu", torch.float64) - exact).abs()
        if name == "output" and case.lengths is not None:
            beyond = torch.arange(len(error))[:, None] >= case.lengths
            error = error.masked_fill(beyond[:, :, None], 0)
        worst = float(error.max())
        if not worst <= tolerance:
            at = [int(i) for i in torch.unravel_index(error.nan_to_num(math.inf).argmax(), error.shape)]
            raise AssertionError(f"{case.name}: {name}{at} is off by {worst:.3e}, allowed {tolerance:.0e}")


def _read(path: Path) -> GoldenCase:
    with path.open(encoding="utf-8") as file:
        text: dict[str, Any] = json.load(file)
    steps = {
        direction: {name: _tensor(values) for name, values in fields.items()}
        for direction, fields in text["steps"].items()
    }
    initial: dict[str, Any] | None = text["initial"]
    lengths: list[int] | None = text["lengths"]
    shown = torch.cat([fields["hidden"] for fields in steps.values()], dim=-1)
    return GoldenCase(
        text["name"], text["cell"], text["reset_after"], text["bidirectional"],
        None if lengths is None else torch.tensor(lengths),
        {name: _tensor(values) for name, values in text["weights"].items()},
        _tensor(text["input"]),
        None if initial is None else tuple(map(_tensor, initial.values())),
        steps, shown.nan_to_num(0.0), tuple(map(_tensor, text["last"].values())),
    )  # fmt: skip


def _tensor(values: Any) -> Tensor:
    return torch.tensor(_numbers(values, _width(values)), dtype=torch.float64)


def _width(values: Any) -> int:
    """How many numbers an innermost list has; there is always one that is not null."""
    if not isinstance(values, list):
        return 0
    found: list[Any] = values  # pyright: ignore[reportUnknownVariableType]
    if isinstance(found[0], str):
        return len(found)
    return max(_width(part) for part in found)


def _numbers(values: Any, width: int) -> Any:
    if values is None:
        return [math.nan] * width
    if isinstance(values, str):
        return float.fromhex(values)
    return [_numbers(part, width) for part in values]
