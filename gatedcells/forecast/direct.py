"""A direct network of many steps and quantiles: at every step it forecasts all of the horizon at once.

A recurrent layer reads the past; its output at a step is a context for each step of the horizon, which meets
there the calendar, the covariates known in advance and the same place of seasons before (MQ-RNN: Wen,
Torkkola, Narayanaswamy & Madeka 2017, arXiv:1711.11053). It is trained on every step of a chunk with the
pinball loss.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from gatedcells.forecast.cells import recurrent_layer
from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.distributed import ALONE, Share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.panel_inputs import Batch, PanelInputs
from gatedcells.forecast.passes import within_passes
from gatedcells.forecast.training import DIGEST, WarmedAdamW

_IDENTITY = 8  # numbers that stand for a series
_WINDOWS = 256  # forecast side by side
_MOST_PASSES, _LEAST_BATCH, _FEWEST_STEPS = 8, 4, 100  # over short series


@dataclass(frozen=True)
class DirectRecipe:
    """Settings of the direct network.

    Attributes:
        cell: ``"gru"`` or ``"lstm"``.
        horizon: H, steps that are forecast at once.
        lookback: T, steps that the recurrent layer reads before a forecast; a training chunk is as long.
        quantiles: in rising order, 0.5 among them.
        hidden_size: of the recurrent layer.
        width: of the layer that each step of the horizon passes.
        steps: optimizer steps; batch_size: B, chunks a step.
        burn_in: first steps of a chunk that are not trained on, while the state warms up from zero.
        learning_rate, weight_decay, warmup_steps, clip_norm: of AdamW.
    """

    cell: str = "gru"
    horizon: int = 24
    lookback: int = 96
    quantiles: tuple[float, ...] = (0.025, 0.1, 0.5, 0.9, 0.975)
    hidden_size: int = 64
    width: int = 32
    steps: int = 1000
    batch_size: int = 16
    burn_in: int = 12
    learning_rate: float = 1e-2
    weight_decay: float = 0.05
    warmup_steps: int = 50
    clip_norm: float = 1.0

    @property
    def first_trained(self) -> int:
        """The step of a chunk from which on it is trained on."""
        return min(self.burn_in, self.lookback // 2)

    @property
    def windows_a_step(self) -> int:
        """How many places an optimizer step forecasts from."""
        return self.batch_size * (self.lookback - self.first_trained)

    def suited(self, windows: int) -> "DirectRecipe":
        """With smaller batches and fewer steps where there are few places to forecast from."""
        steps, batch_size = within_passes(
            self.steps, self.batch_size, chunks=windows / (self.lookback - self.first_trained),
            most_passes=_MOST_PASSES, least_batch=_LEAST_BATCH, fewest_steps=_FEWEST_STEPS,
        )  # fmt: skip
        return replace(self, steps=steps, batch_size=batch_size)


class Sizes(NamedTuple):
    """Of what a network reads: I inputs of the recurrent layer without the series' identity, F of a forecast
    step, L of its lags, and how many series it tells apart (0: none)."""

    inputs: int
    ahead: int
    lags: int
    series: int


class DirectNetwork(nn.Module):
    """``quantiles[p, k] = spread(W relu(C_k h[p] + A a[p+k] + S l[p, k]))``, with ``h = rnn(x)``, ``a`` what
    is known of the step forecast and ``l`` its place in seasons before. ``spread`` makes rising quantiles of
    any
    numbers: the median is one of them, plus what is linear in ``l``; each further quantile lies a softplus
    away from its neighbour."""

    def __init__(self, recipe: DirectRecipe, sizes: Sizes) -> None:
        super().__init__()
        self.horizon, self._median = recipe.horizon, recipe.quantiles.index(0.5)
        self.identity = nn.Embedding(sizes.series, _IDENTITY) if sizes.series else None
        own = _IDENTITY if sizes.series else 0
        self.rnn = recurrent_layer(recipe.cell, sizes.inputs + own, recipe.hidden_size)
        self.context = nn.Linear(recipe.hidden_size + own, recipe.horizon * recipe.width)
        self.ahead = nn.Linear(sizes.ahead, recipe.width, bias=False)
        self.lags = nn.Linear(sizes.lags, recipe.width, bias=False)
        self.out = nn.Linear(recipe.width, len(recipe.quantiles))
        self.straight = nn.Linear(sizes.lags, 1, bias=False)

    def forward(self, x: Tensor, series: Tensor, ahead: Tensor, lags: Tensor) -> Tensor:
        """A `Batch`'s tensors to ``[T', B, H, Q]``: how far quantiles lie from the last known value, in
        spreads of the series."""
        forecasts, many = lags.shape[:2]
        if self.identity is not None:
            own = self.identity(series).expand(len(x), -1, -1)
            x = torch.cat([x, own], dim=-1)
            hidden = torch.cat([self.rnn(x)[0][-forecasts:], own[-forecasts:]], dim=-1)
        else:
            hidden = self.rnn(x)[0][-forecasts:]
        context = self.context(hidden).view(forecasts, many, self.horizon, -1)
        # every step to come is read once and serves all steps that forecast it
        there = self.ahead(ahead).unfold(0, self.horizon, 1).transpose(2, 3)
        raw = self.out(relu(context + there + self.lags(lags)))
        return self._rising(raw, self.straight(lags))

    def _rising(self, raw: Tensor, straight: Tensor) -> Tensor:
        at = self._median
        median = raw[..., at : at + 1] + straight
        above = median + softplus(raw[..., at + 1 :]).cumsum(-1)
        below = median - softplus(raw[..., :at].flip(-1)).cumsum(-1).flip(-1)
        return torch.cat([below, median, above], dim=-1)


def pinball(quantiles: Tensor, forecast: Tensor, actual: Tensor) -> Tensor:
    """``max(τ (A − F), (τ − 1)(A − F))``, ``[..., Q]`` for actuals ``[...]`` (Koenker & Bassett 1978)."""
    above = actual.unsqueeze(-1) - forecast
    return torch.maximum(quantiles * above, (quantiles - 1) * above)


class DirectForecaster:
    """A direct network and its recipe; what training makes."""

    def __init__(self, recipe: DirectRecipe, sizes: Sizes) -> None:
        self.recipe, self.sizes = recipe, sizes
        self.network = DirectNetwork(recipe, sizes)

    @torch.no_grad()
    def quantiles(
        self, inputs: PanelInputs, series: IntArray, origins: IntArray, progress: Any = None
    ) -> tuple[FloatArray, FloatArray]:
        """Forecast from some places.

        Args:
            inputs: of a panel.
            series, origins: ``[W]`` local positions of the first step that each forecasts.
            progress: told how many windows are done, now and then.

        Returns:
            ``[W, H, Q]`` quantiles in spreads from the last known value, and ``[W]`` that value.
        """
        self.network.eval()
        found: list[Any] = [np.empty((0, self.recipe.horizon, len(self.recipe.quantiles)))]
        for start in range(0, len(series), _WINDOWS):
            own, origin = series[start : start + _WINDOWS], origins[start : start + _WINDOWS]
            steps = origin + np.arange(1 - self.recipe.lookback, 1)[:, None]
            batch = inputs.batch(own, steps, 1)
            found.append(_run(self.network, batch)[0].double().numpy())
            if progress is not None:
                progress(len(own))
        return np.concatenate(found), inputs.last(series, origins)


def _run(network: nn.Module, batch: Batch) -> Tensor:
    return network(batch.x, batch.series, batch.ahead, batch.lags)


class Chunks(Protocol):
    """Where training gets its series from: all of them, or a part at a time."""

    windows: int  # that one can forecast from, in all

    def at(self, step: int) -> PanelInputs:
        """Those that the training step draws from; the same for the same step."""
        ...


class DirectTask(WarmedAdamW):
    """What training asks of the direct network.

    Args:
        recipe: its settings.
        sizes: of what it reads.
        chunks: the series, up to where training may look.
        season: whether the day of the year is among what they read.
        digest: of the series and of how they are trained on, which a checkpoint has to have as well.

    Raises:
        ForecastError: no series is longer than the horizon.
    """

    def __init__(self, recipe: DirectRecipe, sizes: Sizes, chunks: Chunks, season: bool, digest: str) -> None:
        self.recipe: DirectRecipe = recipe
        self.sizes, self._chunks = sizes, chunks
        self.settings = {"batch_size": recipe.batch_size, "season": season, DIGEST: digest}
        self.steps = recipe.steps
        self.clip_norm: float | None = recipe.clip_norm
        self.steps_per_epoch: float = max(chunks.windows / recipe.windows_a_step, 1.0)
        self._quantiles = torch.tensor(recipe.quantiles)
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Batches are made on the CPU and moved to a device."""
        self._device = device
        self._quantiles = self._quantiles.to(device)

    def forecaster(self) -> DirectForecaster:
        """A new, untrained one."""
        return DirectForecaster(self.recipe, self.sizes)

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, share: Share = ALONE) -> Tensor:
        """Mean pinball loss over quantiles, horizon and supervised steps of a batch of chunks, in spreads."""
        inputs = self._chunks.at(step)
        series, steps = self._drawn(inputs, generator)
        late = steps[self.recipe.first_trained :]
        counted = max(int(inputs.targets(series, late)[1].sum()), 1)
        mine = share.part(torch.arange(len(series))).numpy()
        series, steps, late = series[mine], steps[:, mine], late[:, mine]
        target, known = inputs.targets(series, late)
        found = _run(network, inputs.batch(series, steps, len(late)).to(self._device))
        actual = torch.from_numpy(target.astype(np.float32)).to(self._device)
        lost = pinball(self._quantiles, found, actual).mean(-1)
        return (lost * torch.from_numpy(known).to(self._device)).sum() * share.of / counted

    def _drawn(self, inputs: PanelInputs, generator: torch.Generator) -> tuple[IntArray, IntArray]:
        """Chunks ``[B]`` from anywhere in the series, each with the horizon behind it where the series is
        that long; steps ``[T, B]``."""
        sizes = inputs.panel.sizes
        room = np.maximum(sizes - self.recipe.lookback - self.recipe.horizon + 1, 1)
        room[sizes <= self.recipe.horizon] = 0
        ends = np.cumsum(room)
        if ends[-1] == 0:
            raise ForecastError(
                f"the longest series has {int(sizes.max())} values to train on; expected more than the"
                f" horizon of {self.recipe.horizon}"
            )
        drawn = torch.randint(int(ends[-1]), (self.recipe.batch_size,), generator=generator).numpy()
        series = np.searchsorted(ends, drawn, side="right")
        first = drawn - (ends - room)[series] + 1
        return series, first + np.arange(self.recipe.lookback)[:, None]
