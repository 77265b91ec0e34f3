"""`GRU`, a drop-in for ``torch.nn.GRU``."""

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
    """A multi-layer gated recurrent unit, a drop-in for ``torch.nn.GRU``.

    Each layer and direction computes, for every step::

        r  = σ(W_ir x + b_ir + W_hr h + b_hr)              reset gate
        z  = σ(W_iz x + b_iz + W_hz h + b_hz)              update gate
        n  = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))     candidate
        h' = (1 − z) ⊙ n + z ⊙ h                           hidden state

    which is torch's and cuDNN's GRU (Cho et al. 2014, arXiv:1406.1078v1). With ``reset_after=False`` the
    reset gate acts on the state before the matrix product (arXiv:1406.1078v3)::

        n  = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn)

    Args:
        input_size: features of the input, I.
        hidden_size: hidden units, H.
        num_layers: stacked layers, L.
        bias: whether there are ``b_i`` and ``b_h``.
        batch_first: input and output are ``[B, T, ...]`` instead of ``[T, B, ...]``; states are not.
        dropout: probability of zeroing an output of every layer but the last, in training.
        bidirectional: add a second direction, D = 2.
        device, dtype: of the parameters.
        reset_after: where the reset gate acts, see above.
        backend: ``"auto"``, or the backend that must compute it (see `gatedcells.backends`).
        allow_empty: return the initial state for a sequence of no steps instead of raising.
        recompute: less memory in training for more time, see `gatedcells.layers.base`.
        init, t_max: how the parameters begin, see `gatedcells.layers.initial`.
        learn_h0: the initial states of calls that give none are parameters, see `gatedcells.layers.base`.
        precision: how float32 is multiplied, see `gatedcells.precision`.
        layer_norm, zoneout, recurrent_dropout, state_dropout, input_dropout, dropconnect: what the
            cell does beyond these lines, see `gatedcells.layers.options`; each off by default.
        proj_size: for the LSTM only; given here it raises ValueError, as in torch.

    Inputs: ``input, hx``
        input: ``[T, B, I]`` (``[B, T, I]`` with batch_first), ``[T, I]`` unbatched, or a PackedSequence.
        hx: initial state ``[L*D, B, H]``, ``[L*D, H]`` unbatched; zeros if None.
        resets (keyword): ``[T, B]`` bool, laid out like the input (``[T]`` unbatched): True where a new
            sequence begins, so that states before that step are forgotten, in both directions. The result is
            that of the sequences run one by one, the first of them from the initial states (in the reverse
            direction the last).
        lengths (keyword): ``[B]`` integers on the input's device, each row's number of steps, perhaps 0 (its
            last states are its initial ones). What the input holds beyond, NaN or not, is not read; outputs
            there are zeros, as ``pad_packed_sequence`` gives.
        mask (keyword): bool, laid out like ``resets``: False where a step takes no part, anywhere in a row.
            There the state is held and the output zero; all else is as if the step were not there.
        return_states, return_gates (keyword): return a third value, see below.
        generator (keyword): draws every random mask of this call; None: torch's own.

    Outputs: ``output, h_n``
        output: the last layer's states ``[T, B, D*H]``, laid out like the input; packed if that was.
        h_n: the last state of each layer and direction, ``[L*D, B, H]`` or ``[L*D, H]``.
        steps: with ``return_states`` a dict with "hidden", with ``return_gates`` also "reset", "update" and
            "candidate": ``[L*D, T, B, H]`` (``[L*D, B, T, H]`` with batch_first), zeros where no step takes
            part. Where gradients are on, the reference computes the gates, differentiable.

    Attributes:
        weight_ih_l{k}, weight_hh_l{k}: ``[3H, I or D*H]``, ``[3H, H]``, rows in the order r, z, n.
        bias_ih_l{k}, bias_hh_l{k}: ``[3H]``. The suffix ``_reverse`` marks the second direction.

    All parameters are drawn from U(−1/√H, 1/√H) in the order of torch's, so one seed gives the same
    weights, and ``state_dict``s go both ways.

    Raises:
        TypeError, ValueError, RuntimeError: as torch's, with its messages; `BackendUnavailable` (a
            RuntimeError) if an explicit backend cannot run.
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
        """torch's own, with what differs from torch's GRU if anything does."""
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
        """Run the layers; see the class for shapes and keywords."""
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
        """One step, for streams: ``output, h = gru.step(x, h)``, the same as a sequence of one step.

        Args:
            input: ``[B, I]``, or ``[I]`` unbatched.
            hx: ``[L, B, H]`` or ``[L, H]``, the states after the step before; None: zeros.
            resets: ``[B]`` bool (one, ``[]``, unbatched): True where this step begins a new sequence.

        Returns:
            the last layer's state ``[B, H]`` or ``[H]``, and all layers' states, shaped like ``hx``. The
            first may be a view of the second.

        Raises:
            RuntimeError: the layer is bidirectional, or a shape does not fit.
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
        """Run as ``forward`` does, by the reference, and keep every intermediate of every step.

        Args:
            input, hx, resets, lengths, generator: as for ``forward``.
            mask: as for ``forward``; what is kept are the steps that take part, from each row's front on.
            retain_grad: keep the gradient at each intermediate when something goes backward.

        Returns:
            a `Trace`: the outputs, and ``trace[layer, direction]["update"]`` and all others ``[T, B, H]``.

        Raises:
            RuntimeError, ValueError: as ``forward``; with ``precision="bf16"`` there is none.
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
