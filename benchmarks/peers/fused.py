"""Others' fused kernels on a GPU, one layer in one direction: TorchRL's in Triton, FlashRNN's in CUDA.

Neither is installed with gatedcells; ``--peer torchrl,flashrnn`` asks for them. Haste, the third that is
often named, is not here: its last release does not build with today's torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.registry import Unsupported


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of torch's layer, without the layer's number in their names."""
    return {name.removesuffix("_l0"): value for name, value in module.named_parameters()}


def run_torchrl(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """TorchRL's kernel on the numbers of torch's ``module``; yields ``[T, B, H]``.

    Raises:
        Unsupported: more than one layer or direction.
    """
    from torchrl.modules.tensordict_module import _rnn_triton

    p = _one_direction(module)
    T, B, H = *x.shape[:2], p["weight_hh"].shape[-1]
    by_row = x.transpose(0, 1).contiguous()
    zeros, fresh = x.new_zeros(B, T, H), torch.zeros(B, T, dtype=torch.bool, device=x.device)
    options: dict[str, Any] = {
        "compute_dtype": x.dtype,
        "input_precision": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
    }
    weights = (p["weight_ih"], p["weight_hh"], p["bias_ih"], p["bias_hh"])

    def gru() -> Tensor:
        return _rnn_triton.gru_triton(by_row, zeros, *weights, fresh, **options)[0].transpose(0, 1)

    def lstm() -> Tensor:
        return _rnn_triton.lstm_triton(by_row, zeros, zeros, *weights, fresh, **options)[0].transpose(0, 1)

    return gru if isinstance(module, nn.GRU) else lstm


def run_flashrnn(module: nn.Module, x: Tensor, backend: str | None = None) -> Callable[[], Tensor]:
    """FlashRNN on the numbers of torch's ``module``, with one head; yields ``[T, B, H]``.

    Args:
        module, x: the layer and its input.
        backend: one of FlashRNN's own; by default "cuda_fused", of which it makes "cuda" for a GRU.

    Raises:
        Unsupported: more than one layer or direction.
    """
    from flashrnn.flashrnn.flashrnn import flashrnn

    p = _one_direction(module)
    gru = isinstance(module, nn.GRU)
    H = p["weight_hh"].shape[-1]
    gates = p["weight_hh"].shape[0] // H
    function, kind = ("gru", "cuda") if gru else ("lstm", "cuda_fused")
    dtype = str(x.dtype).removeprefix("torch.")

    def run() -> Tensor:
        # its GRU has the hidden half of the candidate first, its input half last
        if gru:
            x_reset, x_update, x_candidate = p["bias_ih"].chunk(3)
            h_reset, h_update, h_candidate = p["bias_hh"].chunk(3)
            bias = torch.stack((h_candidate, x_reset + h_reset, x_update + h_update, x_candidate))[:, None]
            w_reset, w_update, w_candidate = p["weight_hh"].chunk(3)
            recurrent = torch.stack((w_candidate, w_reset, w_update))[:, None]
        else:
            bias = (p["bias_ih"] + p["bias_hh"]).view(4, 1, H)
            recurrent = p["weight_hh"].view(4, 1, H, H)
        projected = nn.functional.linear(x, p["weight_ih"]).unflatten(-1, (gates, 1, H)).transpose(0, 1)
        states, _ = flashrnn(
            projected.contiguous(), recurrent.contiguous(), bias.contiguous(), None,
            function=function, backend=backend or kind, dtype=dtype,
        )  # fmt: skip
        return states[0, :, :, 0].transpose(0, 1)

    return run


def _one_direction(module: nn.Module) -> dict[str, Tensor]:
    if getattr(module, "num_layers", 1) != 1 or getattr(module, "bidirectional", False):
        raise Unsupported("one layer in one direction only")
    return weights_of(module)


PEERS = {"torchrl": run_torchrl, "flashrnn": run_flashrnn}
