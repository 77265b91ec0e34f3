"""Packed weights, kept for as long as the numbers that they were made from are the same.

Before every use the weight is hashed whole: one read of it, where a sequence of T steps reads it T times.
torch counts changes to a tensor, but not those made through ``weight.data``, which optimizers, initialisers
and gradient checks make; a stale weight would be a wrong result without a word.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, NamedTuple

from torch import Tensor

from gatedcells_kernels.cpu.library import Library, Prepared, hash_of, pack

# The fields of a call that say where packed weights are and what they were made from.
PANELS = ("w_x", "w_h", "origin_x", "origin_h")


class _Form(NamedTuple):
    """What a weight was packed for."""

    gates: int
    by_rows: bool
    first: int
    last: int
    level: int


class _Packed(NamedTuple):
    hash: int
    panels: Tensor


class _Entry(NamedTuple):
    weight: weakref.ref[Tensor]
    forms: dict[_Form, _Packed]


# By the weight's id; an entry goes with its weight.
_entries: dict[int, _Entry] = {}


def _forms(weight: Tensor) -> dict[_Form, _Packed]:
    key = id(weight)
    entry = _entries.get(key)
    if entry is None or entry.weight() is not weight:
        entry = _entries[key] = _Entry(weakref.ref(weight, lambda _: _entries.pop(key, None)), {})
    return entry.forms


def packed(
    library: Library,
    weight: Tensor,
    *,
    gates: int = 1,
    by_rows: bool = True,
    rows: tuple[int, int] | None = None,
) -> Tensor:
    """``weight`` (or its ``rows``, first and one past the last) in panels; made anew only if it changed."""
    first, last = rows or (0, len(weight))
    if not weight.is_contiguous():
        return pack(library, weight.detach()[first:last], gates=gates, by_rows=by_rows)
    form = _Form(gates, by_rows, first, last, library.level)
    hash = hash_of(library, weight)
    forms = _forms(weight)
    known = forms.get(form)
    if known is None or known.hash != hash:
        known = _Packed(hash, pack(library, weight.detach()[first:last], gates=gates, by_rows=by_rows))
        forms[form] = known
    return known.panels


class Panels(NamedTuple):
    """A layer's weights in panels and what they were made from, as a call is told; the addresses are good for
    as long as this is held."""

    addresses: tuple[int, ...]  # in the order of PANELS
    memory: tuple[Any, ...]


class PackedPair:
    """Both weights of a layer in panels, for calls that look themselves whether these are still right.

    Args:
        library: the loaded library.
        weights: weight_ih and weight_hh, contiguous.
        gates: of the cell.
    """

    def __init__(self, library: Library, weights: tuple[Tensor, Tensor], gates: int) -> None:
        self._library = library
        self._weights = weights
        self._gates = gates
        self.panels = self._pack()

    def run(self, call: Prepared, changed: tuple[int, ...]) -> None:
        """Make a call; if the weights are no longer what was packed, pack them first."""
        panels = self.panels  # held here: another thread may pack anew meanwhile
        if not call((*changed, *panels.addresses)):
            panels = self.panels = self._pack()
            call((*changed, *panels.addresses[:2], 0, 0))

    def _pack(self) -> Panels:
        origins: list[Any] = []
        panels: list[Tensor] = []
        for weight in self._weights:
            # the hash first, so that a change in between shows at the next call
            origin = {"matrix": weight, "bytes": weight.nbytes, "hash": hash_of(self._library, weight)}
            content = self._library.origin(origin)
            origins.append(ctypes.create_string_buffer(content, len(content)))
            panels.append(packed(self._library, weight, gates=self._gates))
        addresses = (*(panel.data_ptr() for panel in panels), *map(ctypes.addressof, origins))
        return Panels(addresses, (panels, origins))


def as_it_is(weight: Tensor, *, gates: int = 1, rows: tuple[int, int] | None = None) -> Tensor:
    """``weight`` (or its ``rows``) unpacked; a copy only if it is not contiguous."""
    if rows is not None and rows != (0, len(weight)):
        weight = weight.detach()[rows[0] : rows[1]]
    return weight.contiguous()
