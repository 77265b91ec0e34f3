"""Initialisation of a layer's parameters: ``init=`` of `gatedcells.GRU` and `gatedcells.LSTM`.

``"torch"`` (default)
    all from U(−1/√H, 1/√H); the same seed gives torch's values.
``"orthogonal"``
    each gate's block of weight_hh orthogonal (Saxe et al. 2014, arXiv:1312.6120), each gate's block of
    weight_ih from U(−a, a), a = √(6 / (I + H)) (Glorot & Bengio 2010), biases 0 except the LSTM's
    b_if = 1 (Keras' defaults, gate by gate); a projection as in torch.
``"forget"`` (LSTM only)
    as ``"torch"``, except for the forget gate's biases: b_if = 1, b_hf = 0 (Gers et al. 2000; Jozefowicz et
    al. 2015).
``"chrono"``
    as ``"torch"``, except for the biases of the gates that keep the state (Tallec & Ollivier 2018,
    arXiv:1804.11188). With u from U(1, t_max − 1) for each unit and t_max the longest expected dependency in
    steps: LSTM b_if = ln u and b_ii = −ln u; GRU b_iz = ln u (in torch's equations z keeps the state). The
    b_h of these gates are 0.

Parameters that torch does not have: gains of layer normalisation are initially 1, its shifts and learnt
initial states 0; peepholes are drawn from U(−1/√H, 1/√H).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gatedcells_kernels.tape import GRU_GATES, LSTM_GATES

if TYPE_CHECKING:
    from gatedcells.layers.base import RecurrentLayer

TORCH = "torch"
NAMES = {"GRU": (TORCH, "orthogonal", "chrono"), "LSTM": (TORCH, "orthogonal", "forget", "chrono")}


def check(mode: str, init: str, t_max: int | None, bias: bool) -> None:
    """Raise ValueError unless the cell ``mode`` can begin so."""
    if init not in NAMES[mode]:
        known = ", ".join(map(repr, NAMES[mode]))
        raise ValueError(f"init of the {mode} must be one of {known}, got {init!r}")
    if init in ("forget", "chrono") and not bias:
        raise ValueError(f"init={init!r} sets biases, so it needs bias=True, got bias=False")
    if (init == "chrono") != (t_max is not None):
        asked = "needs t_max, the longest dependency in steps" if init == "chrono" else "takes no t_max"
        raise ValueError(f"init={init!r} {asked}, got t_max={t_max}")
    if t_max is not None and t_max < 2:
        raise ValueError(f"t_max must be at least 2 steps, got {t_max}")


@torch.no_grad()
def reset(layer: "RecurrentLayer") -> None:
    """Set what does not begin as torch's parameters do, which have been drawn before."""
    gates = LSTM_GATES if layer.mode == "LSTM" else GRU_GATES
    for names in layer._all_weights:
        weights = {name.split("_l")[0]: getattr(layer, name) for name in names}
        _begin(layer.init, gates, weights, layer.t_max)
    for name, parameter in layer.named_parameters(recurse=False):
        if name.startswith(("h_0", "c_0", "norm_cell_shift")):
            parameter.zero_()
        elif name.startswith("norm_"):
            parameter.fill_(1)
        elif name.startswith("peephole"):
            nn.init.uniform_(parameter, -1 / layer.hidden_size**0.5, 1 / layer.hidden_size**0.5)


def _begin(init: str, gates: tuple[str, ...], weights: dict[str, Tensor], t_max: int | None) -> None:
    biases = [weights[name].chunk(len(gates)) for name in ("bias_ih", "bias_hh") if name in weights]
    if init == "orthogonal":
        for block in weights["weight_hh"].chunk(len(gates)):
            # decomposed in float32 where torch has no decomposition of a dtype
            wide = torch.float64 if block.dtype == torch.float64 else torch.float32
            block.copy_(nn.init.orthogonal_(torch.empty_like(block, dtype=wide)))
        for block in weights["weight_ih"].chunk(len(gates)):
            nn.init.xavier_uniform_(block)
        for bias in biases:
            for block in bias:
                block.zero_()
    if not biases or init == TORCH:
        return
    input_half, hidden_half = (dict(zip(gates, blocks, strict=True)) for blocks in biases)
    if init == "chrono":
        keeps = "forget" if "forget" in gates else "update"
        lags = torch.empty_like(input_half[keeps]).uniform_(1, max(1, (t_max or 2) - 1)).log_()
        changed = {keeps: lags} | ({"input": -lags} if "input" in gates else {})
        for gate, values in changed.items():
            input_half[gate].copy_(values)
            hidden_half[gate].zero_()
    elif "forget" in gates:
        input_half["forget"].fill_(1)
        hidden_half["forget"].zero_()
