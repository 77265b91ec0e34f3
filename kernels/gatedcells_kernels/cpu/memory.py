"""Memory for tapes and gates' gradients that is kept from one training step to the next.

torch's allocator gives large memory back to the system as soon as it is free. The next step gets it page by
page, and the system clears each page, or first has to find one of 2 MB: that can take a good part of a step.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gatedcells_kernels.cpu import library

# bytes from which on tensors lie in memory that is kept; for smaller ones it was no faster
KEPT = 16 << 20
_WASTE = 2  # a block is at most so many times as large as what lies in it
# Python's anonymous memory is shared with forked processes unless one says otherwise
_PRIVATE: dict[str, int] = {} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
_deterministic: Any = torch.utils.deterministic


def _holders(objects: Sequence[object]) -> list[int]:
    """By how many each object is held, and how many more than that is of no account."""
    return [sys.getrefcount(one) for one in objects]


_LIST_ALONE = _holders([object()])[0]


class Blocks:
    """Blocks of memory, those that tensors lie in and idle ones: together never more than was once in use at
    the same time. A block is idle when nobody but this list holds it, as every storage does that lies in it.
    """

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []  # what was taken last comes last
        self._most = 0
        self.unlock()

    def unlock(self) -> None:
        """For a forked process: another thread of its parent may have been in the middle of something."""
        self._lock = threading.Lock()

    def take(self, size: int) -> mmap.mmap:
        """A block of at least ``size`` bytes, with anything in it; it is in use for as long as it is held.

        Raises:
            OSError: the system has no such memory.
        """
        with self._lock:
            idle = self._idle()
            in_use = self._total() - sum(map(len, idle))
            fitting = [block for block in idle if size <= len(block) <= _WASTE * size]
            if fitting:
                block = min(fitting, key=len)
                self._blocks.remove(block)
                self._most = max(self._most, in_use + len(block))
            else:
                self._most = max(self._most, in_use + size)
                self._drop(idle, self._most - size)
                block = mmap.mmap(-1, size, **_PRIVATE)
            self._blocks.append(block)
            return block

    def release(self) -> None:
        """Give all idle blocks back to the system."""
        with self._lock:
            self._drop(self._idle(), 0)
            self._most = self._total()

    def sizes(self) -> tuple[int, int]:
        """The bytes in use and the idle ones."""
        with self._lock:
            idle = sum(map(len, self._idle()))
            return self._total() - idle, idle

    def _total(self) -> int:
        return sum(map(len, self._blocks))

    def _idle(self) -> list[mmap.mmap]:
        counts = _holders(self._blocks)
        return [block for block, count in zip(self._blocks, counts, strict=True) if count <= _LIST_ALONE]

    def _drop(self, idle: list[mmap.mmap], limit: int) -> None:
        """The oldest ones, until no more than ``limit`` bytes are left or none is idle."""
        while idle and self._total() > limit:
            self._blocks.remove(idle.pop(0))


BLOCKS = Blocks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BLOCKS.unlock)


def working(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor like another, for what a training step needs until it is over; a large one lies
    in memory that is kept."""
    count = math.prod(shape)
    size = count * like.element_size()
    if size < KEPT:
        return library.empty(like, *shape)
    try:
        block = BLOCKS.take(size)
    except OSError:
        BLOCKS.release()
        return library.empty(like, *shape)  # if there is no memory even now, torch's error says so
    made = torch.frombuffer(block, dtype=like.dtype, count=count).view(shape)
    library.load().c.gatedcells_large_pages(made.data_ptr(), size)
    if torch.are_deterministic_algorithms_enabled() and _deterministic.fill_uninitialized_memory:
        made.fill_(math.nan)  # as torch's own then is
    return made


def working_like(like: Tensor, *shape: int) -> Callable[[], Tensor]:
    """What makes tensors of one shape, as `working` does."""
    if math.prod(shape) * like.element_size() < KEPT:
        return library.made_like(like, *shape)
    example = like.detach().new_empty(0)
    return lambda: working(example, *shape)
