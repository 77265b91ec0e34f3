"""The base of `gatedcells.GRU` and `gatedcells.LSTM`: torch's layer contract around any cell.

It derives from ``nn.RNNBase``, which provides torch's parameters, initialisation, messages and pickles, and
not from ``nn.GRU`` or ``nn.LSTM``, which torch's compiler refuses to trace. So
``isinstance(layer, torch.nn.GRU)`` is False.
"""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from gatedcells import _ops
from gatedcells.backends import AUTO, check_name
from gatedcells.functional import leaf
from gatedcells.functional.again import Again
from gatedcells.layers import beyond, initial
from gatedcells.layers.call import Asked, Call, SequenceCall
from gatedcells.layers.options import PLAIN_OPTIONS, CellOptions, drop_connections, drop_inputs, variants
from gatedcells.layers.stack import Both, Direction, State
from gatedcells.precision import check_name as check_precision
from gatedcells.reference.variants import Variant
from gatedcells.trace.recorder import Recorder
from gatedcells.validation import is_autocast_enabled


class RecurrentLayer(SequenceCall, nn.RNNBase):
    """A stack of gated layers; the base class of `gatedcells.GRU` and `gatedcells.LSTM`.

    Keyword-only additions to torch's constructor:
        backend: ``"auto"``, or the name of the backend that must be used.
        allow_empty: if True, a sequence of length 0 returns an empty output and the initial states; if False,
            as in torch, it raises RuntimeError.
        recompute: in training, keep one number per unit and step (LSTM: two) for the backward pass instead
            of four (five) and recompute the gates there: less memory, more time.
        options: variants of the cell, see `CellOptions`.
        init, t_max: initialisation of the parameters, see `gatedcells.layers.initial`.
        learn_h0: the initial states of calls without ``hx`` are parameters ``h_0`` ``[L*D, H or P]`` (LSTM:
            also ``c_0`` ``[L*D, H]``), at first zero. Not with ``resets``.
        precision: precision of float32 matrix products, see `gatedcells.precision`.
    """

    backend: str
    allow_empty: bool
    recompute: bool
    # as they are in pickles of before there were these
    options: CellOptions = PLAIN_OPTIONS
    init: str = initial.TORCH
    t_max: int | None = None
    learn_h0: bool = False
    precision: str | None = None
    _gate_hooks: dict[int, beyond.GateHook] | None = None
    _again: Again
    _again_step: Again
    _again_training: Again

    def __init__(
        self,
        mode: str,
        *args: Any,
        backend: str = AUTO,
        allow_empty: bool = False,
        recompute: bool = False,
        options: CellOptions = PLAIN_OPTIONS,
        init: str = initial.TORCH,
        t_max: int | None = None,
        learn_h0: bool = False,
        precision: str | None = None,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        initial.check(mode, init, t_max, bias)
        super().__init__(mode, *args, bias=bias, device=device, dtype=dtype, **kwargs)
        self.backend = check_name(backend)
        self.allow_empty = allow_empty
        self.recompute = recompute
        self.options = options
        self.init = init
        self.t_max = t_max
        self.learn_h0 = learn_h0
        self.precision = check_precision(precision)
        self._gate_hooks = OrderedDict()
        self._again = Again()
        self._again_step = Again()
        self._again_training = Again()
        beyond.prepare(self, device=device, dtype=dtype)

    @property
    def _flat_weights(self) -> list[Tensor | None]:
        # Always the parameters as they are now. torch keeps a list beside them that can go stale under
        # functional_call, parametrizations and weight tying.
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: Sequence[Tensor | None]) -> None:
        """Keep nothing; refuse other tensors (LoRA for LSTMs), which torch's layers would compute with."""
        for name, weight in zip(self._flat_weights_names, weights):  # noqa: B905 (some empty it)
            own = self._parameters.get(name)
            if own is not None and weight is not None and weight is not own:
                raise RuntimeError(
                    f"_flat_weights got a tensor other than the parameter {name}, which gatedcells computes"
                    " with: replace the parameter (torch.nn.utils.parametrize, torch.func.functional_call)"
                )

    def flatten_parameters(self) -> None:
        """Do nothing: no backend needs the weights in one buffer."""

    def extra_repr(self) -> str:
        """torch's, followed by the options that differ from the defaults."""
        text = super().extra_repr()
        if self.backend != AUTO:
            text += f", backend={self.backend!r}"
        if self.allow_empty:
            text += ", allow_empty=True"
        if self.recompute:
            text += ", recompute=True"
        return text + beyond.said(self)

    def reset_parameters(self) -> None:
        """Draw new parameters, as ``init`` says."""
        super().reset_parameters()
        initial.reset(self)

    def register_gate_hook(self, gate: str, hook: beyond.Hook) -> RemovableHandle:
        """Call ``hook(values, where)`` on a gate at every step; it may return values to replace the gate's.

        Args:
            gate: "reset", "update" or "candidate"; for the LSTM "input", "forget", "candidate" or "output".
            hook: takes the gate's values ``[B, H]`` and a `gatedcells.GateAt` (layer, direction, t); returns
                None, or the values ``[B, H]`` to continue with.

        Returns:
            a handle; ``handle.remove()`` removes the hook. A layer with hooks runs on the reference backend.

        Raises:
            ValueError: the cell has no such gate.
        """
        return beyond.register_gate_hook(self, gate, hook)

    # torch's own checks with torch's messages, here because torch's compiler does not always follow a
    # call into torch.nn.

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise ValueError or RuntimeError unless ``input`` has the right dtype, dimensions and features."""
        weight = getattr(self, self._flat_weights_names[0])
        if input.dtype != weight.dtype and not is_autocast_enabled(input.device.type):
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype})."
                f" Convert input: input.to({weight.dtype}), or convert model: model.to({input.dtype})"
            )
        dimensions = 3 if batch_sizes is None else 2
        if input.dim() != dimensions:
            raise RuntimeError(f"input must have {dimensions} dimensions, got {input.dim()}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size},"
                f" got {input.shape[-1]}"
            )

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape that ``h_0`` must have, ``(L*D, B, H)`` or ``(L*D, B, P)``."""
        rows = self.num_layers * (2 if self.bidirectional else 1)
        batch = int(batch_sizes[0]) if batch_sizes is not None else input.shape[0 if self.batch_first else 1]
        return rows, batch, self.proj_size or self.hidden_size

    def check_hidden_size(
        self,
        hx: Tensor,
        expected_hidden_size: tuple[int, int, int],
        msg: str = "Expected hidden size {}, got {}",
    ) -> None:
        """Raise RuntimeError unless ``hx`` has the expected shape."""
        if hx.shape != expected_hidden_size:
            raise RuntimeError(msg.format(expected_hidden_size, list(hx.shape)))

    # What a subclass says about its cell.

    def _direction(
        self,
        input: Tensor,
        state: State,
        weights: Sequence[Tensor],
        reverse: bool,
        call: Call,
        variant: Variant,
    ) -> tuple[Tensor, State]:
        raise NotImplementedError

    def _both(
        self, input: Tensor, state: State, weights: Sequence[Sequence[Tensor]], call: Call
    ) -> tuple[Tensor, State] | None:
        """Run both directions of one layer, or None; see `run_stack`."""
        raise NotImplementedError

    def _run(
        self,
        input: Tensor | PackedSequence,
        given: State | None,
        resets: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Any, State]:
        """The forward pass of torch's layers, states as a tuple of tensors."""
        if leaf.is_symbolic(input):
            return self._as_leaf(input, given, resets=resets, lengths=lengths, mask=mask, generator=generator)
        repeats = resets is None and lengths is None and mask is None and self._is_one_kernel()
        again = self._again
        if torch.is_grad_enabled():
            again, repeats = self._again_training, repeats and not self.recompute
        if repeats and isinstance(input, Tensor):
            done = again.run(self.backend, input, given, self._parameters, self.batch_first)
            if done is not None:
                return done[0], done[1:]
        found = self._run_sequence(input, given, Asked(resets, lengths, mask, generator))
        if not (repeats and isinstance(input, Tensor) and input.dim() == 3):
            return found
        if self._may_be_repeated():
            by_time = input.transpose(0, 1) if self.batch_first else input
            state = self._initial(by_time, by_time.shape[1]) if given is None else given
            tensors = (by_time, *state)
            again.remember(self.mode, "sequence", self.backend, tensors, self._parameters, self.batch_first)
        return found

    def _as_leaf(self, input: Any, given: State | None, **keywords: Any) -> tuple[Any, State]:
        several = len(self._state_widths()) > 1
        hx = given if given is None or several else given[0]
        found = leaf.call(self, input, hx=hx, **keywords)
        return found[0], (found[1][0], found[1][1]) if several else (found[1],)

    def _run_step(self, input: Tensor, given: State | None, resets: Tensor | None) -> tuple[Tensor, State]:
        """One step of `_run`, without its time: ``[B, I]`` and ``[B]``, or ``[I]`` and ``[]``."""
        repeats, again = resets is None and self._is_one_kernel(), self._again_step
        if repeats:
            found = again.run(self.backend, input, given, self._parameters)
            if found is not None:
                output, last, *others = found
                return output[0], (last, *others)
        sequence, resets, time_axis = self._as_sequence(input, resets)
        batched = input.dim() == 2
        if given is None and batched:
            given = self._initial(input, len(input))
        output, last = self._run(sequence, given, resets)
        if batched and repeats and self._may_be_repeated():
            assert given is not None
            again.remember(self.mode, "step", self.backend, (input, *given), self._parameters)
        return output.squeeze(time_axis), last

    def _is_one_kernel(self) -> bool:
        """Whether a call is one kernel: one layer, one direction, the plain cell, no precision asked for."""
        return (
            not torch.compiler.is_compiling()
            and self.num_layers == 1
            and not self.bidirectional
            and not self.proj_size
            and self.precision is None
            and (self.options is PLAIN_OPTIONS or self.options == PLAIN_OPTIONS)
        )

    def factors(self) -> str | None:
        """The precision to ask a backend for: bfloat16 numbers have none to choose."""
        return None if self.precision == "bf16" else self.precision

    def forget_calls(self) -> None:
        """Check the next call in full, whatever the last was like."""
        self._again, self._again_step, self._again_training = Again(), Again(), Again()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        _ops.forget(self.parameters())  # torch swaps no weights that anybody refers to weakly
        return super()._apply(fn, recurse)

    def _may_be_repeated(self) -> bool:
        """Whether a call is the plain cell with the weights that are registered: no parametrization."""
        return not self._gate_hooks and list(self._parameters) == self._flat_weights_names

    def _runners(self, input: Tensor, call: Call) -> tuple[Direction, Both, Any]:
        if self.learn_h0 and call.resets is not None:
            raise ValueError(
                "resets restart from zeros, not from the initial states that learn_h0=True learns: run the"
                " sequences one by one, or set learn_h0=False"
            )
        weights = drop_connections(self, call.generator)
        cells = variants(self, input, beyond.edits(self), call.generator)

        def direction(input: Tensor, state: State, row: int, reverse: bool) -> tuple[Tensor, State]:
            if call.recorder is not None:
                return beyond.recorded(input, state, weights[row], reverse, call, cells[row])
            if self.precision == "bf16":
                return beyond.in_bfloat16(self, input, state, weights[row], reverse, call, cells[row])
            return self._direction(input, state, weights[row], reverse, call, cells[row])

        def both(input: Tensor, state: State, rows: Sequence[int]) -> tuple[Tensor, State] | None:
            alone = call.recorder is not None or self.precision == "bf16"
            if alone or any(cells[row].words() for row in rows):
                return None
            return self._both(input, state, [weights[row] for row in rows], call)

        return direction, both, drop_inputs(self, call.generator)

    def _initial(self, input: Tensor, B: int) -> State:
        return beyond.learnt_states(self, B) if self.learn_h0 else super()._initial(input, B)

    def _recorder(self, reset_after: bool, retain_grad: bool) -> Recorder:
        names = [name.removesuffix("_l0") for name in self._all_weights[0]]
        return Recorder(self.mode, names, reset_after=reset_after, retain_grad=retain_grad)

    def _check_devices(self, input: Tensor, state: State) -> None:
        parameter = getattr(self, self._flat_weights_names[0], None)
        if parameter is not None and parameter.device != input.device:
            raise RuntimeError(
                "Input and parameter tensors are not at the same device, found input tensor at"
                f" {input.device} and parameter tensor at {parameter.device}"
            )
        for part in state:
            if part.device != input.device:
                raise RuntimeError(
                    "Input and hidden tensors are not at the same device, found input tensor at"
                    f" {input.device} and hidden tensor at {part.device}"
                )
