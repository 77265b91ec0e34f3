"""Between torch's `PackedSequence` and the padded ``[T, B, ...]`` with lengths that the cells take."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


class Packing(NamedTuple):
    """Where the steps of a packed batch lie in the padded one.

    Attributes:
        T, B: steps of the longest sequence; sequences.
        lengths: ``[B]``, descending, on the data's device; None if all are T.
        valid: ``[n]`` positions in ``T*B`` order of the n packed steps, on the data's device; None: all.
    """

    T: int
    B: int
    lengths: Tensor | None
    valid: Tensor | None

    @classmethod
    def of(cls, packed: PackedSequence) -> "Packing":
        """Read off ``packed.batch_sizes`` (on the CPU), ``[T]``: how many sequences reach each step."""
        batch_sizes = packed.batch_sizes
        T, B = len(batch_sizes), int(batch_sizes[0])
        if not torch.compiler.is_compiling() and len(packed.data) == T * B:
            return cls(T, B, None, None)
        reaches = torch.arange(B, device=batch_sizes.device) < batch_sizes[:, None]  # [T, B]
        device = packed.data.device
        return cls(T, B, reaches.sum(0).to(device), reaches.flatten().nonzero()[:, 0].to(device))

    def pad(self, data: Tensor) -> Tensor:
        """``[n, I]`` as ``[T, B, I]``, zeros beyond each sequence's end."""
        if self.valid is None:
            return data.unflatten(0, (self.T, self.B))
        rows = data.new_zeros(self.T * self.B, data.shape[-1])
        return rows.index_copy(0, self.valid, data).unflatten(0, (self.T, self.B))

    def pack(self, padded: Tensor) -> Tensor:
        """``[T, B, H]`` as ``[n, H]``."""
        if self.valid is None:
            return padded.flatten(0, 1).clone()  # no view: those cannot be detached in place
        return padded.flatten(0, 1).index_select(0, self.valid)
