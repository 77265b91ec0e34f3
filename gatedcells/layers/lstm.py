"""`LSTM`, a drop-in replacement for ``torch.nn.LSTM``."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gatedcells.backends import AUTO
from gatedcells.functional.both import lstm_both
from gatedcells.functional.lstm import lstm_sequence
from gatedcells.layers import beyond
from gatedcells.layers.base import RecurrentLayer
from gatedcells.layers.call import Asked, Call
from gatedcells.layers.initial import TORCH
from gatedcells.layers.options import checked
from gatedcells.layers.stack import State
from gatedcells.reference.variants import Variant
from gatedcells.trace.record import Trace


class LSTM(RecurrentLayer):
    """A multi-layer long short-term memory (LSTM), a drop-in replacement for ``torch.nn.LSTM``.

    At each step, each layer and direction computes::

        i  = σ(W_ii x + b_ii + W_hi h + b_hi)          input gate
        f  = σ(W_if x + b_if + W_hf h + b_hf)          forget gate
        g  = tanh(W_ig x + b_ig + W_hg h + b_hg)       candidate
        o  = σ(W_io x + b_io + W_ho h + b_ho)          output gate
        c' = f ⊙ c + i ⊙ g                             cell state
        h' = o ⊙ tanh(c')                              hidden state

    (Hochreiter & Schmidhuber 1997; Gers et al. 2000). With ``proj_size``, ``h' = W_hr (o ⊙ tanh(c'))``
    (Sak et al. 2014, arXiv:1402.1128).

    Args:
        input_size: number of input features, I.
        hidden_size: number of hidden units, H.
        num_layers: number of stacked layers, L.
        bias: whether there are biases ``b_i`` and ``b_h``.
        batch_first: input and output are ``[B, T, ...]`` instead of ``[T, B, ...]``; states are unaffected.
        dropout: in training, the probability of zeroing each output of every layer except the last.
        bidirectional: add a second direction, from the last step to the first (D = 2).
        proj_size: if positive, project the hidden state to P = proj_size < H units.
        device, dtype: of the parameters.
        backend, allow_empty, recompute, init, t_max, precision: as for `gatedcells.GRU`.
        learn_h0: make the initial states of calls without ``hx`` parameters: ``h_0`` ``[L*D, H or P]`` and
            ``c_0`` ``[L*D, H]``, at first zero. Such a layer does not take ``resets``.
        layer_norm, peephole, recurrent_dropout, state_dropout, input_dropout, dropconnect: variants of the
            cell, all off by default, see `gatedcells.layers.options.CellOptions`.
        zoneout: another variant, a probability or a pair ``(hidden, cell)`` of them.

    Inputs: ``input, (h_0, c_0)``
        input: ``[T, B, I]`` (``[B, T, I]`` with batch_first), ``[T, I]`` unbatched, or a PackedSequence.
        h_0, c_0: ``[L*D, B, H or P]``, ``[L*D, B, H]``, without B if unbatched; None: zeros, or those learnt.
        resets, lengths, mask, generator (keywords): as for `gatedcells.GRU`. ``resets``, bool ``[T, B]``, is
            True where a new sequence begins; ``lengths`` ``[B]`` are the rows' numbers of valid steps;
            ``mask``, bool ``[T, B]``, is False at steps to skip; ``generator`` draws all random masks.
        return_states, return_gates (keyword): also return ``steps``, see below; not with a PackedSequence.

    Outputs: ``output, (h_n, c_n)``, and ``steps`` if requested
        output: the last layer's hidden states ``[T, B, D*H or D*P]``, laid out or packed like the input.
        h_n, c_n: the last states of each layer and direction, shaped like h_0 and c_0.
        steps: a dict with "hidden" and "cell"; with ``return_gates`` also "input", "forget", "candidate" and
            "output". Each is ``[L*D, T, B, H]`` ("hidden": H or P; with batch_first ``[L*D, B, T, H]``), zero
            at steps that take no part. If a gradient is required, the reference backend computes them.

    Attributes:
        weight_ih_l{k}: ``[4H, I]``, for k > 0 ``[4H, D*H or D*P]``; weight_hh_l{k}: ``[4H, H or P]``. Rows in
            the order i, f, g, o.
        bias_ih_l{k}, bias_hh_l{k}: ``[4H]``; weight_hr_l{k}: ``[P, H]`` with a projection. The suffix
            ``_reverse`` marks the second direction.

    With ``init="torch"`` the parameters are drawn from U(−1/√H, 1/√H) in torch's order, so the same seed
    gives the same weights. State dicts are interchangeable with torch's.

    Raises:
        TypeError, ValueError, RuntimeError: as torch's layer, with the same messages.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = AUTO,
        allow_empty: bool = False,
        recompute: bool = False,
        init: str = TORCH,
        t_max: int | None = None,
        learn_h0: bool = False,
        layer_norm: bool = False,
        peephole: bool = False,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        state_dropout: float = 0.0,
        input_dropout: float = 0.0,
        dropconnect: float = 0.0,
        precision: str | None = None,
    ) -> None:
        options = checked(
            2,
            zoneout,
            layer_norm=layer_norm,
            peephole=peephole,
            recurrent_dropout=recurrent_dropout,
            state_dropout=state_dropout,
            input_dropout=input_dropout,
            dropconnect=dropconnect,
        )
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
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

    @overload
    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, resets: Tensor | None = None,
        lengths: Tensor | None = None, mask: Tensor | None = None, return_states: Literal[False] = False,
        return_gates: Literal[False] = False, generator: torch.Generator | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...  # fmt: skip

    @overload
    def forward(
        self,
        input: PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]: ...

    @overload
    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, resets: Tensor | None = None,
        lengths: Tensor | None = None, mask: Tensor | None = None, return_states: Literal[True],
        return_gates: bool = False, generator: torch.Generator | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], dict[str, Tensor]]: ...  # fmt: skip

    @overload
    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, resets: Tensor | None = None,
        lengths: Tensor | None = None, mask: Tensor | None = None, return_states: bool = False,
        return_gates: Literal[True], generator: torch.Generator | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], dict[str, Tensor]]: ...  # fmt: skip

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        resets: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        return_states: bool = False,
        return_gates: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Run the layers; the class describes the arguments and results."""
        given = None if hx is None else (hx[0], hx[1])
        if return_states or return_gates:
            asked = Asked(resets, lengths, mask, generator)
            output, (h_n, c_n), steps = beyond.run(self, input, given, True, return_gates, asked)
            return output, (h_n, c_n), steps
        output, (h_n, c_n) = self._run(input, given, resets, lengths, mask, generator)
        return output, (h_n, c_n)

    def step(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, resets: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Compute one step of a stream, as a sequence of one step: ``output, state = lstm.step(x, state)``.

        Args:
            input: ``[B, I]``, or ``[I]`` unbatched.
            hx: the states after the previous step, ``[L, B, H or P]`` and ``[L, B, H]`` (without B if
                unbatched); None: the initial states.
            resets: bool ``[B]`` (``[]`` unbatched): True where this step begins a new sequence.

        Returns:
            the last layer's hidden state ``[B, H or P]``, and all layers' states, shaped like ``hx``. The
            first may be a view of the second.

        Raises:
            RuntimeError: the layer is bidirectional, or a shape is wrong.
        """
        output, (h_n, c_n) = self._run_step(input, None if hx is None else (hx[0], hx[1]), resets)
        return output, (h_n, c_n)

    def trace(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
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
            a `Trace` with the outputs; ``trace[layer, direction]["forget"]`` and so on are ``[T, B, H]``.

        Raises:
            RuntimeError, ValueError: as ``forward``; ValueError also with ``precision="bf16"``.
        """
        given = None if hx is None else (hx[0], hx[1])
        asked = Asked(resets, lengths, mask, generator)
        return beyond.trace(self, input, given, True, retain_grad, asked)

    def _direction(
        self,
        input: Tensor,
        state: State,
        weights: Sequence[Tensor],
        reverse: bool,
        call: Call,
        variant: Variant,
    ) -> tuple[Tensor, State]:
        hidden, cell = state
        output, last = lstm_sequence(
            input,
            (hidden, cell),
            *self._arguments(weights),
            lengths=call.lengths,
            resets=call.resets,
            reverse=reverse,
            recompute=self.recompute,
            backend=self.backend,
            variant=variant,
            precision=self.factors(),
        )
        return output, last

    def _both(
        self, input: Tensor, state: State, weights: Sequence[Sequence[Tensor]], call: Call
    ) -> tuple[Tensor, State] | None:
        return lstm_both(
            input,
            (state[0], state[1]),
            [self._arguments(given) for given in weights],
            lengths=call.lengths,
            resets=call.resets,
            recompute=self.recompute,
            backend=self.backend,
            precision=self.factors(),
        )

    def _arguments(
        self, weights: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """A direction's weights in the order of `lstm_sequence`, None for those that it does not have."""
        weight_ih, weight_hh, *rest = weights
        weight_hr = rest.pop() if self.proj_size > 0 else None
        bias_ih, bias_hh = rest or (None, None)
        return weight_ih, weight_hh, bias_ih, bias_hh, weight_hr

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape that ``c_0`` must have, ``(L*D, B, H)``."""
        rows, B, _ = self.get_expected_hidden_size(input, batch_sizes)
        return rows, B, self.hidden_size

    def check_forward_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Tensor, hidden: tuple[Tensor, Tensor], batch_sizes: Tensor | None
    ) -> None:
        """Raise RuntimeError or ValueError unless input and states fit, as torch's LSTM does."""
        self.check_input(input, batch_sizes)
        expected = self.get_expected_hidden_size(input, batch_sizes)
        self.check_hidden_size(hidden[0], expected, "Expected hidden[0] size {}, got {}")
        expected = self.get_expected_cell_size(input, batch_sizes)
        self.check_hidden_size(hidden[1], expected, "Expected hidden[1] size {}, got {}")

    def permute_hidden(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hx: tuple[Tensor, Tensor], permutation: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both states with their batch reordered; unchanged if ``permutation`` is None."""
        if permutation is None:
            return hx
        return hx[0].index_select(1, permutation), hx[1].index_select(1, permutation)

    def _check_state(self, input: Tensor, state: State, batch_sizes: Tensor | None) -> None:
        self.check_forward_args(input, (state[0], state[1]), batch_sizes)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def _dimension_error(self, batched: bool, state: State) -> str:
        kind, dimensions = ("batched 3-D", 3) if batched else ("unbatched 2-D", 2)
        expected = f"For {kind} input, hx and cx should also be {dimensions}-D"
        return f"{expected} but got ({state[0].dim()}-D, {state[1].dim()}-D) tensors"
