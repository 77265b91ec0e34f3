"""`LSTMCell`, a drop-in replacement for ``torch.nn.LSTMCell``."""

from typing import Any

import torch
from torch import Tensor

from gatedcells.backends import AUTO
from gatedcells.cells.base import RecurrentCell
from gatedcells.functional import leaf
from gatedcells.functional.lstm import lstm_step


class LSTMCell(RecurrentCell):
    """One step of a long short-term memory (LSTM), a drop-in replacement for ``torch.nn.LSTMCell``::

        i  = σ(W_ii x + b_ii + W_hi h + b_hi)
        f  = σ(W_if x + b_if + W_hf h + b_hf)
        g  = tanh(W_ig x + b_ig + W_hg h + b_hg)
        o  = σ(W_io x + b_io + W_ho h + b_ho)
        c' = f ⊙ c + i ⊙ g
        h' = o ⊙ tanh(c')

    (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    Args:
        input_size: number of input features, I.
        hidden_size: number of hidden units, H.
        bias: whether there are biases ``b_i`` and ``b_h``.
        device, dtype: of the parameters.
        backend: ``"auto"``, or the backend that must be used (see `gatedcells.backends`).

    Inputs: ``input, (h, c)``
        input: ``[B, I]``, or ``[I]`` unbatched.
        (h, c): the states before the step, each ``[B, H]`` or ``[H]``; None: zeros.

    Output: the states after the step ``(h', c')``, each ``[B, H]`` or ``[H]``.

    Attributes:
        weight_ih, weight_hh: ``[4H, I]``, ``[4H, H]``, rows in the order i, f, g, o.
        bias_ih, bias_hh: ``[4H]``, or None.

    Raises:
        ValueError, RuntimeError: as torch's cell, with the same messages.
        BackendUnavailable: (a RuntimeError) the requested backend cannot run the call.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = AUTO,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype, backend=backend
        )

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Compute one step; the class describes the shapes."""
        if leaf.is_symbolic(input):
            return leaf.call(self, input, hx=hx)
        repeats = hx is not None and not torch.compiler.is_compiling()
        if repeats:
            assert hx is not None
            again = self._again.run(self.backend, input, (hx[0], hx[1]), self._parameters)
            if again is not None:
                return again[0], again[2]
        batched = self._batched(input, None if hx is None else (hx[0], hx[1]), ("hx[0]", "hx[1]"))
        if not batched:
            input = input.unsqueeze(0)
            hx = None if hx is None else (hx[0].unsqueeze(0), hx[1].unsqueeze(0))
        if hx is None:
            zeros = input.new_zeros(input.shape[0], self.hidden_size)
            hx = (zeros, zeros)
        hidden, cell = lstm_step(
            input,
            hx,
            self.weight_ih,
            self.weight_hh,
            self.bias_ih,
            self.bias_hh,
            backend=self.backend,
        )
        if repeats and batched and self._has_its_own_weights():
            self._again.remember("LSTM", "step", self.backend, (input, *hx), self._parameters)
        return (hidden, cell) if batched else (hidden.squeeze(0), cell.squeeze(0))
