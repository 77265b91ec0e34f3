"""`GRU`, a drop-in replacement for ``torch.nn.GRU``."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gatedcells.backends import AUTO
from gatedcells.functional.both import gru_both
from gatedcells.functional.gru import gru_sequence
from gatedcells.layers import beyond
from gatedcells.layers.base import RecurrentLayer
from gatedcells.layers.call import Asked, Call
from gatedcells.layers.initial import TORCH
from gatedcells.layers.options import checked
from gatedcells.layers.stack import State
from gatedcells.reference.variants import Variant
from gatedcells.trace.record import Trace


class GRU(RecurrentLayer):
    """A multi-layer gated recurrent unit (GRU), a drop-in replacement for ``torch.nn.GRU``.

    At each step, each layer and direction computes::

        r  = σ(W_ir x + b_ir + W_hr h + b_hr)              reset gate
        z  = σ(W_iz x + b_iz + W_hz h + b_hz)              update gate
        n  = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))     candidate
        h' = (1 − z) ⊙ n + z ⊙ h                           hidden state

    This is the GRU of torch and cuDNN (Cho et al. 2014, arXiv:1406.1078v1). With ``reset_after=False`` the
    reset gate acts on the state before the matrix product (arXiv:1406.1078v3)::

        n  = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn)

    Args:
        input_size: number of input features, I.
        hidden_size: number of hidden units, H.
        num_layers: number of stacked layers, L.
        bias: whether there are biases ``b_i`` and ``b_h``.
        batch_first: input and output are ``[B, T, ...]`` instead of ``[T, B, ...]``; states are unaffected.
        dropout: in training, the probability of zeroing each output of every layer except the last.
        bidirectional: add a second direction, from the last step to the first (D = 2).
        device, dtype: of the parameters.
        reset_after: where the reset gate acts, see above.
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).
        allow_empty: for T = 0 return an empty output and the initial states, instead of raising.
        recompute: in training, keep only the states and recompute the gates in the backward pass: less
            memory, more time.
        init, t_max: initialisation of the parameters, see `gatedcells.layers.initial`.
        learn_h0: make the initial states of calls without ``hx`` a parameter ``h_0`` ``[L*D, H]``, at first
            zero. Such a layer does not take ``resets``.
        precision: precision of float32 matrix products, see `gatedcells.precision`.
        layer_norm, zoneout, recurrent_dropout, state_dropout, input_dropout, dropconnect: variants of the
            cell, all off by default, see `gatedcells.layers.options.CellOptions`.
        proj_size: for the LSTM only; raises ValueError if given, as in torch.

    Inputs: ``input, hx``
        input: ``[T, B, I]`` (``[B, T, I]`` with batch_first), ``[T, I]`` unbatched, or a PackedSequence.
        hx: initial states ``[L*D, B, H]``, ``[L*D, H]`` unbatched; None: zeros, or ``h_0`` with learn_h0.
        resets (keyword): bool ``[T, B]`` (``[B, T]`` with batch_first, ``[T]`` unbatched), True where a new
            sequence begins. Each row then holds several sequences, and the result is that of running them
            one by one: all start from zeros, except the first in the order of processing (in the reverse
            direction the row's last), which starts from ``hx``.
        lengths (keyword): integers ``[B]`` in 0..T on the input's device, each row's number of valid steps.
            The input beyond them is not read and may be NaN; the output there is zero, as with
            ``pad_packed_sequence``. A row of length 0 ends with its initial states.
        mask (keyword): bool, shaped like ``resets``, False at steps to skip, anywhere in a row. There the
            state is kept and the output is zero; the other steps are computed as if these did not exist.
        return_states, return_gates (keyword): also return ``steps``, see below; not with a PackedSequence.
        generator (keyword): the generator for all random masks of this call; None: torch's default.

    Outputs: ``output, h_n``, and ``steps`` if requested
        output: the last layer's states ``[T, B, D*H]``, laid out like the input; packed if the input was.
        h_n: the last state of each layer and direction, ``[L*D, B, H]`` or ``[L*D, H]``.
        steps: a dict with "hidden"; with ``return_gates`` also "reset", "update" and "candidate". Each is
            ``[L*D, T, B, H]`` (``[L*D, B, T, H]`` with batch_first), zero at steps that take no part. If a
            gradient is required, the gates are differentiable and the reference backend computes them.

    Attributes:
        weight_ih_l{k}, weight_hh_l{k}: ``[3H, I]`` (``[3H, D*H]`` for k > 0) and ``[3H, H]``, rows in the
            order r, z, n.
        bias_ih_l{k}, bias_hh_l{k}: ``[3H]``. The suffix ``_reverse`` marks the second direction.

    With ``init="torch"`` the parameters are drawn from U(−1/√H, 1/√H) in torch's order, so the same seed
    gives the same weights. State dicts are interchangeable with torch's.

    Raises:
        TypeError, ValueError, RuntimeError: as torch's layer, with the same messages.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
    """

    reset_after: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        reset_after: bool = True,
        backend: str = AUTO,
        allow_empty: bool = False,
        recompute: bool = False,
        init: str = TORCH,
        t_max: int | None = None,
        learn_h0: bool = False,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        state_dropout: float = 0.0,
        input_dropout: float = 0.0,
        dropconnect: float = 0.0,
        precision: str | None = None,
        proj_size: None = None,
    ) -> None:
        if proj_size is not None:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        options = checked(
            1,
            zoneout,
            layer_norm=layer_norm,
            recurrent_dropout=recurrent_dropout,
            state_dropout=state_dropout,
            input_dropout=input_dropout,
            dropconnect=dropconnect,
        )
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            backend=backend,
            allow_empty=allow_empty,
            recompute=recompute,
            options=options,
            init=init,
            t_max=t_max,
            learn_h0=learn_h0,
            precision=precision,
        )
        self.reset_after = reset_after

    def extra_repr(self) -> str:
        """torch's, followed by the options that differ from the defaults."""
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")

    @overload
    def forward(
        self, input: Tensor, hx: Tensor | None = None, *, resets: Tensor | None = None,
        lengths: Tensor | None = None, mask: Tensor | None = None, return_states: Literal[False] = False,
        return_gates: Literal[False] = False, generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip

    @overload
    def forward(
        self, input: PackedSequence, hx: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[PackedSequence, Tensor]: ...

    @overload
    def forward(
        self, input: Tensor, hx: Tensor | None = None, *, resets: Tensor | None = None,
        lengths: Tensor | None = None, mask: Tensor | None = None, return_states: Literal[True],
        return_gates: bool = False, generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]: ...  # fmt: skip

    @overload
    def forward(
        self, input: Tensor, hx: Tensor | None = None, *, resets: Tensor | None = None,
        lengths: Tensor | None = None, mask: Tensor | None = None, return_states: bool = False,
        return_gates: Literal[True], generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]: ...  # fmt: skip

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        resets: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        return_states: bool = False,
        return_gates: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Run the layers; the class describes the arguments and results."""
        given = None if hx is None else (hx,)
        if return_states or return_gates:
            asked = Asked(resets, lengths, mask, generator)
            output, (h_n,), steps = beyond.run(self, input, given, self.reset_after, return_gates, asked)
            return output, h_n, steps
        output, (h_n,) = self._run(input, given, resets, lengths, mask, generator)
        return output, h_n

    def step(
        self, input: Tensor, hx: Tensor | None = None, *, resets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute one step of a stream, as a sequence of one step: ``output, h = gru.step(x, h)``.

        Args:
            input: ``[B, I]``, or ``[I]`` unbatched.
            hx: the states after the previous step, ``[L, B, H]`` or ``[L, H]``; None: the initial states.
            resets: bool ``[B]`` (``[]`` unbatched): True where this step begins a new sequence.

        Returns:
            the last layer's state ``[B, H]`` or ``[H]``, and all layers' states, shaped like ``hx``. The
            first may be a view of the second.

        Raises:
            RuntimeError: the layer is bidirectional, or a shape is wrong.
        """
        output, (h_n,) = self._run_step(input, None if hx is None else (hx,), resets)
        return output, h_n

    def trace(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        resets: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        retain_grad: bool = False,
    ) -> Trace:
        """Run like ``forward``, with the reference backend, and record all intermediate values of each step.

        Args:
            input, hx, resets, lengths, generator: as for ``forward``.
            mask: as for ``forward``; only the steps that take part are recorded, moved to the row's start.
            retain_grad: keep the gradient with respect to each intermediate value in a backward pass.

        Returns:
            a `Trace` with the outputs; ``trace[layer, direction]["update"]`` and so on are ``[T, B, H]``.

        Raises:
            RuntimeError, ValueError: as ``forward``; ValueError also with ``precision="bf16"``.
        """
        given = None if hx is None else (hx,)
        asked = Asked(resets, lengths, mask, generator)
        return beyond.trace(self, input, given, self.reset_after, retain_grad, asked)

    def _direction(
        self,
        input: Tensor,
        state: State,
        weights: Sequence[Tensor],
        reverse: bool,
        call: Call,
        variant: Variant,
    ) -> tuple[Tensor, State]:
        output, last = gru_sequence(
            input,
            state[0],
            *weights,
            lengths=call.lengths,
            resets=call.resets,
            reverse=reverse,
            reset_after=self.reset_after,
            recompute=self.recompute,
            backend=self.backend,
            variant=variant,
            precision=self.factors(),
        )
        return output, (last,)

    def _both(
        self, input: Tensor, state: State, weights: Sequence[Sequence[Tensor]], call: Call
    ) -> tuple[Tensor, State] | None:
        return gru_both(
            input,
            state[0],
            [(*given, *(None,) * (4 - len(given))) for given in weights],
            lengths=call.lengths,
            resets=call.resets,
            reset_after=self.reset_after,
            recompute=self.recompute,
            backend=self.backend,
            precision=self.factors(),
        )

    def _check_state(self, input: Tensor, state: State, batch_sizes: Tensor | None) -> None:
        self.check_input(input, batch_sizes)
        self.check_hidden_size(state[0], self.get_expected_hidden_size(input, batch_sizes))

    def _is_one_kernel(self) -> bool:
        return self.reset_after and super()._is_one_kernel()

    def _state_widths(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def _dimension_error(self, batched: bool, state: State) -> str:
        expected = (
            "For batched 3-D input, hx should also be 3-D"
            if batched
            else ("For unbatched 2-D input, hx should also be 2-D")
        )
        return f"{expected} but got {state[0].dim()}-D tensor"
