"""What layers do beyond torch's: states and gates of every step, gate hooks, learnt initial states."""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from gatedcells.backends import resolve
from gatedcells.functional.inputs import each_to_autocast
from gatedcells.functional.kept import TapeReader, are_differentiated
from gatedcells.layers import initial, options
from gatedcells.layers.call import Asked, Call, Every
from gatedcells.layers.stack import State
from gatedcells.reference.variants import Edit, Variant
from gatedcells.trace.record import STATES, Trace
from gatedcells.trace.recorder import Recorder
from gatedcells_kernels.tape import GRU_GATES, LSTM_GATES

if TYPE_CHECKING:
    from gatedcells.layers.base import RecurrentLayer

GATES = {"GRU": GRU_GATES, "LSTM": LSTM_GATES}


class GateAt(NamedTuple):
    """The position at which a gate hook is called.

    Attributes:
        layer: the layer's number, from 0.
        direction: 0 forward, 1 reverse.
        t: the step, from 0 in the order of time; with a ``mask``, counted among the steps that take part.
    """

    layer: int
    direction: int
    t: int


# From a gate's values [B, H] and where they are to what takes their place, or None.
Hook = Callable[[Tensor, GateAt], "Tensor | None"]


class GateHook(NamedTuple):
    """A hook and the gate that it is on."""

    gate: str
    hook: Hook


def prepare(layer: RecurrentLayer, **factory: Any) -> None:
    """Register what the options want and set what does not begin as torch's parameters do.

    Raises:
        ValueError: ``recompute`` is asked of a cell that only the reference computes.
    """
    if layer.recompute:
        given = layer.options._replace(input_dropout=0.0, dropconnect=0.0).words()
        if given:
            raise ValueError(f"recompute=True supports the plain cell only, got {', '.join(given)}")
    options.register(layer, **factory)
    if layer.learn_h0:
        rows = layer._rows()
        for name, width in zip(("h_0", "c_0"), layer._state_widths()):  # noqa: B905 (the GRU has one state)
            layer.register_parameter(name, nn.Parameter(torch.empty(rows, width, **factory)))
    initial.reset(layer)


def said(layer: RecurrentLayer) -> str:
    """What ``repr`` says of it."""
    words = [*layer.options.words()]
    if layer.init != initial.TORCH:
        words.append(f"init={layer.init!r}" + (f", t_max={layer.t_max}" if layer.t_max else ""))
    if layer.learn_h0:
        words.append("learn_h0=True")
    if layer.precision is not None:
        words.append(f"precision={layer.precision!r}")
    return "".join(f", {word}" for word in words)


def learnt_states(layer: RecurrentLayer, B: int) -> State:
    """The learnt initial states for a batch, each ``[L*D, B, ...]``."""
    names = ("h_0", "c_0")[: len(layer._state_widths())]
    return tuple(getattr(layer, name).unsqueeze(1).expand(-1, B, -1).contiguous() for name in names)


def register_gate_hook(layer: RecurrentLayer, gate: str, hook: Hook) -> RemovableHandle:
    """See `RecurrentLayer.register_gate_hook`."""
    gates = GATES[layer.mode]
    if gate not in gates:
        raise ValueError(f"gate must be one of {', '.join(map(repr, gates))}, got {gate!r}")
    if layer._gate_hooks is None:
        layer._gate_hooks = OrderedDict()
    layer.forget_calls()
    handle = RemovableHandle(layer._gate_hooks)
    layer._gate_hooks[handle.id] = GateHook(gate, hook)
    return handle


def edits(layer: RecurrentLayer) -> list[Edit | None]:
    """For each row of the states what its gates go through: the hooks, in the order of registration."""
    hooks = layer._gate_hooks
    if not hooks:
        return [None] * layer._rows()
    directions = 2 if layer.bidirectional else 1

    def edit_of(row: int) -> Edit:
        def edit(name: str, values: Tensor, t: int) -> Tensor:
            for gate, hook in hooks.values():
                if gate == name:
                    found = hook(values, GateAt(row // directions, row % directions, t))
                    values = values if found is None else _checked(found, values, name)
            return values

        return edit

    return [edit_of(row) for row in range(layer._rows())]


def _checked(found: Tensor, values: Tensor, gate: str) -> Tensor:
    if found.shape != values.shape or found.dtype != values.dtype:
        raise RuntimeError(
            f"a gate hook on {gate!r} must return None or {list(values.shape)} {values.dtype}, got"
            f" {list(found.shape)} {found.dtype}"
        )
    return found


def needs(
    layer: RecurrentLayer, tensors: Sequence[Tensor | None], return_states: bool, return_gates: bool
) -> str:
    """What of a call with these tensors and flags only the reference computes, in words; empty if nothing.

    Hidden states are what every backend computes. The LSTM's cell states and the gates every backend can
    keep, but they are differentiated by the reference alone.
    """
    seen_by_cells = layer.options.in_the_recurrence(layer.training)
    words = [word.split("=")[0] for word in seen_by_cells.words()]
    words += ["a gate hook"] if layer._gate_hooks else []
    flag = _beyond_hidden(layer, return_states, return_gates)
    if flag and are_differentiated(tensors):
        words.append(f"differentiable {flag}")
    return ", ".join(words)


def _beyond_hidden(layer: RecurrentLayer, return_states: bool, return_gates: bool) -> str:
    """The flag that asks for more than hidden states, if one does."""
    if return_gates:
        return "return_gates"
    return "return_states" if return_states and layer.mode == "LSTM" else ""


def run(
    layer: RecurrentLayer,
    input: Tensor | PackedSequence,
    given: State | None,
    reset_after: bool,
    return_gates: bool,
    asked: Asked,
) -> tuple[Any, State, dict[str, Tensor]]:
    """A forward pass with what every step of every direction of every layer computed.

    Returns:
        output and last states as without, and by name ``[L*D, T, B, ...]``, laid out like the input, zeros
        where no step takes part: ``hidden``, of the LSTM ``cell``, with ``return_gates`` also the gates.

    Raises:
        ValueError: the input is packed.
        BackendUnavailable: another backend is asked for than the one that computes these.
    """
    if isinstance(input, PackedSequence):
        raise ValueError(
            "return_states and return_gates need a padded input with lengths=, got a PackedSequence"
        )
    names = STATES[layer.mode] + (GATES[layer.mode] if return_gates else ())
    every = Every(names, layer._state_widths())
    recorder: Recorder | TapeReader | None = None
    tensors = (input, *(given or ()), *layer.parameters())
    by_reference = needs(layer, tensors, True, return_gates)
    more = _beyond_hidden(layer, True, return_gates) or by_reference
    if layer.precision == "bf16" and more:
        raise ValueError(f"precision='bf16' does not support {more}")
    if more:
        cast = tuple(each_to_autocast(input.device.type, tensors))
        choice = resolve(layer.mode, "sequence", cast, layer.backend, by_reference, layer.factors())
        recorder = layer._recorder(reset_after, False)
        if not by_reference and choice.route == "operator":
            recorder = TapeReader(layer.mode, recorder.names, reset_after=reset_after, backend=choice.backend)
    output, last = layer._run_sequence(input, given, asked.keeping(recorder, every))
    return output, last, every.found


def trace(
    layer: RecurrentLayer,
    input: Tensor | PackedSequence,
    given: State | None,
    reset_after: bool,
    retain_grad: bool,
    asked: Asked,
) -> Trace:
    """See `gatedcells.GRU.trace`.

    Raises:
        ValueError: the layer's precision is bf16.
        BackendUnavailable: the reference does not multiply in the layer's precision.
    """
    if layer.precision == "bf16":
        raise ValueError(
            "precision='bf16' does not support trace, which computes in the input's own dtype: set"
            " layer.precision = None to trace"
        )
    if layer.precision is not None:
        data = input.data if isinstance(input, PackedSequence) else input
        tensors = each_to_autocast(data.device.type, (data, *layer.parameters()))
        resolve(layer.mode, "sequence", tuple(tensors), "reference", "", layer.factors())
    recorder = layer._recorder(reset_after, retain_grad)
    output, last = layer._run_sequence(input, given, asked.keeping(recorder))
    directions = 2 if layer.bidirectional else 1
    return Trace(output, last if layer.mode == "LSTM" else last[0], recorder.directions, directions)


def recorded(
    input: Tensor, state: State, weights: Sequence[Tensor], reverse: bool, call: Call, variant: Variant
) -> tuple[Tensor, State]:
    """One direction of one layer by the call's recorder, in autocast's dtype where that is on."""
    given: Any = each_to_autocast(input.device.type, (input, *state, *weights))
    input, count = given[0], 1 + len(state)
    return call.recorder.one(
        input,
        tuple(given[1:count]),
        given[count:],
        reverse,
        call.lengths,
        call.resets,
        variant.to(input.dtype),
    )


def in_bfloat16(
    layer: RecurrentLayer,
    input: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reverse: bool,
    call: Call,
    variant: Variant,
) -> tuple[Tensor, State]:
    """One direction of one layer in bfloat16, its results in the input's dtype again.

    Raises:
        ValueError: the input is not float32.
    """
    if input.dtype != torch.float32:
        raise ValueError(f"precision='bf16' applies to float32 only, got an input of {input.dtype}")
    low = torch.bfloat16
    output, last = layer._direction(
        input.to(low),
        tuple(part.to(low) for part in state),
        [w.to(low) for w in weights],
        reverse,
        call,
        variant,
    )
    return output.to(input.dtype), tuple(part.to(input.dtype) for part in last)
