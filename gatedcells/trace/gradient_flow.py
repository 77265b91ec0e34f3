"""The norm of a gradient on its way back through time, in networks without and with gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells.trace.record import STATES, DirectionTrace
from gatedcells.trace.recorder import Recorder

# The gate that multiplies a state on its direct path into the next one, and which state that is.
STRAIGHT = {"GRU": ("update", "hidden"), "LSTM": ("forget", "cell")}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


class Flow(NamedTuple):
    """One network's gradient norms, ``[T]`` each: Euclidean over the hidden units, mean over the rows.

    Attributes:
        kind: "RNN", "GRU" or "LSTM".
        norms: ``|dL/dh_t|`` at each t, by state ("hidden", for the LSTM also "cell").
        clipped: the same when the gradient of each state is clipped to norm ``clip`` on its way back.
        straight: what reaches t of the gradient at the last step through the direct path ``z ⊙ h`` (LSTM:
            ``f ⊙ c``) alone, bypassing all weights; None for a network without gates.
        of_weights: the norm of the gradient of all weights, without clipping.
        of_weights_clipped: the same with the states' gradients clipped.
    """

    kind: str
    norms: dict[str, Tensor]
    clipped: dict[str, Tensor]
    straight: Tensor | None
    of_weights: float
    of_weights_clipped: float


class GradientFlow(NamedTuple):
    """The result of `gradient_flow`; ``print`` it for a table.

    Attributes:
        flows: a `Flow` for each network, by name.
        clip: the norm to which gradients were clipped.
    """

    flows: dict[str, Flow]
    clip: float

    def __str__(self) -> str:
        """A table: |dL/dh_t| at the last, the middle and the first step; at the first step also clipped and
        on the direct path; and the gradient of the weights, plain and clipped."""
        T = len(next(iter(self.flows.values())).norms["hidden"])
        times = sorted({0, T // 2, T - 1}, reverse=True)
        columns = [f"t = {t}" for t in times] + ["clipped", "straight", "dL/dw", "clipped"]
        lines = [" " * 14 + "".join(f"{column:>12}" for column in columns)]
        for name, flow in self.flows.items():
            for state, norms in flow.norms.items():
                straight = flow.straight if STRAIGHT.get(flow.kind, ("", ""))[1] == state else None
                values = [float(norms[t]) for t in times] + [float(flow.clipped[state][0])]
                line = f"{f'{name} {state}':14}" + "".join(f"{value:>12.1e}" for value in values)
                line += " " * 12 if straight is None else f"{float(straight[0]):>12.1e}"
                if state == "hidden":
                    line += f"{flow.of_weights:>12.1e}{flow.of_weights_clipped:>12.1e}"
                lines.append(line.rstrip())
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Any:
        """Plot the norms over time: plain, clipped, and on the direct path.

        Args:
            path: the file to write, PNG, SVG or PDF by its extension (PNG without one); None: no file.

        Returns:
            a ``matplotlib.figure.Figure``.
        """
        from gatedcells.trace import plots  # numpy and matplotlib come with it

        return plots.gradient_flow(self, path)


def gradient_flow(
    input: Tensor,
    networks: Mapping[str, Any] | None = None,
    *,
    hidden_size: int = 32,
    gain: float = 1.0,
    gate_bias: float = 0.0,
    clip: float = 1.0,
    loss: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> GradientFlow:
    """Compare gradient norms over time in a plain RNN, a GRU and an LSTM that read the same input.

    In a plain RNN the gradient is multiplied by ``diag(1 − h²) U`` at every step, and so it vanishes or
    explodes (Bengio et al. 1994; Pascanu et al. 2013, arXiv:1211.5063). A GRU, ``h' = (1 − z) ⊙ n + z ⊙ h``,
    adds a direct path on which the gradient is multiplied by z alone (LSTM: by f).

    Args:
        input: ``[T, B, I]``.
        networks: `gatedcells.GRU` or `gatedcells.LSTM` layers by name; the forward direction of their last
            layer is examined. None: an RNN, a GRU and an LSTM of one layer with random weights.
        hidden_size: H of the random networks.
        gain: factor on the random recurrent weights; a large one makes the RNN's gradient explode.
        gate_bias: added to the random biases of the update gate (LSTM: forget gate); a large one opens the
            direct path.
        clip: the norm to which each row's gradient of each state is clipped for ``clipped``; ``inf``: none.
        loss: a function from the outputs ``[T, B, H]`` to a number. None: the last output's component along
            a fixed random direction of length 1, so every norm is 1 at the last step.
        seed: of the random weights and of that direction.

    Returns:
        a `GradientFlow`.

    Raises:
        ValueError: ``input`` is not ``[T, B, I]`` with T and B at least 1, or ``clip`` is not positive.
        TypeError: a network is not a `gatedcells.GRU` or `gatedcells.LSTM`.
    """
    if input.dim() != 3 or 0 in input.shape[:2]:
        raise ValueError(f"input must be [T, B, I] with T and B at least 1, got {list(input.shape)}")
    if not clip > 0:
        raise ValueError(f"clip must be greater than 0, got {clip}")
    for name, network in (networks or {}).items():
        if not hasattr(network, "trace") or getattr(network, "mode", None) not in STRAIGHT:
            torchs = isinstance(network, torch.nn.RNNBase) and not hasattr(network, "trace")
            hint = ": load its state_dict into one" if torchs else ""
            raise TypeError(f"{name} must be a gatedcells.GRU or LSTM, got {type(network).__name__}{hint}")
    runs = _drawn(input, hidden_size, gain, gate_bias, seed) if networks is None else _theirs(input, networks)
    flows: dict[str, Flow] = {}
    with torch.enable_grad():
        for name, run in runs.items():
            plain, cut = _same_masks(run, input, seed), _same_masks(run, input, seed)
            of_weights = _backward(plain, _default(plain, seed) if loss is None else loss(plain["hidden"]))
            _cut(cut, clip)
            of_cut = _backward(cut, _default(cut, seed) if loss is None else loss(cut["hidden"]))
            flows[name] = Flow(
                plain.kind, _norms(plain), _norms(cut, clip), _straight(plain), of_weights, of_cut
            )
    return GradientFlow(flows, clip)


def _drawn(
    input: Tensor, H: int, gain: float, gate_bias: float, seed: int
) -> dict[str, Callable[[], DirectionTrace]]:
    generator = torch.Generator("cpu").manual_seed(seed)
    I = input.shape[-1]

    def uniform(*shape: int) -> Tensor:
        drawn = torch.rand(*shape, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
        return (drawn / H**0.5).to(input)

    def run(kind: str, weights: list[Tensor]) -> DirectionTrace:
        state = tuple(input.new_zeros(input.shape[1], H) for _ in STATES[kind])
        return _recorded(kind, input, state, [weight.clone().requires_grad_() for weight in weights])

    runs: dict[str, Callable[[], DirectionTrace]] = {}
    for kind, G in _GATES.items():
        weights = [uniform(G * H, I), uniform(G * H, H) * gain, uniform(G * H), uniform(G * H)]
        weights[2][H : 2 * H] += (
            gate_bias  # second in the GRU's order and in the LSTM's; an RNN has no such rows
        )
        runs[kind] = lambda kind=kind, weights=weights: run(kind, weights)
    return runs


def _recorded(kind: str, input: Tensor, state: tuple[Tensor, ...], weights: list[Tensor]) -> DirectionTrace:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    recorder = Recorder(kind, names, reset_after=True, retain_grad=True)
    recorder.one(input, state, weights, False, None, None)
    return recorder.directions[0]


def _theirs(input: Tensor, networks: Mapping[str, Any]) -> dict[str, Callable[[], DirectionTrace]]:
    def run(network: Any) -> DirectionTrace:
        given = input.transpose(0, 1) if network.batch_first else input
        trace = network.trace(given.detach().requires_grad_(), retain_grad=True)
        return trace[trace.layers - 1]

    return {name: lambda network=network: run(network) for name, network in networks.items()}


def _same_masks(run: Callable[[], DirectionTrace], input: Tensor, seed: int) -> DirectionTrace:
    """A run of which a second one draws the same, where a network in training has dropout."""
    with torch.random.fork_rng(devices=[input.device] if input.is_cuda else []):
        torch.manual_seed(seed)
        return run()


def _default(d: DirectionTrace, seed: int) -> Tensor:
    last = d["hidden"][-1]
    generator = torch.Generator("cpu").manual_seed(seed)
    direction = torch.randn(last.shape[-1], generator=generator, device="cpu").to(last)
    return (last @ (direction / direction.norm())).sum()


def _cut(d: DirectionTrace, clip: float) -> None:
    """From here on gradients that reach a state are cut, row by row."""

    def hook(gradient: Tensor) -> Tensor:
        norm = gradient.norm(dim=-1, keepdim=True)
        return gradient * (clip / norm).clamp(max=1)

    for state in STATES[d.kind]:
        for value in d.values(state):
            value.register_hook(hook)


def _backward(d: DirectionTrace, loss: Tensor) -> float:
    """Send the loss back; the norm of the weights' gradient."""
    weights = [weight for weight in d.weights.values() if weight.requires_grad]
    kept = [value for state in STATES[d.kind] for value in d.values(state)]
    found = torch.autograd.grad(loss, [*weights, *kept], allow_unused=True)
    for value, gradient in zip(kept, found[len(weights) :], strict=True):
        value.grad = gradient
    given: list[Any] = list(found[: len(weights)])  # None where the loss does not depend on one
    squares = [g.double().square().sum() for g in given if g is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _norms(d: DirectionTrace, clip: float = float("inf")) -> dict[str, Tensor]:
    # gradients are handed out as they arrive at a state, before its hook cuts them
    return {
        state: d.gradient(state).double().norm(dim=-1).clamp(max=clip).mean(dim=-1)
        for state in STATES[d.kind]
    }


def _straight(d: DirectionTrace) -> Tensor | None:
    if d.kind not in STRAIGHT:
        return None
    gate, state = STRAIGHT[d.kind]
    left = [d.gradient(state)[-1].double()]
    for t in range(len(d) - 1, 0, -1):
        left.append(left[-1] * d[gate][t].detach().double())
    return torch.stack([value.norm(dim=-1).mean() for value in reversed(left)])
