"""The scenes to step through: a layer, its input and a description of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gatedcells
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import read_tensors
from gatedcells.step.errors import StepError
from gatedcells.trace.equations import GATES

Layer = gatedcells.GRU | gatedcells.LSTM
CELLS = {"gru": gatedcells.GRU, "lstm": gatedcells.LSTM}


@dataclass(frozen=True)
class Scene:
    """A layer and its input.

    Attributes:
        name: what it is called.
        story: what to look for, a sentence or two.
        layer: the layer, in evaluation mode.
        x: ``[T, B, I]``; hx: as the layer takes it, or None for zeros.
        times: T words, what each step reads.
        inputs: I words, what each input is.
    """

    name: str
    story: str
    layer: Layer
    x: Tensor
    hx: Any
    times: tuple[str, ...]
    inputs: tuple[str, ...]


def _with_weights(layer: Layer, weights: dict[str, list[Any]]) -> Layer:
    """Set a layer's weights by gate; a gate that is not named has none."""
    H = layer.hidden_size
    found = {name: torch.zeros_like(parameter) for name, parameter in layer.state_dict().items()}
    for number, gate in enumerate(GATES[layer.mode]):
        rows = slice(number * H, (number + 1) * H)
        from_input, from_state, bias = weights.get(gate, [0.0, 0.0, 0.0])
        found["weight_ih_l0"][rows] = torch.tensor(from_input, dtype=torch.float64)
        found["weight_hh_l0"][rows] = from_state
        found["bias_ih_l0"][rows] = bias
    layer.load_state_dict(found)
    return layer.eval()


def _input(rows: list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def latch() -> Scene:
    """The update gate alone: write when told to, else keep."""
    layer = _with_weights(
        gatedcells.GRU(2, 1, dtype=torch.float64),
        {"update": [[0.0, -12.0], 0.0, 6.0], "candidate": [[3.0, 0.0], 0.0, 0.0]},
    )
    steps = [(0.9, 0), (1.0, 1), (-0.7, 0), (0.4, 0), (-0.2, 0), (-1.0, 1), (0.8, 0), (0.3, 0)]
    return Scene(
        "latch",
        "One number is stored. Where write is 1, the update gate closes (z near 0) and the candidate replaces"
        " h; otherwise z is near 1 and h is kept, whatever value is.",
        layer,
        _input(steps),
        None,
        tuple(f"value {v:+.1f}, {'write' if w else 'keep'}" for v, w in steps),
        ("value", "write"),
    )


def reset_on_marker() -> Scene:
    """The reset gate: a review whose last lines matter."""
    layer = _with_weights(
        gatedcells.GRU(2, 1, dtype=torch.float64),
        {
            "reset": [[0.0, -10.0], 0.0, 4.0],
            "update": [[0.0, -6.0], 0.0, 0.5],
            "candidate": [[1.5, 0.0], 1.5, 0.0],
        },
    )
    review = [
        ("The rooms were lovely,", 0.8, 0), ("the pool was warm", 0.6, 0),
        ("and breakfast was superb.", 0.9, 0), ("But after all that:", 0.0, 1),
        ("the staff was rude", -0.7, 0), ("and we will not return.", -0.9, 0),
    ]  # fmt: skip
    return Scene(
        "reset-on-marker",
        "A review of a resort: feeling is a line's sentiment, marker is 1 where it changes. There the reset"
        " gate closes (r near 0): the candidate ignores the praise before, and the last lines decide.",
        layer,
        _input([(feeling, marker) for _, feeling, marker in review]),
        None,
        tuple(line for line, _, _ in review),
        ("feeling", "marker"),
    )


def counter() -> Scene:
    """The LSTM's cell state adds: it counts pulses."""
    layer = _with_weights(
        gatedcells.LSTM(2, 1, dtype=torch.float64),
        {
            "input": [[20.0, 0.0], 0.0, -10.0], "forget": [[0.0, -20.0], 0.0, 10.0],
            "candidate": [[20.0, 0.0], 0.0, 0.0], "output": [[0.0, 0.0], 0.0, 10.0],
        },
    )  # fmt: skip
    steps = [(1, 0), (0, 0), (1, 0), (1, 0), (0, 0), (0, 1), (1, 0), (0, 0)]
    words = {(1, 0): "pulse", (0, 0): "nothing", (0, 1): "clear"}
    return Scene(
        "counter",
        "c counts pulses: f near 1 keeps the count, i near 1 adds g = 1 to it, and clear closes f. A GRU"
        " cannot count like this: from h = 0 its state stays within -1 to 1.",
        layer,
        _input([(float(pulse), float(clear)) for pulse, clear in steps]),
        None,
        tuple(words[step] for step in steps),
        ("pulse", "clear"),
    )


def drawn(cell: str, *, T: int = 12, I: int = 3, H: int = 4, seed: int = 0) -> Scene:
    """Weights and inputs as torch draws them."""
    torch.manual_seed(seed)
    layer = CELLS[cell](I, H, dtype=torch.float64).eval()
    x = torch.randn(T, 1, I, dtype=torch.float64)
    return Scene(
        "random",
        f"{cell.upper()} with random weights, as before training: its gates are near 0.5, so no value is"
        " kept for long.",
        layer, x, None, ("",) * T, tuple(f"x[{i}]" for i in range(I)),
    )  # fmt: skip


PRESETS = {"latch": latch, "reset-on-marker": reset_on_marker, "counter": counter}


def from_files(weights: Path, given: Path | None, *, reset_after: bool = True, seed: int = 0) -> Scene:
    """Somebody's own weights, on their own input.

    Args:
        weights: a safetensors file with the state_dict of a GRU or LSTM, of torch's or ours.
        given: a CSV file, a line of I numbers a step; None for drawn numbers.
        reset_after: the GRU's convention, which weights do not tell.
        seed: of drawn numbers.

    Raises:
        StepError: a file is not what it should be.
    """
    try:
        tensors, _ = read_tensors(weights)
    except ForecastError as error:
        raise StepError(str(error)) from error
    layer = _layer_for(weights, tensors, reset_after)
    I = layer.input_size
    if given is None:
        torch.manual_seed(seed)
        x, times = torch.randn(12, 1, I, dtype=torch.float64), ("",) * 12
    else:
        x = _read_csv(given, I)
        times = ("",) * len(x)
    story = f"The weights of {weights.name}" + ("" if given is None else f" on the numbers of {given.name}")
    return Scene(weights.name, story + ".", layer, x, None, times, tuple(f"x[{i}]" for i in range(I)))


def _layer_for(path: Path, tensors: dict[str, Tensor], reset_after: bool) -> Layer:
    first, recurrent = tensors.get("weight_ih_l0"), tensors.get("weight_hh_l0")
    if first is None or recurrent is None or first.dim() != 2 or recurrent.dim() != 2:
        names = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise StepError(f"{path}: expected weight_ih_l0 and weight_hh_l0 as torch names them, found {names}")
    layers = sum(name.startswith("weight_ih_l") and not name.endswith("_reverse") for name in tensors)
    options: dict[str, Any] = {
        "num_layers": layers, "bidirectional": "weight_ih_l0_reverse" in tensors,
        "bias": "bias_ih_l0" in tensors, "dtype": torch.float64,
    }  # fmt: skip
    rows, P = recurrent.shape
    I = first.shape[1]
    projected = "weight_hr_l0" in tensors
    if rows == 3 * P and not projected:
        layer: Layer = gatedcells.GRU(I, P, reset_after=reset_after, **options)
    elif rows % 4 == 0 and (rows == 4 * P or projected):
        layer = gatedcells.LSTM(I, rows // 4, proj_size=P if projected else 0, **options)
    else:
        raise StepError(
            f"{path}: weight_hh_l0 must be [3H, H] (a GRU) or [4H, H] (an LSTM), got {list(recurrent.shape)}"
        )
    try:
        layer.load_state_dict({name: tensor.double() for name, tensor in tensors.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise StepError(f"{path}: not the weights of a {layer.mode} ({reason})") from error
    return layer.eval()


def _read_csv(path: Path, I: int) -> Tensor:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path}: cannot be read ({error})") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = [float(cell) for cell in line.split(",")]
        except ValueError:
            if not rows and number == 1:
                continue  # a line of names
            raise StepError(f"{path}, line {number}: expected {I} numbers, found {line[:60]!r}") from None
        if len(row) != I:
            raise StepError(f"{path}, line {number}: expected {I} numbers, found {len(row)}")
        rows.append(row)
    if not rows:
        raise StepError(f"{path}: has no line of numbers")
    return torch.tensor(rows, dtype=torch.float64)[:, None]
