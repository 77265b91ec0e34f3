"""The operators as torch's compiler sees them: schemas, shapes, and who is called.

One operator is one direction of one layer over all its steps, so a compiled graph does not grow with
T. Each comes in a forward and a backward; who computes it is the argument ``backend``. Nothing that
computes is imported before an operator runs. The autograd rules are in `gatedcells._autograd`.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo.guards import TensorGuards
from torch.nn import Parameter

from gatedcells import _flops, _shapes
from gatedcells.validation import check_gru, check_lengths, check_lstm, check_resets, check_rows, check_shape
from gatedcells_kernels.tape import GRUTape, Keep, LSTMTape

# Each module defines gru_forward, gru_backward, lstm_forward and lstm_backward.
_IMPLEMENTATIONS = {
    "reference": "gatedcells._reference_kernel",
    "cpu": "gatedcells_kernels.cpu.sequence",
    "triton": "gatedcells_kernels.triton.sequence",
}
_imported: dict[str, ModuleType] = {}

torch.library.define(
    "gatedcells::gru_sequence",
    "(Tensor input, Tensor hidden, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh,"
    " Tensor? lengths, Tensor? resets, bool reverse, bool reset_after, int keep, str backend)"
    " -> (Tensor states, Tensor last, Tensor tape)",
)
torch.library.define(
    "gatedcells::gru_sequence_backward",
    "(Tensor? d_states, Tensor? d_last, Tensor hidden, Tensor weight_hh, Tensor? lengths, Tensor? resets,"
    " Tensor states, Tensor tape, bool reverse, bool reset_after, str backend,"
    " bool initial=True) -> (Tensor d_gates, Tensor d_hidden)",
)
torch.library.define(
    "gatedcells::lstm_sequence",
    "(Tensor input, Tensor hidden, Tensor cell, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih,"
    " Tensor? bias_hh, Tensor? weight_hr, Tensor? lengths, Tensor? resets, bool reverse, int keep,"
    " str backend) -> (Tensor states, Tensor last_hidden, Tensor last_cell, Tensor tape)",
)
torch.library.define(
    "gatedcells::lstm_sequence_backward",
    "(Tensor? d_states, Tensor? d_last_hidden, Tensor? d_last_cell, Tensor hidden, Tensor cell,"
    " Tensor weight_hh, Tensor? weight_hr, Tensor? lengths, Tensor? resets, Tensor states, Tensor tape,"
    " bool reverse, str backend, bool initial=True)"
    " -> (Tensor d_gates, Tensor d_projected, Tensor d_hidden, Tensor d_cell)",
)


def register(name: str, body: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Give the operator ``gatedcells::name`` what computes it, on every device, and what says its shapes."""
    torch.library.impl(f"gatedcells::{name}", "default", body)
    torch.library.register_fake(f"gatedcells::{name}", fake)


def implementation(backend: str) -> ModuleType:
    """The module that computes for a backend."""
    module = _imported.get(backend)
    if module is None:
        # not from sys.modules, where a module is while another thread is still in the middle of it
        module = _imported[backend] = importlib.import_module(_IMPLEMENTATIONS[backend])
    return module


def forget(weights: Iterable[Tensor]) -> None:
    """Drop what the backends keep beside weights that are about to be replaced."""
    if "cpu" in _imported:
        _imported["cpu"].forget(weights)


def empty_cache() -> None:
    """Give memory back to the system that is kept between training steps.

    The CPU kernels keep the memory of large tapes and gates' gradients for the next step, because getting it
    from the system takes a good part of one. It is never more than was once in use at the same time. What is
    in use stays; on a GPU nothing is kept beside torch's own cache (``torch.cuda.empty_cache``).
    """
    if "cpu" in _imported:
        _imported["cpu"].BLOCKS.release()


def prepared_kernels(backend: str) -> ModuleType | None:
    """The module of a backend that has kernels for calls checked before, or None."""
    return implementation(backend) if backend == "cpu" else None


def own_products(backend: str, tensors: Sequence[Tensor | None]) -> ModuleType | None:
    """The module of a backend that has products of its own for a backward pass on these tensors, or None: it
    has none, or somebody looks at operators."""
    if backend != "cpu" or sees_every_call() or not all(map(is_plain, tensors)):
        return None
    return implementation(backend)


def sees_every_call() -> bool:
    """Whether somebody wants to see operators: a compiler, a mode, a transform."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch.jit.is_tracing()
    )


def is_plain(tensor: Tensor | None) -> bool:
    """Whether a tensor is no subclass, which could want to see operators on it too, not batched as
    ``torch.autograd.grad(..., is_grads_batched=True)`` does, in a way of its own, no negative view, whose
    numbers in memory have the other sign, and none of the zeros that have no memory."""
    return tensor is None or (
        (type(tensor) is Tensor or type(tensor) is Parameter)
        and torch._C._has_storage(tensor)
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
    )


def alike(*tensors: Tensor) -> Callable[..., bool]:
    """What tells whether others are like these, of which no two are the same: in type, dtype, device, sizes,
    strides, and what operators on them go through."""
    return TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check


def operator(name: str, tensors: Sequence[Tensor | None], direct: Callable[..., Any]) -> Callable[..., Any]:
    """The operator ``name``, or ``direct`` where nobody looks at operators: the dispatcher's way to an
    operator written in Python takes longer than all the rest of a small layer."""
    if sees_every_call() or not all(map(is_plain, tensors)):
        if not torch.compiler.is_compiling():
            _flops.tell_counters()
        return getattr(torch.ops.gatedcells, name)
    return direct


def _last(states: Tensor, reverse: bool) -> Tensor:
    # an operator's outputs may not share memory
    return states[0 if reverse else -1].clone()


def _check_unchanged(states: Tensor, **given: Tensor | None) -> None:
    # ``weight.data = ...`` goes past autograd's own check
    for name, tensor in given.items():
        if tensor is not None and (tensor.dtype != states.dtype or tensor.device != states.device):
            raise RuntimeError(
                f"{name} was changed between forward and backward: it is {tensor.dtype} on {tensor.device},"
                f" expected {states.dtype} on {states.device}"
            )


def run_gru_sequence(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    reset_after: bool,
    keep: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    states, tape = implementation(backend).gru_forward(
        input,
        hidden,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        lengths,
        resets,
        reverse,
        reset_after,
        Keep(keep),
    )
    return states, _last(states, reverse), tape


def run_gru_sequence_backward(
    d_states: Tensor | None,
    d_last: Tensor | None,
    hidden: Tensor,
    weight_hh: Tensor,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reverse: bool,
    reset_after: bool,
    backend: str,
    initial: bool = True,
) -> tuple[Tensor, Tensor]:
    T, B, H = states.shape
    check_shape("tape", tape, "T B slots H", (T, B, len(GRUTape._fields), H))
    check_rows(lengths, resets, T, B)
    _check_unchanged(states, weight_hh=weight_hh, hidden=hidden)
    check_shape("weight_hh", weight_hh, "3H H", (3 * H, H))
    check_shape("hidden", hidden, "B H", (B, H))
    if d_states is not None:
        check_shape("d_states", d_states, "T B H", (T, B, H))
    if d_last is not None:
        check_shape("d_last", d_last, "B H", (B, H))
    d_gates, d_hidden = implementation(backend).gru_backward(
        d_states, d_last, hidden, weight_hh, lengths, resets, states, tape, reverse, reset_after, initial
    )
    return d_gates, d_hidden if initial else hidden.new_empty(0)


def run_lstm_sequence(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    keep: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    states, last_cell, tape = implementation(backend).lstm_forward(
        input,
        hidden,
        cell,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        weight_hr,
        lengths,
        resets,
        reverse,
        Keep(keep),
    )
    return states, _last(states, reverse), last_cell, tape


def run_lstm_sequence_backward(
    d_states: Tensor | None,
    d_last_hidden: Tensor | None,
    d_last_cell: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    states: Tensor,
    tape: Tensor,
    reverse: bool,
    backend: str,
    initial: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    T, B, P = states.shape
    H = cell.shape[-1]
    check_shape("tape", tape, "T B slots H", (T, B, len(LSTMTape._fields), H))
    check_rows(lengths, resets, T, B)
    _check_unchanged(states, weight_hh=weight_hh, weight_hr=weight_hr, hidden=hidden, cell=cell)
    check_shape("weight_hh", weight_hh, "4H P", (4 * H, P))
    for name, state, width in (("hidden", hidden, P), ("cell", cell, H), ("d_last_hidden", d_last_hidden, P),
                               ("d_last_cell", d_last_cell, H)):  # fmt: skip
        if state is not None:
            check_shape(name, state, "B P" if width == P else "B H", (B, width))
    if d_states is not None:
        check_shape("d_states", d_states, "T B P", (T, B, P))
    if weight_hr is not None:
        check_shape("weight_hr", weight_hr, "P H", (P, H))
    d_gates, d_projected, d_hidden, d_cell = implementation(backend).lstm_backward(
        d_states, d_last_hidden, d_last_cell, hidden, cell, weight_hh, weight_hr, lengths, resets, states,
        tape, reverse, initial,
    )  # fmt: skip
    if not initial:
        d_hidden, d_cell = hidden.new_empty(0), cell.new_empty(0)
    return d_gates, d_projected, d_hidden, d_cell


def _gru_sequence(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    *options: Any,
) -> tuple[Tensor, ...]:
    tensors = (input, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    check_gru(*tensors)
    check_lengths(lengths, input)
    check_resets(resets, input)
    return run_gru_sequence(*tensors, lengths, resets, *options)


def _lstm_sequence(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    *options: Any,
) -> tuple[Tensor, ...]:
    tensors = (input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    check_lstm(*tensors)
    check_lengths(lengths, input)
    check_resets(resets, input)
    return run_lstm_sequence(*tensors, lengths, resets, *options)


register("gru_sequence", _gru_sequence, _shapes.gru_sequence)
register("gru_sequence_backward", run_gru_sequence_backward, _shapes.gru_sequence_backward)
register("lstm_sequence", _lstm_sequence, _shapes.lstm_sequence)
register("lstm_sequence_backward", run_lstm_sequence_backward, _shapes.lstm_sequence_backward)
