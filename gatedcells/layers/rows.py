"""Which steps of which rows take part in a call: ``lengths``, ``mask`` and ``resets`` as users give them."""

from typing import NamedTuple

import torch
from torch import Tensor

from gatedcells.validation import check_bool


class Layout(NamedTuple):
    """How a padded input was given.

    Attributes:
        batched: with a batch, or ``[T, I]``.
        batch_first: ``[B, T, I]`` instead of ``[T, B, I]``.
    """

    batched: bool
    batch_first: bool

    def by_time(self, name: str, given: Tensor, input: Tensor) -> Tensor:
        """``resets`` or ``mask``, given like the input without its features, as ``[T, B]``.

        Args:
            name: which, for messages.
            given: ``[T, B]``, ``[B, T]`` or ``[T]``.
            input: ``[T, B, I]``.

        Raises:
            RuntimeError: its shape does not fit, or it is on another device.
            ValueError: it is not bool.
        """
        T, B, _ = input.shape
        swapped = self.batch_first and self.batched
        letters, expected = ("B, T", (B, T)) if swapped else ("T, B", (T, B))
        if not self.batched:
            letters, expected = "T", (T,)
        if given.shape != expected:
            raise RuntimeError(f"{name} must be [{letters}]={list(expected)}, got {list(given.shape)}")
        check_bool(name, given, input)
        if not self.batched:
            return given.unsqueeze(1)
        return given.transpose(0, 1) if self.batch_first else given

    def lengths(self, given: Tensor) -> Tensor:
        """``lengths`` as ``[B]``: of an unbatched input it is one number.

        Raises:
            TypeError: it is no tensor.
            RuntimeError: it has a batch where the input has none.
        """
        if not isinstance(given, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                "lengths must be a tensor of integers [B] on the input's device, got"
                f" {type(given).__name__}: use torch.tensor(lengths, device=input.device)"
            )
        if self.batched:
            return given
        if given.dim() != 0:
            raise RuntimeError(
                f"lengths of an unbatched input must be a single number, got {list(given.shape)}"
            )
        return given.unsqueeze(0)

    def outward(self, by_time: Tensor, axis: int = 0) -> Tensor:
        """A result with time and batch at ``axis`` and the next one, laid out like the input."""
        if not self.batched:
            return by_time.squeeze(axis + 1)
        return by_time.transpose(axis, axis + 1) if self.batch_first else by_time


class Masked(NamedTuple):
    """A general mask as lengths: each row's steps that take part moved to its front, in their order.

    A step that takes no part changes nothing (its state is held), so the others can be run as if it were not
    there: by every backend, in both directions.

    Attributes:
        order: ``[T, B]``, for each place at the front the time that goes there; those without a part last.
        lengths: ``[B]``, how many take part.
    """

    order: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> "Masked":
        """From ``[T, B]`` bool, True where a step takes part."""
        return cls((~mask).to(torch.int8).argsort(dim=0, stable=True), mask.sum(0))

    def _index(self, like: Tensor) -> Tensor:
        return self.order.unsqueeze(-1).expand_as(like)

    def front(self, input: Tensor) -> Tensor:
        """``[T, B, I]`` with the steps that take part at the front."""
        return input.gather(0, self._index(input))

    def resets(self, resets: Tensor | None) -> Tensor | None:
        """``[T, B]`` for the steps at the front. Where no step takes part, a beginning is that of the next
        that does."""
        if resets is None:
            return None
        begun = resets.cumsum(0).gather(0, self.order)  # of each step, how many sequences began up to it
        first = torch.arange(begun.shape[0], device=begun.device) == 0
        # slices would tie an export to T > 2
        return begun > begun.roll(1, 0).masked_fill(first.unsqueeze(1), 0)

    def back(self, output: Tensor) -> Tensor:
        """``[T, B, H]`` with each step at its own time."""
        return torch.zeros_like(output).scatter(0, self._index(output), output)
