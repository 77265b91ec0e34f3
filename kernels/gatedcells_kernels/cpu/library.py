"""The shared library: finding it, its structs and functions, and packing weights for it.

Importing this loads nothing; `load` does, once, and says why if it cannot.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatedcells_kernels.cpu import build

STALE = 1  # GATEDCELLS_STALE in calls.h
LEVEL_VARIABLE = "GATEDCELLS_CPU_LEVEL"
LIBRARY_VARIABLE = "GATEDCELLS_CPU_LIBRARY"
# The numbers of GatedcellsDtype in calls.h.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}


class Unavailable(RuntimeError):
    """The library cannot be used; the message says why."""


def without_memory(tensor: Tensor) -> int:
    """The address of a tensor whose address is 0: that, if it has no numbers.

    Raises:
        RuntimeError: it has some, but their memory was freed.
    """
    if tensor.numel():
        raise RuntimeError(
            f"expected a tensor with memory, got one of shape {list(tensor.shape)} whose storage was freed"
        )
    return 0


class _Struct:
    """A struct of calls.h, read from that file: its fields are written once."""

    def __init__(self, name: str) -> None:
        text = (Path(__file__).parent / "calls.h").read_text(encoding="utf-8")
        body = re.search(rf"struct {name} {{(.*?)\n}};", text, re.DOTALL)
        assert body is not None
        self.fields: list[str] = []
        self._format = ""
        for line in re.sub(r"//.*", "", body[1]).split(";"):
            words = line.replace("const ", "").replace("*", " * ").split()
            if words:
                pointer = "*" in words
                names = "".join(words[2 if pointer else 1 :]).split(",")
                self._format += ("P" if pointer else {"int64_t": "q", "int32_t": "i"}[words[0]]) * len(names)
                self.fields += names
        self._pack = struct.Struct("@" + self._format).pack

    def __call__(self, fields: dict[str, Any]) -> bytes:
        """The struct's bytes, all fields given as numbers or as tensors."""
        # 0 or null for None, an address for a tensor; a loop of calls would take longer than a small step
        return self._pack(
            *[
                0
                if value is None
                else value
                if isinstance(value, int)
                else value.data_ptr() or without_memory(value)
                for value in map(fields.__getitem__, self.fields)
            ]
        )

    def split(self, first: Sequence[str], fields: dict[str, Any]) -> tuple[Callable[..., bytes], bytes]:
        """What packs the ``first`` fields, given as numbers, and the bytes of all others behind them."""
        count = len(first)
        assert tuple(self.fields[:count]) == tuple(first)
        pack = struct.Struct("@" + self._format[:count]).pack
        whole = self(dict.fromkeys(first) | fields)
        return pack, whole[len(pack(*[0] * count)) :]


class Library:
    """The loaded library, its functions typed, and the instruction set that it will use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.c = ctypes.CDLL(str(path))
        self.c.gatedcells_sources.restype = ctypes.c_char_p
        self.c.gatedcells_level_name.restype = ctypes.c_char_p
        self.c.gatedcells_packed_size.restype = ctypes.c_int64
        self.c.gatedcells_hash.restype = ctypes.c_int64
        self.c.gatedcells_hash.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64]
        self.c.gatedcells_large_pages.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        self.pack = _Struct("GatedcellsPack")
        self.origin = _Struct("GatedcellsOrigin")
        self.calls = {
            name: (getattr(self.c, function), _Struct(name))
            for name, function in (
                ("GatedcellsGRU", "gatedcells_gru_forward"),
                ("GatedcellsGRUBackward", "gatedcells_gru_backward"),
                ("GatedcellsLSTM", "gatedcells_lstm_forward"),
                ("GatedcellsLSTMBackward", "gatedcells_lstm_backward"),
                ("GatedcellsWeightGradients", "gatedcells_weight_gradients"),
                ("GatedcellsInputGradient", "gatedcells_input_gradient"),
            )
        }
        self.levels = [
            self.c.gatedcells_level_name(level).decode()
            for level in range(self.c.gatedcells_levels())
            if self.c.gatedcells_level_runs(level)
        ]
        self.level = self._chosen_level()

    @property
    def multiplies_pairs(self) -> bool:
        """Whether an instruction of the chosen set multiplies and adds pairs of bfloat16."""
        return bool(self.c.gatedcells_multiplies_pairs(self.level))

    def _chosen_level(self) -> int:
        asked = os.environ.get(LEVEL_VARIABLE)
        if not asked:
            return len(self.levels) - 1
        if asked not in self.levels:
            raise Unavailable(
                f"{LEVEL_VARIABLE} must be one of {', '.join(self.levels)} on this CPU, got {asked!r}"
            )
        return self.levels.index(asked)


@functools.cache
def load() -> Library:
    """The library.

    Raises:
        Unavailable: it was not built, does not load, or was built from other sources.
    """
    asked = os.environ.get(LIBRARY_VARIABLE)
    path = Path(asked or build.FOLDER / build.LIBRARY)
    if not path.exists():
        noted = path.with_name(build.WHY_NOT)
        if noted.exists():
            raise Unavailable(
                f"its kernels were not built: {noted.read_text(encoding='utf-8').strip()} "
                "(install a C++ compiler, then reinstall gatedcells)"
            )
        if asked:
            raise Unavailable(f"{LIBRARY_VARIABLE}={asked!r}: there is no such file")
        raise Unavailable("its kernels were not built: run python -m gatedcells_kernels.cpu.build")
    try:
        library = Library(path)
    except OSError as error:
        raise Unavailable(f"{path.name} cannot be loaded: {error}") from error
    except AttributeError as error:  # a function that the old sources did not have
        raise Unavailable(f"{path.name} was built from other sources: reinstall gatedcells") from error
    built_from = library.c.gatedcells_sources().decode()
    if built_from != build.digest():
        raise Unavailable(f"{path.name} was built from other sources: reinstall gatedcells")
    return library


@functools.cache
def why_not(_: int | None = None) -> str | None:
    """Why the kernels cannot run on this machine, None if they can; a CPU has no index."""
    try:
        load()
    except Unavailable as error:
        return str(error)
    return None


def pack(library: Library, matrix: Tensor, *, gates: int, by_rows: bool) -> Tensor:
    """``matrix`` in panels (multiply.h): for products with its transpose (``by_rows``) or with itself."""
    if matrix.stride(-1) != 1:
        matrix = matrix.contiguous()
    rows, columns = matrix.shape
    fields = {
        "rows": rows, "columns": columns, "row_stride": matrix.stride(0) if rows > 1 else columns,
        "gates": gates, "by_rows": by_rows, "dtype": DTYPES[matrix.dtype],
        "level": library.level, "matrix": matrix, "packed": None,
    }  # fmt: skip
    fields["packed"] = packed = empty(matrix, library.c.gatedcells_packed_size(library.pack(fields)))
    library.c.gatedcells_pack(library.pack(fields))
    return packed


LARGE = 4 << 20  # bytes from which on page faults show


def empty(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor like another; a large one on large pages where the system has them."""
    made = like.new_empty(shape)
    if made.nbytes >= LARGE:
        load().c.gatedcells_large_pages(made.data_ptr(), made.nbytes)
    return made


def made_like(like: Tensor, *shape: int) -> Callable[[], Tensor]:
    """What makes contiguous tensors of one shape, as `empty` does: ``torch.empty_like`` of one number,
    expanded, is faster than anything that makes one from its sizes."""
    shown = like.detach().new_empty(1).expand(shape)
    if shown.numel() * shown.element_size() < LARGE:
        return functools.partial(torch.empty_like, shown)
    large_pages = load().c.gatedcells_large_pages

    def make() -> Tensor:
        made = torch.empty_like(shown)
        large_pages(made.data_ptr(), made.nbytes)
        return made

    return make


def address(tensor: Tensor | None) -> int:
    """Where a tensor's numbers lie; 0 for None.

    Raises:
        RuntimeError: their memory was freed.
    """
    return 0 if tensor is None else tensor.data_ptr() or without_memory(tensor)


def hash_of(library: Library, matrix: Tensor) -> int:
    """A hash of all numbers of a contiguous ``matrix``."""
    return library.c.gatedcells_hash(library.level, address(matrix), matrix.nbytes)


class Prepared:
    """A call of which only some fields change from one time to the next.

    Args:
        library: the loaded library.
        call: the struct that the kernel takes.
        changing: the names of the fields that are given each time, the first ones of the struct.
        fields: all others; of those that change, what is given here is not used.
    """

    def __init__(self, library: Library, call: str, changing: tuple[str, ...], **fields: Any) -> None:
        self._function, layout = library.calls[call]
        self._pack, self._others = layout.split(changing, {"level": library.level, **fields})

    def __call__(self, changed: tuple[int, ...]) -> bool:
        """Run with these numbers and addresses in the places of ``changing``; False if nothing was computed,
        because packed weights were stale."""
        outcome = self._function(self._pack(*changed) + self._others)
        if outcome not in (0, STALE):
            raise MemoryError("not enough memory for a sequence of this size")
        return outcome == 0


def run(library: Library, call: str, **fields: Any) -> None:
    """Run the kernel that takes the struct ``call`` with these fields, tensors given as such.

    The caller holds every tensor until this returns.

    Raises:
        MemoryError: there was none for the kernel's working memory.
    """
    function, pack_fields = library.calls[call]
    fields["level"], fields["threads"] = library.level, torch.get_num_threads()
    if function(pack_fields(fields)) != 0:
        raise MemoryError(f"{call}: not enough memory for a sequence of this size")
