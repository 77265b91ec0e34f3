"""What the rules of the GRU and of the LSTM share."""

import math
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells import _ops
from gatedcells.reference.time import previous_in_pieces, previous_states
from gatedcells_kernels.tape import Keep

# measured: benchmarks/weight_gradients.py
_HANDFUL, _WIDE = 8, 128  # columns
_MANY_ROWS = 256
_WIDENED_AT_ONCE = 1024  # rows: what is widened of them is still in cache when it is multiplied


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has an instruction for products of bfloat16; without one torch's take several times as
    long as those of float32, or with AVX2 far more than that (benchmarks/bfloat16_products.py)."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return ask is None or ask()  # a torch that does not say multiplies as it did
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


_BFLOAT16_IS_FAST = _multiplies_bfloat16()


def is_traced() -> bool:
    """Whether a backward pass is made into a graph, whose number of rows may not be known yet. In torch 2.6
    to 2.11 the compiler does not say so of a backward pass, but traces it in a mode."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def kernel_cannot_differentiate(keep: int) -> bool:
    """Whether a backward call must go through the reference: it is itself to be differentiated
    (``create_graph=True``), runs under vmap (``is_grads_batched=True``), or nothing was kept."""
    return torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or keep == Keep.NOTHING


def through_reference(
    run: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    d_outputs: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Vector-Jacobian product of ``run(*inputs)`` by autograd, differentiable in turn.

    Args:
        run: the reference, from the inputs to the outputs that ``d_outputs`` belongs to.
        inputs: what the operator saved, as the caller passed it. One may depend on another, as a state
            that the same weights made a call before: what goes that way is not this call's share.
        needed: which inputs want a gradient.
        d_outputs: dL/d(output) for each output, None where an output was not used.
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        # a gradient with respect to an alias stops there
        own = [t.view_as(t) if need and t is not None else t for t, need in zip(inputs, needed, strict=True)]
        outputs = run(*own)
        wanted = [alias for alias, need in zip(own, needed, strict=True) if need]
        used = [(out, d_out) for out, d_out in zip(outputs, d_outputs, strict=True) if d_out is not None]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in used],
                [w for w in wanted if w is not None],
                [d_out for _, d_out in used],
                create_graph=differentiable,
                allow_unused=True,
            )
        )
    return [next(found) if need else None for need in needed]


def run_again(
    run: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    needed: Sequence[bool],
    d_outputs: Sequence[Tensor],
) -> list[Tensor]:
    """Vector-Jacobian product of ``run(inputs)`` by autograd within an operator that kept nothing; empty
    tensors for inputs that need none."""
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_(need) for t, need in zip(inputs, needed, strict=True)]
        outputs = run(leaves)
        used = [(out, d) for out, d in zip(outputs, d_outputs, strict=True) if out.requires_grad]
        found = torch.autograd.grad(
            [out for out, _ in used],
            [leaf for leaf, need in zip(leaves, needed, strict=True) if need],
            [d for _, d in used],
            materialize_grads=True,
        )
    grads = iter(found)
    return [next(grads).contiguous() if need else inputs[0].new_empty(0) for need in needed]


def rows(x: Tensor) -> Tensor:
    """``[T, B, ...]`` as ``[T*B, n]``: one row a step and sequence, ready for one matrix product."""
    T, B, *sizes = x.shape
    return x.reshape(T * B, math.prod(sizes))


def _widens(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not _BFLOAT16_IS_FAST


def product(d_rows: Tensor, weight: Tensor) -> Tensor:
    """``d_rows @ weight`` for ``[n, G]`` and ``[G, K]``, rounded once.

    bfloat16 is multiplied in float32 where the CPU has no instruction for it, some rows at a time.
    """
    if not _widens(d_rows):
        return d_rows @ weight
    with torch.autocast("cpu", enabled=False):  # it would narrow what was widened
        wide = weight.float()
        if is_traced():
            return (d_rows.float() @ wide).to(d_rows.dtype)
        found = d_rows.new_empty(len(d_rows), weight.shape[1])
        for some, to in zip(d_rows.split(_WIDENED_AT_ONCE), found.split(_WIDENED_AT_ONCE), strict=True):
            to.copy_(some.float() @ wide)
        return found


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b`` for ``[n, G]`` and ``[n, K]``, rounded once; see `product`."""
    if not _widens(a):
        return a.T @ b
    with torch.autocast("cpu", enabled=False):
        if is_traced():
            return (a.float().T @ b.float()).to(a.dtype)
        total = a.new_zeros(a.shape[1], b.shape[1], dtype=torch.float32)
        for some, beside in zip(a.split(_WIDENED_AT_ONCE), b.split(_WIDENED_AT_ONCE), strict=True):
            # not addmm_, which torch's own flop counter does not count
            torch.addmm(total, some.float().T, beside.float(), out=total)
        return total.to(a.dtype)


class Found(NamedTuple):
    """The states that the steps of a sequence found.

    Attributes:
        states: after each step, ``[T, B, H]``.
        initial: ``[B, H]``.
        reverse: whether the steps were made against the order of time.
        resets: ``[T, B]``, where zeros were found; or None.
    """

    states: Tensor
    initial: Tensor
    reverse: bool
    resets: Tensor | None = None

    def whole(self) -> Tensor:
        """``[T, B, H]``."""
        return previous_states(self.states, self.initial, self.reverse, self.resets)

    def pieces(self) -> tuple[Tensor, ...]:
        """The same in one piece or two along time, copied only where there are resets."""
        if self.resets is not None or len(self.states) == 1:
            return (self.whole(),)
        return previous_in_pieces(self.states, self.initial, self.reverse)


def own_weight_gradients(
    cell: str, backend: str, d_gates: Tensor, input: Tensor, found: Found, needed: Sequence[bool]
) -> Sequence[Tensor | None] | None:
    """The gradients of both weights and both biases by kernels of the backend, or None: by torch's products.

    Args:
        cell: "GRU" or "LSTM".
        backend: that computed ``d_gates``, ``[T, B, 4, H]``.
        input: ``[T, B, I]``.
        found: what the recurrent weight has multiplied.
        needed: which of the four are wanted.
    """
    if not any(needed):
        return (None,) * len(needed)
    own = _ops.own_products(backend, (d_gates, input, found.states, found.initial, found.resets))
    return None if own is None else own.weight_gradients(cell, d_gates, input, found.pieces(), needed)


def own_input_gradient(cell: str, backend: str, d_gates: Tensor, weight_ih: Tensor) -> Tensor | None:
    """The input's gradient, likewise."""
    own = _ops.own_products(backend, (d_gates, weight_ih))
    return None if own is None else own.input_gradient(cell, d_gates, weight_ih)


def weight_gradient(d_gates: Tensor, read: Tensor) -> Tensor:
    """``d_gates.T @ read`` for ``[n, G]`` and ``[n, K]``: what a weight ``[G, K]`` gets from n rows.

    With few columns computed as the transpose of ``read.T @ d_gates``: BLAS libraries are slower
    where the right side is narrow, and K, the input's features, is often a handful. Otherwise that
    costs more than it saves, because the transposed result is laid out anew, as torch's gradients
    are. One row is no sum.
    """
    columns = read.shape[1]
    many_rows = is_traced() or len(read) >= _MANY_ROWS
    if columns <= _HANDFUL or (many_rows and columns < _WIDE):
        return _transposed_product(read, d_gates).T.contiguous()
    if not many_rows and len(read) == 1:
        return d_gates.reshape(-1, 1) * read
    return _transposed_product(d_gates, read)


def save(ctx: Any, tape: Tensor, *tensors: Tensor | None) -> None:
    """Keep what the backward reads; the tape is not an output that one can differentiate."""
    ctx.mark_non_differentiable(tape)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(tape, *tensors)


def as_function(
    name: str,
    run: Callable[..., tuple[Tensor, ...]],
    setup: Callable[[Any, tuple[Any, ...], Any], None],
    rule: Callable[..., tuple[Any, ...]],
) -> Any:
    """An operator with its rule, without the dispatcher (see `gatedcells._ops.operator`).

    Args:
        name: of the ``torch.autograd.Function``, by which graphs show it.
        run: computes the operator; setup, rule: as they are registered for it.
    """

    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        # not in a setup_context of its own: torch would look up this function's signature at every call
        output = run(*inputs)
        setup(ctx, inputs, output)
        return output

    return type(
        name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(rule)}
    )
