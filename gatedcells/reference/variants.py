"""Variants of the cells: the parts that `gru.step` and `lstm.step` add to the plain equations.

Layer normalisation (Ba et al. 2016, arXiv:1607.06450, equations 20 to 22 and 29 to 31), with the biases in
the place of the paper's shifts, so that ``norm(a) = gain ⊙ (a − mean a) / √(var a + 1e-5)``::

    GRU    [x_r x_z] = norm(W_rz x) + b_i    x_n = norm(W_n x) + b_in    and so for U h and b_h
    LSTM   [x_i x_f x_g x_o] = norm(W x) + b_i,  and so for U h and b_h
           h' = o ⊙ tanh(norm(c') + shift)

Peepholes (Gers & Schmidhuber 2000, Gers et al. 2002), with one weight per gate and unit::

    i = σ(... + p_i ⊙ c)    f = σ(... + p_f ⊙ c)    o = σ(... + p_o ⊙ c')

State dropout (Gal & Ghahramani 2016, arXiv:1512.05287): the same mask at all steps, on the state that the
matrix product reads, ``U (m ⊙ h)``. Recurrent dropout (Semeniuta et al. 2016, arXiv:1603.05118): a new mask
at each step, on the candidate, ``h' = (1 − z) ⊙ m n + z ⊙ h`` and ``c' = f ⊙ c + i ⊙ m g``. Masks hold 0 or
1/(1 − p).

Zoneout (Krueger et al. 2016, arXiv:1606.01305): a unit keeps its state with probability p,
``s' = k ⊙ s + (1 − k) ⊙ s'``, k drawn as 0 or 1 in training and p itself otherwise. The LSTM's h' is computed
from the c' before that choice.
"""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import layer_norm, linear

EPS = 1e-5
GATE_HOOK = "a gate hook"  # as `Variant.words` calls it

# Sees a gate by name, its values [B, H] and the time, and returns what takes their place.
Edit = Callable[[str, Tensor, int], Tensor]


class Variant(NamedTuple):
    """A variant of one direction of one layer; a field that is None changes nothing.

    Attributes:
        gain_ih, gain_hh: of layer normalisation, ``[G*H]``.
        cell_gain, cell_shift: of the LSTM's cell, ``[H]``.
        peephole: ``[3, H]``: input, forget, output.
        read: mask on the state as the matrix product reads it, ``[B, H]`` or ``[B, P]``.
        written: mask on the candidate, ``[T, B, H]``.
        kept: for each state the share of it that is kept, bool ``[T, B, H]``, or a number.
        edit: a function that is called with every gate and may replace its values.
    """

    gain_ih: Tensor | None = None
    gain_hh: Tensor | None = None
    cell_gain: Tensor | None = None
    cell_shift: Tensor | None = None
    peephole: Tensor | None = None
    read: Tensor | None = None
    written: Tensor | None = None
    kept: tuple[Tensor | float | None, ...] = (None, None)
    edit: Edit | None = None

    def words(self) -> str:
        """What it does, by the keywords of the layers; empty if nothing."""
        # torch 2.7's compiler does not know `is` of tuples
        if not torch.compiler.is_compiling() and self is PLAIN:
            return ""
        does = {
            "layer_norm": self.gain_hh is not None or self.gain_ih is not None or self.cell_gain is not None,
            "peephole": self.peephole is not None,
            "state_dropout": self.read is not None,
            "recurrent_dropout": self.written is not None,
            "zoneout": len([share for share in self.kept if share is not None]) > 0,
            GATE_HOOK: self.edit is not None,
        }
        return ", ".join(word for word, done in does.items() if done)

    def to(self, dtype: torch.dtype) -> Variant:
        """The same with its numbers in another dtype."""

        def cast(part: Any) -> Any:
            return part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part

        return Variant(*(cast(part) for part in self))

    def over_time(self) -> tuple[Tensor, ...]:
        """What differs from step to step, each ``[T, B, H]``; `at` takes a step's part of it back."""
        return tuple(part for part in (self.written, *self.kept) if isinstance(part, Tensor))

    def at(self, now: Sequence[Tensor], t: int = 0) -> Variant:
        """The variant of one step: ``now`` is that step's part of `over_time`."""
        if not now and self.edit is None:
            return self
        parts = iter(now)
        written = None if self.written is None else next(parts)
        kept = tuple(next(parts) if isinstance(part, Tensor) else part for part in self.kept)
        edit = self.edit
        seen: Edit | None = None if edit is None else lambda name, gate, _: edit(name, gate, t)
        # not by _replace, which torch's compiler before 2.9 does not trace
        return Variant(
            self.gain_ih, self.gain_hh, self.cell_gain, self.cell_shift, self.peephole, self.read, written,
            kept, seen,
        )  # fmt: skip

    def held(self) -> tuple[Tensor | None, ...]:
        """What is the same at every step; `holding` takes it back."""
        return (self.gain_ih, self.gain_hh, self.cell_gain, self.cell_shift, self.peephole, self.read)

    def holding(self, held: Sequence[Tensor | None]) -> Variant:
        """The variant with these in the places of `held`."""
        gain_ih, gain_hh, cell_gain, cell_shift, peephole, read = held
        return Variant(
            gain_ih, gain_hh, cell_gain, cell_shift, peephole, read, self.written, self.kept, self.edit
        )

    def step(self, t: int) -> Variant:
        """The variant of step ``t``."""
        return self.at([part[t] for part in self.over_time()], t)

    def seen(self, hidden: Tensor) -> Tensor:
        """The state as the matrix product reads it."""
        return hidden if self.read is None else hidden * self.read

    def gate(self, name: str, values: Tensor) -> Tensor:
        """A gate's values, or what takes their place."""
        return values if self.edit is None else self.edit(name, values, 0)

    def write(self, candidate: Tensor) -> Tensor:
        """The candidate as it is written to the state."""
        return candidate if self.written is None else candidate * self.written

    def keep(self, which: int, new: Tensor, old: Tensor) -> Tensor:
        """State number ``which`` after zoneout."""
        share = self.kept[which]
        if share is None:
            return new
        if isinstance(share, Tensor):
            return torch.where(share, old, new)
        return torch.lerp(new, old, share)

    def shown(self, cell: Tensor) -> Tensor:
        """The LSTM's cell state as tanh reads it."""
        if self.cell_gain is None:
            return cell
        return _norm(cell, self.cell_gain, self.cell_shift)


PLAIN = Variant()


def _norm(a: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
    """``gain ⊙ (a − mean a) / √(var a + 1e-5) + shift`` over the last axis, in the dtype of ``a``."""
    if not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0:
        return layer_norm(a, a.shape[-1:], gain, shift, EPS).to(a.dtype)
    # up to torch 2.13 what forward mode makes of torch's own has wrong derivatives itself
    wide = a.float() if a.element_size() < 4 else a
    centred = wide - wide.mean(-1, keepdim=True)
    found = gain * centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + EPS)
    return (found if shift is None else found + shift).to(a.dtype)


def project(
    x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor | None, groups: Sequence[int]
) -> Tensor:
    """``W x + b``, or with a gain ``norm(W x) + b``, normalised over each of ``groups`` (widths that add up
    to the rows of W) by itself."""
    if gain is None:
        return linear(x, weight, bias)
    parts = zip(linear(x, weight).split(list(groups), -1), gain.split(list(groups)), strict=True)
    normed = [_norm(part, g, None) for part, g in parts]
    found = normed[0] if len(normed) == 1 else torch.cat(normed, dim=-1)
    return found if bias is None else found + bias
