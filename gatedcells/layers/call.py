"""A call of a stack of recurrent layers: from what a user gives to ``[T, B, I]`` and back, for any cell."""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gatedcells.functional.inputs import zero_beyond_lengths
from gatedcells.layers.packing import Packing
from gatedcells.layers.rows import Layout, Masked
from gatedcells.layers.stack import Both, Direction, State, run_stack


class Every:
    """What every step of every direction of every layer computed, as one call collects it.

    Attributes:
        outputs: of each direction of each layer ``[T, B, ...]``, while the stack runs.
        found: by name ``[L*D, T, B, ...]``, laid out like the input.
    """

    def __init__(self, names: Sequence[str], widths: Sequence[int]) -> None:
        self._names = names  # of what is asked for: "hidden" first
        self._widths = widths  # of the states
        self.outputs: list[Tensor] = []
        self.found: dict[str, Tensor] = {}

    def finish(self, place: Callable[[Tensor], Tensor], layout: Layout, recorder: Any) -> None:
        """Put everything in its place.

        Args:
            place: moves each step of ``[T, B, ...]`` to its time, with zeros where none takes part.
            layout: of the input.
            recorder: kept the other names; None if there are none.
        """
        for name in self._names:
            parts = self.outputs if recorder is None else [one[name] for one in recorder.directions]
            self.found[name] = layout.outward(torch.stack([place(part) for part in parts]), 1)

    def no_steps(self, input: Tensor, rows: int, layout: Layout) -> None:
        """The same for a sequence without steps, ``[0, B, I]``."""
        for number, name in enumerate(self._names):  # the states first, then what is as wide as the last
            width = self._widths[min(number, len(self._widths) - 1)]
            self.found[name] = layout.outward(input.new_zeros(rows, 0, input.shape[1], width), 1)


class Call(NamedTuple):
    """What a call asks for, once time comes first.

    Attributes:
        lengths: ``[B]``, or None.
        resets: ``[T, B]``, or None.
        valid: of a packed batch, see `run_stack`.
        generator: draws the masks; None: torch's own.
        recorder: runs the cells and keeps what they compute, or None.
        every: takes in the outputs of every direction of every layer, or None.
    """

    lengths: Tensor | None = None
    resets: Tensor | None = None
    valid: Tensor | None = None
    generator: torch.Generator | None = None
    recorder: Any = None
    every: Every | None = None


class Asked(NamedTuple):
    """What a user asks for beside the input and the states; see `gatedcells.GRU`."""

    resets: Tensor | None = None
    lengths: Tensor | None = None
    mask: Tensor | None = None
    generator: torch.Generator | None = None
    recorder: Any = None
    every: Every | None = None

    def keeping(self, recorder: Any, every: Every | None = None) -> Asked:
        """The same with what keeps what is computed."""
        # not by _replace, which torch's compiler before 2.9 does not trace
        return Asked(self.resets, self.lengths, self.mask, self.generator, recorder, every)

    def check(self, packed: bool) -> None:
        """Raise ValueError where these do not go together."""
        if packed:
            for name in ("resets", "lengths", "mask"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}= needs a padded input, got a PackedSequence")
        if self.lengths is not None and self.mask is not None:
            raise ValueError("give lengths or mask, not both: a mask alone says which steps take part")


class SequenceCall:
    """How a stack is called: batched or not, time or batch first, packed, with lengths, a mask or resets.

    For a class that is also an ``nn.Module``; what is said of its cell comes last.
    """

    mode: str
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    training: bool
    allow_empty: bool

    def _run_sequence(
        self, input: Tensor | PackedSequence, given: State | None, asked: Asked
    ) -> tuple[Any, State]:
        """The forward pass of torch's layers, states as a tuple of tensors."""
        if isinstance(input, PackedSequence):
            asked.check(packed=True)
            return self._run_packed(input, given, asked)
        asked.check(packed=False)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        layout = Layout(input.dim() == 3, self.batch_first)
        batched = layout.batched
        if given is not None and any(part.dim() != input.dim() for part in given):
            raise RuntimeError(self._dimension_error(batched, given))
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
            given = None if given is None else tuple(part.unsqueeze(1) for part in given)
        state = self._initial(input, input.shape[0 if self.batch_first else 1]) if given is None else given
        self._check_devices(input, state)
        self._check_state(input, state, None)
        by_time = input.transpose(0, 1) if self.batch_first else input
        output, last = self._run_rows(by_time, state, layout, asked)
        if not batched:
            last = tuple(part.squeeze(1) for part in last)
        return layout.outward(output), last

    def _run_rows(self, input: Tensor, state: State, layout: Layout, asked: Asked) -> tuple[Tensor, State]:
        """Time first, ``[T, B, I]``: what takes part, the stack, zeros where nothing does."""
        resets, lengths, masked = asked.resets, asked.lengths, None
        if resets is not None:
            resets = layout.by_time("resets", resets, input)
        if lengths is not None:
            lengths = layout.lengths(lengths)
        if asked.mask is not None:
            masked = Masked.of(layout.by_time("mask", asked.mask, input))
            input, resets, lengths = masked.front(input), masked.resets(resets), masked.lengths
        if input.shape[0] == 0 and self.allow_empty:
            if asked.every is not None:
                asked.every.no_steps(input, self._rows(), layout)
            return self._no_steps(input, state)
        call = Call(lengths, resets, None, asked.generator, asked.recorder, asked.every)
        output, last = self._stack(input, state, call)

        def place(by_time: Tensor) -> Tensor:
            placed = zero_beyond_lengths(by_time, lengths)
            return placed if masked is None else masked.back(placed)

        if asked.every is not None:
            asked.every.finish(place, layout, asked.recorder)
        return place(output), last

    def _run_packed(
        self, input: PackedSequence, given: State | None, asked: Asked
    ) -> tuple[PackedSequence, State]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        packing = Packing.of(input)
        state = self._initial(data, packing.B) if given is None else given
        self._check_devices(data, state)
        self._check_state(data, state, batch_sizes)
        if sorted_indices is not None:
            state = tuple(part.index_select(1, sorted_indices) for part in state)
        if asked.recorder is not None:
            asked.recorder.rows = unsorted_indices
        call = Call(packing.lengths, None, packing.valid, asked.generator, asked.recorder, asked.every)
        output, last = self._stack(packing.pad(data), state, call)
        if unsorted_indices is not None:
            last = tuple(part.index_select(1, unsorted_indices) for part in last)
        packed = PackedSequence(packing.pack(output), batch_sizes, sorted_indices, unsorted_indices)
        return packed, last

    def _as_sequence(self, input: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor | None, int]:
        """A step's input and resets, ``[B, I]`` and ``[B]`` (``[I]`` and ``[]``), as those of a sequence of
        one step; and the axis that is its time."""
        if self.bidirectional:
            raise RuntimeError(
                "step needs a unidirectional layer: the reverse direction of a bidirectional one starts at"
                " the end of the sequence"
            )
        if input.dim() not in (1, 2):
            raise ValueError(
                f"{self.mode}: Expected a step's input to be 1D or 2D, got {input.dim()}D instead"
            )
        time_axis = 1 if self.batch_first and input.dim() == 2 else 0
        if resets is not None:
            if resets.shape != input.shape[:-1]:
                expected = f"[B]={list(input.shape[:-1])}" if input.dim() == 2 else "a single bool, []"
                raise RuntimeError(f"resets of a step must be {expected}, got {list(resets.shape)}")
            resets = resets.unsqueeze(time_axis)
        return input.unsqueeze(time_axis), resets, time_axis

    def _stack(self, input: Tensor, state: State, call: Call) -> tuple[Tensor, State]:
        direction, both, before = self._runners(input, call)
        return run_stack(
            direction,
            both,
            input,
            state,
            layers=self.num_layers,
            directions=2 if self.bidirectional else 1,
            dropout=self.dropout if self.training else 0.0,
            valid=call.valid,
            before=before,
            generator=call.generator,
            every=None if call.every is None else call.every.outputs,
        )

    def _rows(self) -> int:
        """How many directions of layers there are, L*D."""
        return self.num_layers * (2 if self.bidirectional else 1)

    def _initial(self, input: Tensor, B: int) -> State:
        """The states of a call that gives none, each ``[L*D, B, ...]``: zeros."""
        return tuple(input.new_zeros(self._rows(), B, width) for width in self._state_widths())

    def _no_steps(self, input: Tensor, state: State) -> tuple[Tensor, State]:
        width = (2 if self.bidirectional else 1) * self._state_widths()[0]
        return input.new_zeros(0, input.shape[1], width), tuple(part.clone() for part in state)

    # What a subclass says about its cell.

    def _runners(self, input: Tensor, call: Call) -> tuple[Direction, Both, Any]:
        """What `run_stack` runs: one direction, both directions, and what happens to each layer's input."""
        raise NotImplementedError

    def _check_devices(self, input: Tensor, state: State) -> None:
        raise NotImplementedError

    def _check_state(self, input: Tensor, state: State, batch_sizes: Tensor | None) -> None:
        raise NotImplementedError

    def _state_widths(self) -> Sequence[int]:
        raise NotImplementedError

    def _dimension_error(self, batched: bool, state: State) -> str:
        raise NotImplementedError
