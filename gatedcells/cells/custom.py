"""`Cell`: the base class of custom recurrent cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gatedcells._autograd.custom import enter
from gatedcells.validation import is_autocast_enabled

States = tuple[Tensor, ...]


class Cell(nn.Module):
    """Base class of custom recurrent cells: define `step`, and `gatedcells.Recurrent` makes layers of it.

    For example::

        class Leaky(gatedcells.Cell):
            def __init__(self, input_size, hidden_size):
                super().__init__(input_size, hidden_size)
                self.read = torch.nn.Linear(input_size, hidden_size)
                self.turn = torch.nn.Linear(hidden_size, hidden_size)

            def step(self, x_t, h):
                return 0.9 * h + 0.1 * torch.tanh(self.read(x_t) + self.turn(h))

    Args:
        input_size: number of input features, I.
        hidden_size: number of hidden units, H.
        state_sizes: the width of each state; the first state is the output. None: a single state of width H.

    Inputs: ``input, hx``
        input: ``[B, I]``, or ``[I]`` unbatched.
        hx: the state before the step, a tensor ``[B, H]``, or a tuple of tensors if there are several states;
            None: zeros.

    Output: the state after the step, in the same form.

    Raises:
        ValueError, RuntimeError: an input or state has the wrong shape, or `step` returns states of other
            shapes or dtypes than it was given.
        NotImplementedError: `step` is not defined.
    """

    input_size: int
    hidden_size: int
    state_sizes: tuple[int, ...]

    def __init__(self, input_size: int, hidden_size: int, state_sizes: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.state_sizes = (hidden_size,) if state_sizes is None else state_sizes
        self._number = enter(self)
        self._records: dict[str, Tensor] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = enter(self)  # a copy is another cell

    # by place alone: a step may call its arguments what it likes, and type checkers agree
    def step(self, x_t: Tensor, state: Any, /) -> Any:
        """Compute one step in plain torch; subclasses define this.

        It must be a pure function of its arguments and the cell's tensors: no random numbers, no side
        effects. Each tensor it reads must be an attribute of the cell, set before the layers are called;
        attributes that are not tensors must not change within compiled code.

        Args:
            x_t: the input at this step, ``[B, I]``.
            state: the state before the step: a tensor, or a tuple if there are several.

        Returns:
            the state after the step, with the same shapes and dtypes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(self, x_t, state)")

    def record(self, **values: Tensor) -> None:
        """Within `step`, record values by name, each ``[B, ...]``, for `gatedcells.Recurrent.trace`."""
        if self._records is not None:
            self._records.update(values)

    def advance(self, x_t: Tensor, state: States) -> States:
        """`step` with states as a tuple, and its result checked.

        Raises:
            RuntimeError: `step` returned states of other shapes or dtypes than it was given.
        """
        found = self.step(x_t, one_or_all(state))
        new: States = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if len(new) != len(state) or any(n.shape != o.shape for n, o in zip(new, state, strict=True)):
            expected = ", ".join(str(list(part.shape)) for part in state)
            given = ", ".join(str(list(part.shape)) for part in new)
            raise RuntimeError(
                f"{type(self).__name__}.step must return states of shape {expected}, got {given}"
            )
        if any(n.dtype != o.dtype for n, o in zip(new, state, strict=True)):
            if not is_autocast_enabled(x_t.device.type):
                expected, given = ([str(part.dtype) for part in parts] for parts in (state, new))
                raise RuntimeError(f"{type(self).__name__}.step must return dtypes {expected}, got {given}")
            new = tuple(n.to(o.dtype) for n, o in zip(new, state, strict=True))
        return new

    def zeros(self, input: Tensor, *leading: int) -> States:
        """States of zeros, each ``[*leading, width]``, like ``input``."""
        return tuple(input.new_zeros(*leading, width) for width in self.state_sizes)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Compute one step; the class describes the shapes."""
        if input.dim() not in (1, 2):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 1D or 2D, got {input.dim()}D instead"
            )
        batched = input.dim() == 2
        rows = input if batched else input.unsqueeze(0)
        if hx is None:
            state = self.zeros(rows, len(rows))
        else:
            given = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
            state = given if batched else tuple(part.unsqueeze(0) for part in given)
            expected = [(len(rows), width) for width in self.state_sizes]
            if [tuple(part.shape) for part in state] != expected:
                sizes = [list(size if batched else size[1:]) for size in expected]
                found = [list(part.shape) for part in given]
                raise RuntimeError(f"{type(self).__name__}: Expected hidden sizes {sizes}, got {found}")
        new = self.advance(rows, state)
        new = new if batched else tuple(part.squeeze(0) for part in new)
        return one_or_all(new)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}"


def one_or_all(state: States) -> Any:
    """A tuple of one state as that state, as users see it."""
    if len(state) == 1:
        (only,) = state
        return only
    return state


def scan_of(cell: Cell) -> Any:
    """`Cell.advance` as `gatedcells.reference.scan.scan_states` calls it."""

    def step(now: tuple[Tensor, ...], state: States) -> States:
        return cell.advance(now[0], state)

    return step


def to_autocast(input: Tensor, state: States) -> tuple[Tensor, States, bool]:
    """Input and states in autocast's dtype where autocast is on for their device, and whether it is."""
    device = input.device.type
    if not is_autocast_enabled(device) or input.dtype == torch.float64:
        return input, state, False
    dtype = torch.get_autocast_dtype(device)
    return input.to(dtype), tuple(part.to(dtype) for part in state), True
