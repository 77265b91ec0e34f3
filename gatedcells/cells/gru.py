"""`GRUCell`, a drop-in replacement for ``torch.nn.GRUCell``."""

from typing import Any

import torch
from torch import Tensor

from gatedcells.backends import AUTO
from gatedcells.cells.base import RecurrentCell
from gatedcells.functional import leaf
from gatedcells.functional.gru import gru_step


class GRUCell(RecurrentCell):
    """One step of a gated recurrent unit (GRU), a drop-in replacement for ``torch.nn.GRUCell``::

        r  = σ(W_ir x + b_ir + W_hr h + b_hr)
        z  = σ(W_iz x + b_iz + W_hz h + b_hz)
        n  = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
        h' = (1 − z) ⊙ n + z ⊙ h

    (Cho et al. 2014, arXiv:1406.1078v1). With ``reset_after=False`` the reset gate acts on the state before
    the matrix product, ``n = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn)`` (arXiv:1406.1078v3).

    Args:
        input_size: number of input features, I.
        hidden_size: number of hidden units, H.
        bias: whether there are biases ``b_i`` and ``b_h``.
        device, dtype: of the parameters.
        reset_after: where the reset gate acts, see above.
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).

    Inputs: ``input, hx``
        input: ``[B, I]``, or ``[I]`` unbatched.
        hx: the state before the step, ``[B, H]`` or ``[H]``; None: zeros.

    Output: the state after the step, ``[B, H]`` or ``[H]``.

    Attributes:
        weight_ih, weight_hh: ``[3H, I]``, ``[3H, H]``, rows in the order r, z, n.
        bias_ih, bias_hh: ``[3H]``, or None.

    Raises:
        ValueError, RuntimeError: as torch's cell, with the same messages.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
    """

    reset_after: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        reset_after: bool = True,
        backend: str = AUTO,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype, backend=backend
        )
        self.reset_after = reset_after

    def extra_repr(self) -> str:
        """torch's, followed by the options that differ from the defaults."""
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Compute one step; the class describes the shapes."""
        if leaf.is_symbolic(input):
            return leaf.call(self, input, hx=hx)
        repeats = hx is not None and self.reset_after and not torch.compiler.is_compiling()
        if repeats:
            assert hx is not None
            again = self._again.run(self.backend, input, (hx,), self._parameters)
            if again is not None:
                return again[0]
        batched = self._batched(input, None if hx is None else (hx,), ("hidden",))
        if not batched:
            input = input.unsqueeze(0)
            hx = None if hx is None else hx.unsqueeze(0)
        if hx is None:
            hx = input.new_zeros(input.shape[0], self.hidden_size)
        new = gru_step(
            input,
            hx,
            self.weight_ih,
            self.weight_hh,
            self.bias_ih,
            self.bias_hh,
            reset_after=self.reset_after,
            backend=self.backend,
        )
        if repeats and batched and self._has_its_own_weights():
            self._again.remember("GRU", "step", self.backend, (input, hx), self._parameters)
        return new if batched else new.squeeze(0)
