"""The base of `gatedcells.GRUCell` and `gatedcells.LSTMCell`: torch's contract for a single step."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gatedcells import _ops
from gatedcells.backends import AUTO, check_name
from gatedcells.functional.again import Again


class RecurrentCell(nn.RNNCellBase):
    """One gated step; the base class of `gatedcells.GRUCell` and `gatedcells.LSTMCell`."""

    backend: str
    _again: Again

    def __init__(self, *args: Any, backend: str = AUTO, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = check_name(backend)
        self._again = Again()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        _ops.forget(self.parameters())  # torch swaps no weights that anybody refers to weakly
        return super()._apply(fn, recurse)

    def _has_its_own_weights(self) -> bool:
        """Whether the registered parameters are what the cell computes with: not under a parametrization."""
        return list(self._parameters) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]

    def extra_repr(self) -> str:
        """torch's, followed by the options that differ from the defaults."""
        return super().extra_repr() + ("" if self.backend == AUTO else f", backend={self.backend!r}")

    def _batched(self, input: Tensor, states: tuple[Tensor, ...] | None, names: tuple[str, ...]) -> bool:
        """Check dimensions and sizes with torch's messages; return whether ``input`` has a batch.

        ``names`` are torch's names of the states in the message on their dimensions.
        """
        kind = type(self).__name__
        given = states or ()
        if input.dim() not in (1, 2):
            raise ValueError(f"{kind}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for which, state in enumerate(given):
            if state.dim() not in (1, 2):
                raise ValueError(
                    f"{kind}: Expected {names[which]} to be 1D or 2D, got {state.dim()}D instead"
                )
        batched = input.dim() == 2
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.shape[-1]} expected {self.input_size}"
            )
        for which, state in enumerate(given):
            if state.dim() != input.dim():
                raise RuntimeError(
                    f"For {'batched 2-D' if batched else 'unbatched 1-D'} input, {names[which]} should also"
                    f" be {input.dim()}-D but got {state.dim()}-D tensor"
                )
            if state.shape[-1] != self.hidden_size:
                raise RuntimeError(
                    f"hidden{which} has inconsistent hidden_size:"
                    f" got {state.shape[-1]}, expected {self.hidden_size}"
                )
            if batched and state.shape[0] != input.shape[0]:
                raise RuntimeError(
                    f"Input batch size {input.shape[0]} doesn't match hidden{which} batch size"
                    f" {state.shape[0]}"
                )
        return batched
