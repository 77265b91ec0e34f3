"""Packed weights, kept for as long as the numbers that they were made from are the same.

Before every use the weight is hashed whole: one read of it, where a sequence of T steps reads it T times.
torch counts changes to a tensor, but not those made through ``weight.data``, which optimizers, initialisers
and gradient checks make; a stale weight would be a wrong result without a word.
"""

from __future__ import annotations

import ctypes
import enum
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells_kernels.cpu.library import DTYPES, Library, Prepared, hash_of, load, pack

# The fields of a call that say where packed weights are and what they were made from.
FORWARD_PANELS = ("w_x", "w_h", "origin_x", "origin_h")
BACKWARD_PANELS = ("w_h", "origin_h")


class Form(enum.IntEnum):
    """How a call's weights lie: GatedcellsForm in calls.h."""

    AS_THEY_ARE = 0
    PACKED = 1
    WIDENED = 2


# Rows of a batch from which on a product of bfloat16 without an instruction waits for widening in every tile,
# no longer for the weights' bytes.
_MANY_ROWS = 8


def form_for(library: Library, T: int, B: int, dtype: torch.dtype) -> Form:
    """How weights are best given to a call; no bit of a result depends on whether panels are widened."""
    if T == 1:  # reads the weights once: packing them would cost more than it saves
        return Form.AS_THEY_ARE
    if dtype == torch.bfloat16 and B >= _MANY_ROWS and not library.multiplies_pairs:
        return Form.WIDENED
    return Form.PACKED


class _Shape(NamedTuple):
    """What a weight was packed for."""

    gates: int
    by_rows: bool
    widened: bool
    first: int
    last: int
    level: int


class _Packed(NamedTuple):
    hash: int
    panels: Tensor


class _Entry(NamedTuple):
    weight: weakref.ref[Tensor]
    shapes: dict[_Shape, _Packed]


# By the weight's id; an entry goes with its weight.
_entries: dict[int, _Entry] = {}


def _shapes(weight: Tensor) -> dict[_Shape, _Packed]:
    key = id(weight)
    entry = _entries.get(key)
    if entry is None or entry.weight() is not weight:
        entry = _entries[key] = _Entry(weakref.ref(weight, lambda _: _entries.pop(key, None)), {})
    return entry.shapes


def forget(weights: Iterable[Tensor]) -> None:
    """Drop the panels of weights and the weak references to them."""
    for weight in weights:
        _entries.pop(id(weight), None)


def prepared(
    library: Library,
    form: Form,
    weight: Tensor,
    *,
    gates: int = 1,
    by_rows: bool = True,
    rows: tuple[int, int] | None = None,
) -> Tensor:
    """``weight`` (or its ``rows``, first and one past the last) in a form; panels are made anew only if it
    changed, what stays as it is is copied only if it is not contiguous.

    Args:
        library: the loaded library.
        form: how it shall lie.
        weight: a matrix.
        gates: that share a panel.
        by_rows: whether sums run along the matrix's rows (x W^T) or down its columns (d W).
        rows: which of its rows; all.
    """
    first, last = rows or (0, len(weight))
    some = weight.detach()[first:last] if rows else weight.detach()
    if form == Form.AS_THEY_ARE:
        return some.contiguous()
    if not weight.is_contiguous():
        some = some.float() if form == Form.WIDENED else some
        return pack(library, some, gates=gates, by_rows=by_rows)
    return _packed(library, form, weight, gates, by_rows, first, last).panels


def _packed(
    library: Library, form: Form, weight: Tensor, gates: int, by_rows: bool, first: int, last: int
) -> _Packed:
    """The rows of a contiguous weight in panels, and the weight's hash when they were made."""
    widened = form == Form.WIDENED
    shape = _Shape(gates, by_rows, widened, first, last, library.level)
    # the hash first, so that a change in between shows at the next call
    hash = hash_of(library, weight)
    shapes = _shapes(weight)
    known = shapes.get(shape)
    if known is None or known.hash != hash:
        some = weight.detach()[first:last]
        panels = pack(library, some.float() if widened else some, gates=gates, by_rows=by_rows)
        known = shapes[shape] = _Packed(hash, panels)
    return known


class Panels(NamedTuple):
    """Weights in panels and what they were made from, as a call is told; the addresses are good for as long
    as this is held."""

    addresses: tuple[int, ...]  # of all panels, then of all origins
    unchecked: tuple[int, ...]  # the same for panels made a moment ago
    memory: tuple[Any, ...]


class PackedCall:
    """A prepared call whose weights lie in panels; it looks itself whether these are still right.

    Args:
        library: the loaded library.
        call: its last changing fields are the panels of all weights, then their origins.
        form: of the panels.
        weights: contiguous.
        gates, by_rows: as for `prepared`.
    """

    def __init__(
        self,
        library: Library,
        call: Prepared,
        form: Form,
        weights: tuple[Tensor, ...],
        *,
        gates: int = 1,
        by_rows: bool = True,
    ) -> None:
        self._library = library
        self._call = call
        self._form = form
        self._weights = weights
        self._gates = gates
        self._by_rows = by_rows
        self.panels = self._pack()

    def __call__(self, changed: tuple[int, ...]) -> bool:
        """Make the call with all other changing fields; if the weights are no longer what was packed, pack
        them first."""
        panels = self.panels  # held here: another thread may pack anew meanwhile
        if self._call((*changed, *panels.addresses)):
            return True
        panels = self.panels = self._pack()
        return self._call((*changed, *panels.unchecked))

    def _pack(self) -> Panels:
        origins: list[Any] = []
        panels: list[Tensor] = []
        for weight in self._weights:
            made = _packed(self._library, self._form, weight, self._gates, self._by_rows, 0, len(weight))
            content = self._library.origin({"matrix": weight, "bytes": weight.nbytes, "hash": made.hash})
            origins.append(ctypes.create_string_buffer(content, len(content)))
            panels.append(made.panels)
        to_panels, to_origins = [panel.data_ptr() for panel in panels], map(ctypes.addressof, origins)
        return Panels((*to_panels, *to_origins), (*to_panels, *[0] * len(panels)), (panels, origins))


def prepared_call(
    call: str,
    T: int,
    B: int,
    changing: tuple[str, ...],
    panels: tuple[str, ...],
    weights: tuple[Tensor | None, ...],
    *,
    gates: int = 1,
    by_rows: bool = True,
    **fields: Any,
) -> Callable[[tuple[int, ...]], bool]:
    """A call forward in time, without lengths and resets, that is given some of its fields each time.

    Args:
        call: the struct that the kernel takes.
        T, B: steps and rows.
        changing: the names of the fields that are given each time.
        panels: FORWARD_PANELS or BACKWARD_PANELS.
        weights: those that they begin with; contiguous, as they are for one step, else in panels.
        gates, by_rows: as for `prepared`.
        fields: all other fields of this call.
    """
    native = load()
    given = tuple(weight for weight in weights if weight is not None)
    form = form_for(native, T, B, given[0].dtype)
    packed = form != Form.AS_THEY_ARE
    weights_and_origins = dict(zip(panels, (*given, *[None] * len(given)), strict=True))
    made = Prepared(
        native, call, (*changing, *(panels if packed else ())), T=T, B=B, reverse=False, form=form,
        dtype=DTYPES[given[0].dtype], lengths=None, resets=None, **weights_and_origins, **fields,
    )  # fmt: skip
    return PackedCall(native, made, form, given, gates=gates, by_rows=by_rows) if packed else made
