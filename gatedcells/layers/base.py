"""What `gatedcells.GRU` and `gatedcells.LSTM` share: torch's layer contract around any cell.

They derive from ``nn.RNNBase``, which gives torch's parameters, initialisation, messages and pickles,
and not from ``nn.GRU``/``nn.LSTM``, which torch's compiler refuses to trace. So
``isinstance(layer, torch.nn.GRU)`` is False.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatedcells.backends import AUTO, check_name
from gatedcells.functional.again import Again
from gatedcells.layers.packing import Packing
from gatedcells.layers.stack import State, run_stack
from gatedcells.trace.record import Recorder
from gatedcells.validation import is_autocast_enabled


class RecurrentLayer(nn.RNNBase):
    """A stack of gated layers; not used by itself.

    Keyword-only additions to torch's constructor:
        backend: ``"auto"`` or the name of the backend that must compute it.
        allow_empty: if True, a sequence of no steps returns no outputs and the initial states, for each
            layer; if False (torch's way) it raises RuntimeError.
        recompute: in training keep one number a unit and step (the LSTM two) for the backward pass instead
            of four (five), and compute the gates again there: less memory for more time.
    """

    backend: str
    allow_empty: bool
    recompute: bool
    _again: Again
    _again_step: Again

    def __init__(
        self,
        mode: str,
        *args: Any,
        backend: str = AUTO,
        allow_empty: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(mode, *args, **kwargs)
        self.backend = check_name(backend)
        self.allow_empty = allow_empty
        self.recompute = recompute
        self._again = Again()
        self._again_step = Again()

    @property
    def _flat_weights(self) -> list[Tensor | None]:
        # Always the parameters as they are now. torch keeps a list beside them that can go stale under
        # functional_call, parametrizations and weight tying.
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, _: Any) -> None:
        """torch's base class assigns its list here; there is nothing to keep."""

    def flatten_parameters(self) -> None:
        """Do nothing: no backend wants the weights in one chunk."""

    def extra_repr(self) -> str:
        """torch's own, with what differs from torch's layers if anything does."""
        text = super().extra_repr()
        if self.backend != AUTO:
            text += f", backend={self.backend!r}"
        if self.allow_empty:
            text += ", allow_empty=True"
        if self.recompute:
            text += ", recompute=True"
        return text

    # torch's own checks with torch's messages, here because torch's compiler does not always follow a
    # call into torch.nn.

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise ValueError or RuntimeError unless dtype, dimensions and features of ``input`` fit."""
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
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> tuple[Tensor, State]:
        raise NotImplementedError

    def _both(
        self,
        input: Tensor,
        state: State,
        weights: Sequence[Sequence[Tensor]],
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> tuple[Tensor, State] | None:
        """Run both directions of one layer, or None; see `run_stack`."""
        raise NotImplementedError

    def _check_state(self, input: Tensor, state: State, batch_sizes: Tensor | None) -> None:
        raise NotImplementedError

    def _state_widths(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _dimension_error(self, batched: bool, state: State) -> str:
        raise NotImplementedError

    def _run(
        self,
        input: Tensor | PackedSequence,
        given: State | None,
        resets: Tensor | None,
        recorder: Recorder | None = None,
    ) -> tuple[Any, State]:
        """The forward pass of torch's layers, states as a tuple of tensors; perhaps by ``recorder``."""
        if isinstance(input, PackedSequence):
            if resets is not None:
                raise ValueError("resets go with a padded input, got a PackedSequence")
            return self._run_packed(input, given, recorder)
        if resets is None and recorder is None:
            again = self._run_again(input, given)
            if again is not None:
                return again
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if given is not None and any(part.dim() != input.dim() for part in given):
            raise RuntimeError(self._dimension_error(batched, given))
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
            given = None if given is None else tuple(part.unsqueeze(1) for part in given)
        state = self._zeros(input, input.shape[0 if self.batch_first else 1]) if given is None else given
        self._check_devices(input, state)
        self._check_state(input, state, None)
        if resets is not None:
            resets = self._resets_by_time(resets, input, batched)
        by_time = input.transpose(0, 1) if self.batch_first else input
        if by_time.shape[0] == 0 and self.allow_empty:
            output, last = self._no_steps(by_time, state)
        else:
            output, last = self._stack(by_time, state, None, resets, recorder)
            if (
                recorder is None
                and batched
                and resets is None
                and self._repeats()
                and list(self._parameters) == self._flat_weights_names
            ):
                weights = tuple(self._parameters.values())
                self._again.remember(self.mode, "sequence", self.backend, (by_time, *state), weights)
        if self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            last = tuple(part.squeeze(1) for part in last)
        return output, last

    def _run_step(self, input: Tensor, given: State | None) -> tuple[Tensor, State]:
        """One step of `_run`, the input without its time: ``[B, I]`` or ``[I]``."""
        if self.bidirectional:
            raise RuntimeError(
                "step needs one direction: the second of a bidirectional layer starts at the end"
            )
        repeats, again = self._is_one_kernel(), self._again_step
        weights = self._parameters.values()
        if repeats:
            found = again.run(self.backend, (input, *(again.zeros if given is None else given)), weights)
            if found is not None:
                output, last, *others = found
                return output[0], (last, *others)
        if input.dim() not in (1, 2):
            raise ValueError(
                f"{self.mode}: Expected a step's input to be 1D or 2D, got {input.dim()}D instead"
            )
        batched = input.dim() == 2
        if given is None and batched:
            given = self._zeros(input, len(input))
        time_axis = 1 if self.batch_first and batched else 0
        output, last = self._run(input.unsqueeze(time_axis), given, None)
        if batched and repeats and list(self._parameters) == self._flat_weights_names:
            assert given is not None
            again.remember(self.mode, "step", self.backend, (input, *given), tuple(weights))
        return output.squeeze(time_axis), last

    def _is_one_kernel(self) -> bool:
        """Whether inference is one kernel: one layer, one direction, the plain cell."""
        return (
            not torch.compiler.is_compiling()
            and self.num_layers == 1
            and not self.bidirectional
            and not self.proj_size
        )

    def _repeats(self) -> bool:
        """Whether inference is one kernel on tensors that lie as it wants them."""
        return self._is_one_kernel() and not self.batch_first

    def _run_again(self, input: Tensor, given: State | None) -> tuple[Tensor, State] | None:
        """The result of a call like the last, without its checks; None if it is not like the last."""
        if not self._repeats():
            return None
        again = self._again
        found = again.run(
            self.backend, (input, *(again.zeros if given is None else given)), self._parameters.values()
        )
        if found is None:
            return None
        output, last, *others = found
        single_step = len(output) == 1
        return output, (output.clone() if single_step else last, *others)

    def _run_packed(
        self, input: PackedSequence, given: State | None, recorder: Recorder | None
    ) -> tuple[PackedSequence, State]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        packing = Packing.of(input)
        state = self._zeros(data, packing.B) if given is None else given
        self._check_devices(data, state)
        self._check_state(data, state, batch_sizes)
        if sorted_indices is not None:
            state = tuple(part.index_select(1, sorted_indices) for part in state)
        if recorder is not None:
            recorder.rows = unsorted_indices
        output, last = self._stack(packing.pad(data), state, packing, None, recorder)
        if unsorted_indices is not None:
            last = tuple(part.index_select(1, unsorted_indices) for part in last)
        packed = PackedSequence(packing.pack(output), batch_sizes, sorted_indices, unsorted_indices)
        return packed, last

    def _resets_by_time(self, resets: Tensor, input: Tensor, batched: bool) -> Tensor:
        """``resets`` as ``[T, B]``; given like the input, without its features."""
        time_axis = 1 if self.batch_first else 0
        letters = ("B, T" if self.batch_first else "T, B") if batched else "T"
        expected = input.shape[:2] if batched else input.shape[time_axis : time_axis + 1]
        if resets.shape != expected:
            raise RuntimeError(f"resets must be [{letters}]={list(expected)}, got {list(resets.shape)}")
        if not batched:
            return resets.unsqueeze(1)
        return resets.transpose(0, 1) if self.batch_first else resets

    def _stack(
        self,
        input: Tensor,
        state: State,
        packing: Packing | None,
        resets: Tensor | None,
        recorder: Recorder | None,
    ) -> tuple[Tensor, State]:
        lengths = None if packing is None else packing.lengths
        one, both = (self._direction, self._both) if recorder is None else (recorder.one, recorder.both)
        return run_stack(
            partial(one, lengths=lengths, resets=resets),
            partial(both, lengths=lengths, resets=resets),
            input,
            state,
            self.all_weights,
            directions=2 if self.bidirectional else 1,
            dropout=self.dropout if self.training else 0.0,
            valid=None if packing is None else packing.valid,
        )

    def _recorder(self, reset_after: bool, retain_grad: bool) -> Recorder:
        names = [name.removesuffix("_l0") for name in self._all_weights[0]]
        return Recorder(self.mode, names, reset_after=reset_after, retain_grad=retain_grad)

    def _zeros(self, input: Tensor, B: int) -> State:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return tuple(input.new_zeros(rows, B, width) for width in self._state_widths())

    def _no_steps(self, input: Tensor, state: State) -> tuple[Tensor, State]:
        width = (2 if self.bidirectional else 1) * self._state_widths()[0]
        return input.new_zeros(0, input.shape[1], width), tuple(part.clone() for part in state)

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
