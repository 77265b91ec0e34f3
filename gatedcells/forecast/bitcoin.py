"""The second recipe: the close of a day from the closes of the 60 days before it.

As published for Keras: two recurrent layers of 50 and 100 units, dropout 0.2 after each, a linear layer;
RMSprop at 1e-3, mean squared error, 50 epochs of batches of 64; the close scaled to 0..1. The scale is
fitted on the training part alone. The bar is "tomorrow = today": the price is nearly a random walk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gatedcells.forecast.cells import recurrent_layer
from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.distributed import ALONE, Share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.prices import Prices
from gatedcells.forecast.scaling import MinMax
from gatedcells.forecast.training import epoch_order


@dataclass(frozen=True)
class BitcoinRecipe:
    """Settings.

    Attributes:
        cell: ``"gru"`` or ``"lstm"``.
        lookback_days: T, closes that a forecast reads.
        first_size, second_size: units of the two layers.
        dropout: after each of them.
        learning_rate: of RMSprop (decay 0.9, as Keras has it).
        batch_size, epochs: of training; each epoch visits the windows in a random order of its own.
        test_share: share of the windows, the last ones, that are not trained on.
    """

    cell: str = "gru"
    lookback_days: int = 60
    first_size: int = 50
    second_size: int = 100
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch_size: int = 64
    epochs: int = 50
    test_share: float = 0.1


class PriceNetwork(nn.Module):
    """``close = linear(drop(rnn(drop(rnn(window)))[-1]))``, in units of the scale."""

    def __init__(self, recipe: BitcoinRecipe) -> None:
        super().__init__()
        self.first = recurrent_layer(recipe.cell, 1, recipe.first_size, batch_first=True)
        self.second = recurrent_layer(recipe.cell, recipe.first_size, recipe.second_size, batch_first=True)
        self.dropout = nn.Dropout(recipe.dropout)
        self.head = nn.Linear(recipe.second_size, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """``[B, T, 1]`` to ``[B]``."""
        between, _ = self.first(windows)
        last, _ = self.second(self.dropout(between))
        return self.head(self.dropout(last[:, -1])).squeeze(-1)


def split(recipe: BitcoinRecipe, prices: Prices) -> int:
    """The position of the first test close: training sees nothing from there on.

    Raises:
        ForecastError: there are too few closes for a window on either side.
    """
    windows = len(prices.close) - recipe.lookback_days
    test = int(windows * recipe.test_share)
    if test < 1 or windows - test < 1:
        raise ForecastError(
            f"{prices.source}: {len(prices.close)} closes; expected more than {recipe.lookback_days}, and"
            f" enough for {recipe.test_share:.0%} of the windows to be tested on"
        )
    return len(prices.close) - test


class PriceForecaster:
    """A network with its scale.

    Args:
        recipe: its settings.
        scales: that of the close, by the name "close".

    Raises:
        ValueError: the scale is of other columns.
    """

    def __init__(self, recipe: BitcoinRecipe, scales: dict[str, MinMax]) -> None:
        self.recipe, self.scales = recipe, scales
        self.scale = scales["close"]
        if len(self.scale.low) != 1:
            raise ValueError("expected the scale of one column")
        self.network = PriceNetwork(recipe)

    @torch.no_grad()
    def forecast(self, close: FloatArray, positions: Sequence[int]) -> FloatArray:
        """The close at each position, from the closes before it."""
        self.network.eval()
        scaled = torch.from_numpy(self.scale.scale(close[:, None]).astype(np.float32))
        T = self.recipe.lookback_days
        windows = torch.stack([scaled[p - T : p] for p in positions])
        return self.scale.unscale(self.network(windows).double().numpy(), 0)


class PriceTask:
    """What training asks: see `gatedcells.forecast.training.Task`."""

    clip_norm: float | None = None

    def __init__(self, recipe: BitcoinRecipe, prices: Prices, seed: int) -> None:
        self.recipe, self._seed = recipe, seed
        end = split(recipe, prices)
        close = prices.close[:end]
        self.scales = {"close": MinMax.fit(close[:, None])}
        scaled = torch.from_numpy(self.scales["close"].scale(close[:, None]).astype(np.float32))
        T = recipe.lookback_days
        self._windows = scaled.unfold(0, T, 1)[: end - T].transpose(1, 2)  # [n, T, 1]
        self._targets = scaled[T:, 0]
        self._batches = -(-len(self._targets) // recipe.batch_size)
        self.steps = self._batches * recipe.epochs
        self.steps_per_epoch: float = self._batches
        self.settings = {"batch_size": recipe.batch_size}

    def to(self, device: torch.device) -> None:
        """Keep what batches are made of on a device."""
        self._windows, self._targets = self._windows.to(device), self._targets.to(device)

    def forecaster(self) -> PriceForecaster:
        """A new, untrained one."""
        return PriceForecaster(self.recipe, self.scales)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """RMSprop with Keras's constants."""
        return torch.optim.RMSprop(parameters, self.recipe.learning_rate, alpha=0.9, eps=1e-7)

    def learning_rate(self, step: int) -> float:
        """Constant."""
        return self.recipe.learning_rate

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, share: Share = ALONE) -> Tensor:
        """Mean squared error of one batch; the last one of an epoch may be smaller."""
        epoch, within = divmod(step, self._batches)
        order = epoch_order(len(self._targets), self._seed, epoch)
        chosen = order[within * self.recipe.batch_size : (within + 1) * self.recipe.batch_size]
        own = share.part(chosen).to(self._targets.device)
        error = nn.functional.mse_loss(network(self._windows[own]), self._targets[own], reduction="sum")
        return error * share.of / len(chosen)


@dataclass(frozen=True)
class PriceScores:
    """How far forecasts of the test days are off.

    Attributes:
        mae, rmse: in the file's currency.
        mape: mean absolute percentage error, %.
        mase: MAE over that of "tomorrow = today" on the same days; above 1 the forecast is worse than it.
        mae_to_day_before: MAE against the close of the day *before* the one that was forecast: where it is
            much the smaller one, the forecast follows the price a day late.
    """

    mae: float
    rmse: float
    mape: float
    mase: float
    mae_to_day_before: float

    @classmethod
    def of(cls, forecast: FloatArray, close: FloatArray, first: int) -> "PriceScores":
        """Score forecasts ``[n]`` of the closes from position ``first`` on."""
        actual, before = close[first:], close[first - 1 : -1]
        error = np.abs(forecast - actual)
        return cls(
            mae=float(error.mean()),
            rmse=float(np.sqrt((error**2).mean())),
            mape=float(100 * (error / actual).mean()),
            mase=float(error.mean() / np.abs(before - actual).mean()),
            mae_to_day_before=float(np.abs(forecast - before).mean()),
        )

    def to_json(self) -> dict[str, float]:
        """Plain numbers."""
        return {name: float(value) for name, value in vars(self).items()}


def verdict(name: str, scores: PriceScores, training_high: float, test_high: float) -> str:
    """What the comparison with "tomorrow = today" says, in a sentence or two."""
    if scores.mase < 1:
        said = (
            f"The {name}'s error is {100 * (1 - scores.mase):.0f}% smaller than that of 'tomorrow = today';"
            " with one short test part and one seed this may be chance."
        )
    else:
        times = f"{scores.mase:.1f} times"
        said = f"The naive 'tomorrow = today' is better: the {name}'s error is {times} as large."
    if scores.mae_to_day_before < scores.mae / 2:
        before, itself = f"{scores.mae_to_day_before:,.0f}", f"{scores.mae:,.0f}"
        said += (
            f" Its forecasts are much closer to the price of the day before (mean distance {before}) than to"
            f" that of the day itself ({itself}): its curve in the plot follows the price one day late."
        )
    if test_high > training_high:
        said += (
            f" The test days reach {test_high:,.0f}, the training part no more than {training_high:,.0f}:"
            " levels that the network has never seen."
        )
    return said
