"""`Recurrent`: layers, directions, packing, lengths, resets and traces for any `gatedcells.Cell`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatedcells._autograd.custom import tensors_of, walk
from gatedcells.cells.custom import Cell, one_or_all, scan_of, to_autocast
from gatedcells.functional.inputs import zero_beyond_lengths
from gatedcells.layers.call import Asked, Call, Every, SequenceCall
from gatedcells.layers.stack import Both, Direction, State
from gatedcells.reference.scan import AVAILABLE as SCAN_AVAILABLE
from gatedcells.reference.scan import scan_states
from gatedcells.reference.time import boundaries, unroll_states
from gatedcells.validation import check_sequence


class CellTrace(NamedTuple):
    """The result of `Recurrent.trace`; ``trace[layer, direction]["update"]`` are the values of that name.

    Attributes:
        output, last: as ``forward`` returns them.
        recorded: for each direction of each layer, the states ("hidden", then "state_1", ...) and the values
            given to `Cell.record`, each ``[T, B, ...]`` in the order of time.
        directions: 1 or 2.
    """

    output: Any
    last: Any
    recorded: list[dict[str, Tensor]]
    directions: int

    def __getitem__(self, where: Any) -> Any:
        """``trace[layer]`` or ``trace[layer, direction]``: everything recorded there, by name.

        Raises:
            IndexError: there is no such layer or direction.
        """
        layer, direction = where if isinstance(where, tuple) else (where, 0)
        layers = len(self.recorded) // self.directions
        if not (0 <= layer < layers and 0 <= direction < self.directions):
            there = f"{layers} layer(s) in {self.directions} direction(s)"
            raise IndexError(f"no layer {layer}, direction {direction}: there are {there}")
        return self.recorded[layer * self.directions + direction]


class Recurrent(SequenceCall, nn.Module):
    """A multi-layer recurrent module of your own cell, called like `gatedcells.GRU`.

    Args:
        cell: a subclass of `gatedcells.Cell`, or a function that returns such a cell, called as
            ``cell(input_size, hidden_size, **options)`` for each direction of each layer.
        input_size: number of input features, I.
        hidden_size: number of hidden units, H.
        num_layers: number of stacked layers, L.
        batch_first: input and output are ``[B, T, ...]`` instead of ``[T, B, ...]``; states are unaffected.
        dropout: in training, the probability of zeroing each output of every layer except the last.
        bidirectional: add a second direction, from the last step to the first (D = 2).
        allow_empty: for T = 0 return an empty output and the initial states, instead of raising.
        options: further keyword arguments for ``cell``.

    Inputs: ``input, hx``
        input: ``[T, B, I]`` (``[B, T, I]`` with batch_first), ``[T, I]`` unbatched, or a PackedSequence.
        hx: initial state ``[L*D, B, H]``, or a tuple of states if the cell has several; None: zeros.
        resets, lengths, mask, generator (keywords): as for `gatedcells.GRU`.
        return_states (keyword): also return ``steps``; not with a PackedSequence.

    Outputs: ``output, h_n``, and ``steps`` if requested
        output: the first state of the last layer ``[T, B, D*H]`` (H: its width, see `gatedcells.Cell`), laid
            out like the input; packed if it was.
        h_n: the last states, shaped like hx.
        steps: a dict with every state of every step, ``[L*D, T, B, ...]`` (``[L*D, B, T, ...]`` with
            batch_first): "hidden", then "state_1", ...

    Attributes:
        cells: the L*D cells, layer by layer, forward before reverse.

    The steps run one by one in plain torch, differentiated by autograd, also under ``torch.func`` transforms.
    Under ``torch.compile`` a sequence is one operator for any T, whose backward pass recomputes the steps; an
    exported program contains one loop.

    Raises:
        TypeError: ``cell`` does not return a `gatedcells.Cell`.
        ValueError: the layers' states have different sizes, or as `gatedcells.GRU`.
        RuntimeError: as `gatedcells.GRU`.
    """

    cells: nn.ModuleList

    def __init__(
        self,
        cell: Callable[..., Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        allow_empty: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(cell, nn.Module):
            given = type(cell).__name__
            raise TypeError(f"cell must be a class or function that makes cells, got an instance of {given}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability in 0..1, got {dropout}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.allow_empty = allow_empty
        self.cells = nn.ModuleList()
        width = input_size
        for _ in range(num_layers):
            for _ in range(2 if bidirectional else 1):
                made: Any = cell(width, hidden_size, **options)
                if not isinstance(made, Cell):
                    raise TypeError(f"cell must return a gatedcells.Cell, got {type(made).__name__}")
                self.cells.append(made)
                if made.state_sizes != self._first.state_sizes:
                    sizes = f"{self._first.state_sizes} and {made.state_sizes}"
                    raise ValueError(f"the states of all layers must have the same sizes, got {sizes}")
            width = self._first.state_sizes[0] * (2 if bidirectional else 1)
        self.mode = type(self._first).__name__

    @property
    def _first(self) -> Cell:
        cell: Any = self.cells[0]
        return cell

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        resets: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        return_states: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Run the layers; the class describes the arguments and results."""
        asked = Asked(resets, lengths, mask, generator)
        if not return_states:
            output, last = self._run_sequence(input, self._as_states(hx), asked)
            return output, one_or_all(last)
        if isinstance(input, PackedSequence):
            raise ValueError("return_states needs a padded input with lengths=, got a PackedSequence")
        widths = self._state_widths()
        every = Every(state_names(len(widths)), widths)
        recorder = _Recorder(self.cells) if len(widths) > 1 else None
        asked = asked.keeping(recorder, every)
        output, last = self._run_sequence(input, self._as_states(hx), asked)
        return output, one_or_all(last), every.found

    def step(self, input: Tensor, hx: Any = None, *, resets: Tensor | None = None) -> tuple[Tensor, Any]:
        """Compute one step of a stream, as a sequence of one step: ``output, state = layers.step(x, state)``.

        Args:
            input: ``[B, I]``, or ``[I]`` unbatched.
            hx: the states after the previous step; None: zeros.
            resets: bool ``[B]`` (``[]`` unbatched): True where this step begins a new sequence.

        Returns:
            the last layer's first state ``[B, H]``, and all states, shaped like ``hx``.

        Raises:
            RuntimeError: the module is bidirectional, or a shape is wrong.
        """
        sequence, resets, time_axis = self._as_sequence(input, resets)
        output, last = self.forward(sequence, hx, resets=resets)
        return output.squeeze(time_axis), last

    def trace(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        resets: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> CellTrace:
        """Run like ``forward`` and record the states of each step and the values given to `Cell.record`.

        Args:
            input, hx, resets, lengths: as for ``forward``. Rows of a packed input are recorded by length.
            mask: as for ``forward``; only the steps that take part are recorded, moved to the row's start.
        """
        recorder = _Recorder(self.cells)
        asked = Asked(resets, lengths, mask, recorder=recorder)
        output, last = self._run_sequence(input, self._as_states(hx), asked)
        return CellTrace(output, one_or_all(last), recorder.directions, 2 if self.bidirectional else 1)

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"num_layers": 1, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text

    @staticmethod
    def _as_states(hx: Any) -> State | None:
        if hx is None:
            return None
        return tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)

    def _runners(self, input: Tensor, call: Call) -> tuple[Direction, Both, Any]:
        def direction(input: Tensor, state: State, row: int, reverse: bool) -> tuple[Tensor, State]:
            if call.recorder is not None:
                return call.recorder.one(input, state, row, reverse, call.lengths, call.resets)
            cell: Any = self.cells[row]
            return _sequence(cell, input, state, call.lengths, call.resets, reverse)

        def both(input: Tensor, state: State, rows: Sequence[int]) -> None:
            return None

        return direction, both, None

    def _check_devices(self, input: Tensor, state: State) -> None:
        for part in state:
            if part.device != input.device:
                raise RuntimeError(
                    "Input and hidden tensors are not at the same device, found input tensor at"
                    f" {input.device} and hidden tensor at {part.device}"
                )

    def _check_state(self, input: Tensor, state: State, batch_sizes: Tensor | None) -> None:
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size},"
                f" got {input.shape[-1]}"
            )
        B = int(batch_sizes[0]) if batch_sizes is not None else input.shape[0 if self.batch_first else 1]
        expected = [(self._rows(), B, width) for width in self._state_widths()]
        if [tuple(part.shape) for part in state] != expected:
            given = [list(part.shape) for part in state]
            raise RuntimeError(f"Expected hidden sizes {[list(size) for size in expected]}, got {given}")

    def _state_widths(self) -> Sequence[int]:
        return self._first.state_sizes

    def _dimension_error(self, batched: bool, state: State) -> str:
        kind, dimensions = ("batched 3-D", 3) if batched else ("unbatched 2-D", 2)
        given = ", ".join(f"{part.dim()}-D" for part in state)
        return f"For {kind} input, hx should also be {dimensions}-D but got {given} tensor"


def state_names(count: int) -> list[str]:
    """The names of a cell's states; the first is the input of the next layer."""
    return ["hidden", *(f"state_{number}" for number in range(1, count))]


def _sequence(
    cell: Cell,
    input: Tensor,
    state: State,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """One direction of one layer; arguments as in `gatedcells.gru_sequence`."""
    check_sequence(input, lengths, resets)
    forgets = boundaries(resets, lengths, reverse)
    x, state, autocast = to_autocast(zero_beyond_lengths(input, lengths), state)
    if SCAN_AVAILABLE and torch.compiler.is_exporting():  # in this order: torch 2.6 has no is_exporting
        step = scan_of(cell)
        return scan_states(step, (x,), state, closed=True, lengths=lengths, resets=forgets, reverse=reverse)
    if torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
        held = tensors_of(cell, cell._number)
        states, last = torch.ops.gatedcells.cell_sequence(
            x, list(state), list(held.values()), lengths, forgets, reverse, autocast, cell._number,
            ",".join(held),
        )  # fmt: skip
        return states, tuple(last)
    states, *last = walk(cell, x, state, lengths, forgets, reverse)
    return states, tuple(last)


class _Recorder:
    """Runs one direction of one layer after the other and keeps what the cells name."""

    def __init__(self, cells: nn.ModuleList) -> None:
        self._cells = cells
        self.rows: Tensor | None = None  # packing sets it; the rows stay by length
        self.directions: list[dict[str, Tensor]] = []

    def one(
        self,
        input: Tensor,
        state: State,
        row: int,
        reverse: bool,
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> tuple[Tensor, State]:
        """As `_sequence`."""
        check_sequence(input, lengths, resets)
        cell: Any = self._cells[row]
        x, state, _ = to_autocast(zero_beyond_lengths(input, lengths), state)
        named: dict[int, dict[str, Tensor]] = {}

        def step(t: int, before: State) -> State:
            cell._records = named[t] = {}
            try:
                return cell.advance(x[t], before)
            finally:
                cell._records = None

        forgets = boundaries(resets, lengths, reverse)
        found = unroll_states(step, len(x), state, lengths=lengths, resets=forgets, reverse=reverse)
        in_time = found[::-1] if reverse else found
        states = [torch.stack(part) for part in zip(*in_time, strict=True)]
        values = {name: torch.stack([named[t][name] for t in range(len(x))]) for name in named[0]}
        self.directions.append({**values, **dict(zip(state_names(len(states)), states, strict=True))})
        return states[0], found[-1]
