"""A cell that does more than its plain equations (`gatedcells.reference.variants`), over time, as one
operator for torch's compiler: the graph holds no step, whatever T.

The forward pass keeps nothing; the backward pass runs the steps again with autograd, as for a user's cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatedcells import _ops, _shapes
from gatedcells._autograd.recompute import only
from gatedcells._autograd.rules import run_again
from gatedcells.reference import gru, lstm
from gatedcells.reference.variants import Variant

_NONE = -1.0  # in the place of a share that is a tensor, or none
_UNROLL: dict[str, Any] = {"GRU": gru.unroll, "LSTM": lstm.unroll}

_GIVEN = (
    "Tensor[] tensors, str names, float[] kept, Tensor? lengths, Tensor? resets, str cell, bool reverse,"
    " bool reset_after"
)
torch.library.define("gatedcells::variant_sequence", f"({_GIVEN}) -> (Tensor states, Tensor[] last)")
torch.library.define(
    "gatedcells::variant_sequence_backward",
    f"(Tensor d_states, Tensor[] d_last, {_GIVEN}, bool[] needed) -> Tensor[]",
)


def variant_sequence(
    cell: str,
    given: Any,
    variant: Variant,
    *,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    reset_after: bool = True,
) -> tuple[Tensor, ...]:
    """The states ``[T, B, ...]`` and those after the last step visited, of what is ``given`` to the cell."""
    # neither _asdict nor |= of dicts: the compiler of torch 2.6 traces neither
    parts = [*zip(type(given)._fields, given, strict=True), *zip(Variant._fields, variant, strict=True)]
    named = {name: part for name, part in parts if part is not None and name != "kept"}
    shares = variant.kept
    named.update({f"kept_{n}": part for n, part in enumerate(shares) if isinstance(part, Tensor)})
    kept = [_NONE if part is None or isinstance(part, Tensor) else float(part) for part in shares]
    states, last = torch.ops.gatedcells.variant_sequence(
        list(named.values()), ",".join(named), kept, lengths, resets, cell, reverse, reset_after
    )
    return states, *last


def _run(
    tensors: Sequence[Tensor],
    names: str,
    kept: Sequence[float],
    lengths: Tensor | None,
    resets: Tensor | None,
    cell: str,
    reverse: bool,
    reset_after: bool,
) -> tuple[Tensor, ...]:
    named: dict[str, Any] = dict(zip(names.split(","), tensors, strict=True))
    shares = tuple(
        named.pop(f"kept_{number}", None if share == _NONE else share) for number, share in enumerate(kept)
    )
    own = {name: named.pop(name) for name in Variant._fields if name in named}
    options = {"reset_after": reset_after} if cell == "GRU" else {}
    return _UNROLL[cell](
        **named, lengths=lengths, resets=resets, reverse=reverse, variant=Variant(**own, kept=shares),
        **options,
    )  # fmt: skip


def _forward(tensors: Sequence[Tensor], *rest: Any) -> tuple[Tensor, list[Tensor]]:
    states, *last = _run(tensors, *rest)
    return states, [part.clone() for part in last]  # an operator's outputs share memory with nothing


def _forward_fake(tensors: Sequence[Tensor], names: str, *rest: Any) -> tuple[Tensor, list[Tensor]]:
    named = dict(zip(names.split(","), tensors, strict=True))
    last = [named[name] for name in ("hidden", "cell") if name in named]
    T, first = named["input"].shape[0], last[0]
    return first.new_empty(T, *first.shape), [torch.empty_like(part) for part in last]


def _backward(
    d_states: Tensor, d_last: Sequence[Tensor], tensors: Sequence[Tensor], *rest: Any
) -> list[Tensor]:
    *options, needed = rest
    return run_again(lambda leaves: _run(leaves, *options), tensors, needed, (d_states, *d_last))


def _backward_fake(
    d_states: Tensor, d_last: Sequence[Tensor], tensors: Sequence[Tensor], *rest: Any
) -> list[Tensor]:
    return _shapes.gradients(tensors, rest[-1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors, names, kept, lengths, resets, *options = inputs
    ctx.before, ctx.behind = (names, kept), options
    ctx.save_for_backward(*tensors, lengths, resets)


def _rule(ctx: Any, d_states: Tensor, d_last: Sequence[Tensor]) -> tuple[Any, ...]:
    *tensors, lengths, resets = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[0])
    grads = torch.ops.gatedcells.variant_sequence_backward(
        d_states, d_last, tensors, *ctx.before, lengths, resets, *ctx.behind, needed
    )
    return only(grads, needed), None, None, None, None, None, None, None


_ops.register("variant_sequence", _forward, _forward_fake)
_ops.register("variant_sequence_backward", _backward, _backward_fake)
torch.library.register_autograd("gatedcells::variant_sequence", _rule, setup_context=_setup)
