"""Which kernel runs a call, and in which tiles: one table, read from the top.

``python -m gatedcells_kernels.triton.launch`` prints it.

Four kernels do the same (docs/kernels.md):

whole    one program for each tile of rows, all of time in one launch, weights on the chip
slices   the hidden units cut up, all of time in one cooperative launch, one meeting a step
steps    the same kernel with one launch a step and no meeting; of one step, the fused cell
library  a library's matrix product and a kernel for the gates, twice a step or more

With the reset gate before the product, or a projection, one product in a step reads what all programs have
made of another: two meetings a step, or two launches.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from gatedcells_kernels.tape import GRU_GATES, LSTM_GATES
from gatedcells_kernels.triton.library import interprets, why_not

KERNELS = ("whole", "slices", "steps", "library")
GATES = {"GRU": len(GRU_GATES), "LSTM": len(LSTM_GATES)}
LEAST_TILE = 16  # tl.dot takes no smaller side
POINTWISE = 1024  # numbers that a program of the gates' kernels takes
TILES = 2  # of a state that the compiler has on the chip at once beside sliced weights, at most
# Bytes of states that all programs together read a step, from which on meeting loses to launching: a guess,
# until benchmarks.meetings and benchmarks.gpu have run on a GPU.
BROADCAST = 8 << 20
ACROSS = 65535  # programs along the second axis of a grid, where tiles of rows lie: CUDA's limit


class Device(NamedTuple):
    """What the choice depends on of a device."""

    name: str
    processors: int  # programs that certainly run at once
    shared_memory: int  # bytes a program may have


class Request(NamedTuple):
    """What is to be computed: one layer, in one direction or in both."""

    cell: str  # "GRU" or "LSTM"
    T: int
    B: int
    H: int
    P: int  # width of a hidden state, H without a projection
    numbers: str  # "half" (float16, bfloat16), "tf32" or "ieee" (float32)
    reset_after: bool = True
    directions: int = 1
    projected: bool = False  # of an LSTM; a projection may be as wide as H

    @property
    def visits(self) -> int:
        """How often a step's programs must have heard of all others: meetings a step, or launches."""
        return 2 if self.projected or not self.reset_after else 1


class Entry(NamedTuple):
    """A row of the table: the tiles of one kernel for a range of sizes."""

    cell: str
    numbers: str  # as in Request
    largest: int  # H, and P, up to here
    kernel: str  # "whole" or "slices" (which also serves "steps")
    rows: int
    units: int
    depth: int  # of a chunk of a sum; "whole" has one
    warps: int

    @property
    def bytes(self) -> int:
        """Of a number."""
        return 2 if self.numbers == "half" else 4

    def shared_memory(self, H: int, P: int, projected: bool = False) -> int:
        """Bytes that a program has on the chip: the weights, and tiles of the states that multiply them."""
        gates = GATES[self.cell]
        if self.kernel == "whole":
            units, outputs = padded(H), padded(P)
            tile = self.rows * max(units, outputs)
            return self.bytes * ((gates + projected) * units * outputs + gates * tile)
        # forward U has P columns and the projection H, backward it is the other way round
        wide, narrow = (self.depth * -(-width // self.depth) for width in (max(H, P), min(H, P)))
        weights = self.units * (gates * wide + projected * narrow)
        return self.bytes * (weights + TILES * self.rows * self.depth)


class Plan(NamedTuple):
    """The outcome: a kernel, its tiles (None for the library), and why not those before it."""

    kernel: str
    entry: Entry | None
    refused: tuple[str, ...]
    visits: int = 1  # see Request

    def __str__(self) -> str:
        """In words, one kernel a line."""
        tiles = (
            "" if self.entry is None else f", {self.entry.rows} rows by {self.entry.units} units a program"
        )
        twice = {"slices": ", two meetings a step", "steps": ", two launches a step"}
        more = twice.get(self.kernel, "") if self.visits == 2 else ""
        return "\n".join([*self.refused, f"{self.kernel}: chosen{tiles}{more}"])


def padded(size: int) -> int:
    """The next power of two, at least what a product of tiles takes."""
    return max(LEAST_TILE, 1 << (size - 1).bit_length())


# Of the entries that fit, the first one runs. Small tiles of rows first: they spread a batch over more
# of the device, and larger ones follow for the batches that they no longer fit.
TABLE = (
    *(Entry(cell, "half", H, "whole", 16, H, H, 4 if H < 128 else 8)
      for cell in ("GRU", "LSTM") for H in (16, 32, 64, 128)),
    *(Entry("GRU", "tf32", H, "whole", 16, H, H, 4 if H < 128 else 8) for H in (16, 32, 64, 128)),
    *(Entry("LSTM", "tf32", H, "whole", 16, H, H, 4) for H in (16, 32, 64)),
    *(Entry(cell, "ieee", H, "whole", 16, H, H, 4 if H < 64 else 8)
      for cell in ("GRU", "LSTM") for H in (16, 32, 64)),
    Entry("GRU", "half", 256, "slices", 16, 16, 128, 4),
    Entry("GRU", "half", 256, "slices", 64, 32, 64, 4),
    Entry("GRU", "half", 512, "slices", 16, 16, 128, 4),
    Entry("GRU", "half", 512, "slices", 64, 16, 64, 4),
    Entry("GRU", "half", 1024, "slices", 16, 16, 128, 8),
    Entry("GRU", "half", 1024, "slices", 64, 8, 64, 4),
    Entry("GRU", "half", 1024, "slices", 64, 16, 64, 4),
    Entry("LSTM", "half", 256, "slices", 16, 16, 128, 4),
    Entry("LSTM", "half", 256, "slices", 64, 16, 64, 4),
    Entry("LSTM", "half", 512, "slices", 16, 16, 128, 4),
    Entry("LSTM", "half", 512, "slices", 64, 16, 64, 4),
    Entry("LSTM", "half", 1024, "slices", 16, 16, 128, 8),
    Entry("LSTM", "half", 1024, "slices", 64, 8, 64, 4),
    Entry("LSTM", "half", 1024, "slices", 64, 16, 64, 4),
    Entry("GRU", "tf32", 256, "slices", 16, 16, 64, 4),
    Entry("GRU", "tf32", 256, "slices", 64, 16, 64, 4),
    Entry("GRU", "tf32", 512, "slices", 16, 16, 64, 4),
    Entry("GRU", "tf32", 512, "slices", 64, 16, 32, 4),
    Entry("GRU", "tf32", 1024, "slices", 16, 8, 64, 8),
    Entry("GRU", "tf32", 1024, "slices", 64, 8, 64, 4),
    Entry("LSTM", "tf32", 256, "slices", 16, 16, 64, 4),
    Entry("LSTM", "tf32", 256, "slices", 64, 16, 32, 4),
    Entry("LSTM", "tf32", 512, "slices", 16, 16, 64, 4),
    Entry("LSTM", "tf32", 512, "slices", 64, 8, 64, 4),
    Entry("LSTM", "tf32", 1024, "slices", 16, 8, 64, 8),
    Entry("LSTM", "tf32", 1024, "slices", 64, 8, 64, 4),
    Entry("GRU", "ieee", 256, "slices", 16, 16, 64, 4),
    Entry("GRU", "ieee", 512, "slices", 16, 16, 64, 4),
    Entry("GRU", "ieee", 1024, "slices", 16, 8, 64, 8),
    Entry("LSTM", "ieee", 256, "slices", 16, 16, 64, 4),
    Entry("LSTM", "ieee", 512, "slices", 16, 8, 64, 4),
    Entry("LSTM", "ieee", 512, "slices", 16, 16, 64, 8),
    Entry("LSTM", "ieee", 1024, "slices", 16, 8, 64, 8),
)  # fmt: skip


@functools.cache
def device(index: int | None) -> Device:
    """The device of a tensor; the interpreter runs one program after another.

    Raises:
        RuntimeError: the kernels cannot run on this one, perhaps on another one here.
    """
    if interprets():
        return Device("Triton's interpreter", 1, 1 << 40)
    refusal = why_not(index)
    if refusal is not None:
        raise RuntimeError(f"Triton's kernels cannot run on cuda:{index}: {refusal}")
    found = torch.cuda.get_device_properties(index)
    shared = getattr(found, "shared_memory_per_block_optin", 64 << 10)
    return Device(found.name, found.multi_processor_count, shared)


def slices(entry: Entry, request: Request) -> int:
    """Programs that share a tile of rows."""
    return -(-max(request.H, request.P) // entry.units)


def states_read(entry: Entry, request: Request) -> int:
    """Numbers that all slices read of a row in a step, forward: the state, then r ⊙ h, or m where there are
    outputs to be made of it."""
    read = slices(entry, request) * request.P
    if request.visits == 2:
        read += -(-(request.P if request.projected else request.H) // entry.units) * request.H
    return read


def _programs(entry: Entry, request: Request) -> int:
    return request.directions * slices(entry, request) * -(-request.B // entry.rows)


def _why_not(entry: Entry, kernel: str, request: Request, device: Device) -> str | None:
    needed = entry.shared_memory(request.H, request.P, request.projected)
    if needed > device.shared_memory:
        return f"{needed} bytes on the chip a program, {device.shared_memory} fit"
    if kernel == "slices":
        programs = _programs(entry, request)
        if programs > device.processors:
            return f"{programs} programs of {entry.rows} rows, {device.processors} run at once"
        broadcast = request.directions * request.B * states_read(entry, request) * entry.bytes
        if broadcast > BROADCAST:
            return f"{broadcast} bytes of states read a step, from {BROADCAST} on other kernels are better"
    tiles = -(-request.B // entry.rows)
    if kernel == "steps" and tiles > ACROSS:
        return f"{tiles} tiles of {entry.rows} rows, a grid takes {ACROSS}"
    return None


def _refusal(kernel: str, request: Request) -> str | None:
    """Why a kernel does not do this at all."""
    if kernel == "slices" and request.T == 1 and request.visits == 1:
        return "one step needs no meeting"
    return None


# A kernel that tests and benchmarks ask for; one for the process.
_preferred: list[str] = []


@contextmanager
def prefer(kernel: str) -> Generator[None]:
    """Within the block, this kernel runs or the call raises ValueError."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    _preferred.append(kernel)
    try:
        yield
    finally:
        _preferred.pop()


def in_one_grid(request: Request, device: Device) -> Plan | None:
    """The kernel that runs both directions at once, None if they are better run one after the other: where
    together they do not fit the device, or are no more than launches that follow each other anyway."""
    found = plan(request, device)
    return found if found.kernel in ("whole", "slices") or (found.kernel, request.T) == ("steps", 1) else None


def plan(request: Request, device: Device) -> Plan:
    """Choose a kernel.

    Raises:
        ValueError: the one asked for by `prefer` cannot run this.
    """
    refused: list[str] = []
    for kernel in _preferred[-1:] or KERNELS:
        if kernel == "library":
            return Plan(kernel, None, tuple(refused), request.visits)
        reason = _refusal(kernel, request)
        if reason is None:
            found, reason = _tiles(kernel, request, device)
            if found is not None:
                return Plan(kernel, found, tuple(refused), request.visits)
        refused.append(f"{kernel}: {reason}")
    raise ValueError("; ".join(refused))


def _tiles(kernel: str, request: Request, device: Device) -> tuple[Entry | None, str]:
    """The first entry of the table that fits, or why the last one does not."""
    kind = "whole" if kernel == "whole" else "slices"
    width = max(request.H, request.P)
    able = [
        entry
        for entry in TABLE
        if (entry.cell, entry.numbers, entry.kernel) == (request.cell, request.numbers, kind)
        and width <= entry.largest
    ]
    reason = f"no tiles for H = {width}"
    largest = None
    for entry in able:
        if entry.largest > able[0].largest:
            break
        refusal = _why_not(entry, kernel, request, device)
        if refusal is not None:
            reason = refusal
        elif kernel != "steps" or _programs(entry, request) <= device.processors:
            return entry, ""
        # programs that do not meet may take turns; larger tiles read the weights less often
        elif largest is None or entry.rows > largest.rows:
            largest = entry
    return largest, reason


def printed() -> str:
    """The table as text, an entry a line, with the bytes that a program of its largest size has on chip."""
    rows = [(*Entry._fields, "bytes on the chip")]
    rows += [tuple(map(str, (*entry, entry.shared_memory(entry.largest, entry.largest)))) for entry in TABLE]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


if __name__ == "__main__":
    print(printed())
