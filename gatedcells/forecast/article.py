"""The article's recipe: one label for each window of 90 hours.

Gabriel Loye, "Gated Recurrent Unit (GRU) With PyTorch", FloydHub 2019: five inputs scaled to 0..1 (load,
hour, day of week, month, day of year), two layers of 256 units with dropout 0.2, ReLU and a linear layer
on the last output, mean squared error, Adam at 1e-3, batches of 1024, five epochs. Two things differ on
purpose: the state starts at zero for every batch (the article hands on that of other, shuffled windows),
and scales are fitted on the training part (the article fits on everything; ``scaled_on="all"`` does so).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gatedcells.forecast.calendar import Calendar
from gatedcells.forecast.cells import recurrent_layer
from gatedcells.forecast.data import FloatArray, LoadSeries
from gatedcells.forecast.distributed import ALONE, Share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.scaling import MinMax
from gatedcells.forecast.training import epoch_order
from gatedcells.forecast.windows import LOOKBACK, Region

_COLUMNS = 5
_LOAD = 0  # its column
_TEST_BATCH = 1024


@dataclass(frozen=True)
class ArticleRecipe:
    """Settings of the article's recipe.

    Attributes:
        cell: ``"gru"`` or ``"lstm"``.
        hidden_size, layers, dropout: of the network.
        learning_rate: of Adam.
        batch_size: windows a step; a last, smaller batch is dropped.
        epochs: passes over the training windows.
        fraction: share of the training windows that an epoch draws, for small machines.
        lookback_hours: T, length of a window.
        scaled_on: ``"train"``, or ``"all"`` to let the scales see the test part as the article does.
    """

    cell: str = "gru"
    hidden_size: int = 256
    layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch_size: int = 1024
    epochs: int = 5
    fraction: float = 1.0
    lookback_hours: int = LOOKBACK
    scaled_on: str = "train"

    @property
    def hours_needed(self) -> int:
        """How far back the inputs of a forecast reach."""
        return self.lookback_hours


class WindowNetwork(nn.Module):
    """``load[p] = linear(relu(rnn(window before p)[-1]))``, load in units of 0..1."""

    def __init__(self, recipe: ArticleRecipe) -> None:
        super().__init__()
        self.rnn = recurrent_layer(
            recipe.cell, _COLUMNS, recipe.hidden_size,
            num_layers=recipe.layers, dropout=recipe.dropout if recipe.layers > 1 else 0.0, batch_first=True,
        )  # fmt: skip
        self.head = nn.Linear(recipe.hidden_size, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """``[B, T, 5]`` to ``[B]``."""
        outputs, _ = self.rnn(windows)
        return self.head(torch.relu(outputs[:, -1])).squeeze(-1)


def columns(series: LoadSeries, load_mw: FloatArray) -> FloatArray:
    """``[n, 5]``: load, hour, day of week, month, day of year, of the file's own stamps."""
    calendar = Calendar.of(series.local_stamps(max(len(load_mw) - len(series.load_mw), 0)))
    named = (load_mw, calendar.hour, calendar.weekday, calendar.month, calendar.day_of_year)
    return np.stack(named, axis=1).astype(np.float64)


def scaled_columns(scale: MinMax, series: LoadSeries, load_mw: FloatArray) -> Tensor:
    """``[n, 5]`` float32: `columns` as the network reads them."""
    return torch.from_numpy(scale.scale(columns(series, load_mw)).astype(np.float32))


class ArticleForecaster:
    """A network of the article's recipe with the scales of the regions it was trained on.

    Args:
        recipe: its settings.
        scales: by region.

    Raises:
        ValueError: a scale is of other columns.
    """

    def __init__(self, recipe: ArticleRecipe, scales: dict[str, MinMax]) -> None:
        if any(len(scale.low) != _COLUMNS for scale in scales.values()):
            raise ValueError(f"expected scales of {_COLUMNS} columns")
        self.recipe, self.scales = recipe, scales
        self.network = WindowNetwork(recipe)

    @property
    def hours_needed(self) -> int:
        """The shortest history that a forecast can be made from."""
        return self.recipe.hours_needed

    @torch.no_grad()
    def forecast_test(self, regions: Sequence[Region], progress: Callable[[int], None]) -> list[FloatArray]:
        """Forecast every region's test targets, MW, each from the window before it."""
        self.network.eval()
        found: list[FloatArray] = []
        for region in regions:
            scale = self.scales[region.name]
            table = scaled_columns(scale, region.series, region.load_mw)
            windows = table.unfold(0, self.recipe.lookback_hours, 1)
            parts: list[Tensor] = []
            for batch in torch.from_numpy(region.test - self.recipe.lookback_hours).split(_TEST_BATCH):
                parts.append(self.network(windows[batch].transpose(1, 2)))
                progress(len(batch))
            found.append(scale.unscale(torch.cat(parts).double().numpy(), _LOAD))
        return found

    @torch.no_grad()
    def forecast_next(self, series: LoadSeries, load_mw: FloatArray, hours: int) -> FloatArray:
        """Forecast the ``hours`` after the end of a series, MW: the first from what is known, each further
        one from the forecasts before it as if they had come true.

        Raises:
            ForecastError: the series is shorter than a window.
        """
        self.network.eval()
        end = len(load_mw)
        if end < self.hours_needed:
            raise ForecastError(
                f"{series.source}: {end} hours; expected at least {self.hours_needed}, the model's window"
            )
        load, scale = load_mw, self.scales[series.region]
        for _ in range(hours):
            window = scaled_columns(scale, series, load)[-self.recipe.lookback_hours :]
            output = self.network(window[None]).double().numpy()
            load = np.append(load, scale.unscale(output, _LOAD))
        return load[end:]

    def day(
        self, series: LoadSeries, load_mw: FloatArray, end: int, hours: int | None = None
    ) -> tuple[Tensor, None]:
        """What the recurrent layer reads to forecast the position before ``end``: its window, ``[T, 1, 5]``;
        it comes with no state.

        Raises:
            ForecastError: there are not as many hours before ``end`` as a window has.
        """
        self.network.eval()
        first = end - 1 - self.recipe.lookback_hours
        if first < 0:
            raise ForecastError(
                f"{series.source}: {end - 1} hours before that hour; expected at least {self.hours_needed}"
            )
        return scaled_columns(self.scales[series.region], series, load_mw)[first : end - 1, None], None

    @property
    def rnn(self) -> nn.Module:
        """The recurrent layer."""
        return self.network.rnn

    @property
    def input_names(self) -> tuple[str, ...]:
        """What each of the layer's inputs is."""
        return ("load", "hour", "day of the week", "month", "day of the year")


class ArticleTask:
    """What training asks of the article's recipe: a forecaster, an optimizer, a loss for each step."""

    def __init__(self, recipe: ArticleRecipe, regions: Sequence[Region], seed: int = 0) -> None:
        self.recipe, self._seed = recipe, seed
        self.scales = {r.name: MinMax.fit(self._fitted_on(r)) for r in regions}
        table = torch.cat([scaled_columns(self.scales[r.name], r.series, r.load_mw) for r in regions])
        self._table = table
        offsets = np.concatenate([[0], np.cumsum([len(r.load_mw) for r in regions])[:-1]])
        targets = [r.train[r.usable[r.train]] + o for r, o in zip(regions, offsets, strict=True)]
        self._targets = torch.from_numpy(np.concatenate(targets))
        drawn = int(recipe.fraction * len(self._targets))
        if drawn < 1:
            raise ForecastError(f"a fraction of {recipe.fraction} leaves no training window")
        self._batch = min(recipe.batch_size, drawn)
        self._batches = drawn // self._batch
        self.steps_per_epoch: float = self._batches
        self.steps = self._batches * recipe.epochs
        self.clip_norm: float | None = None
        self.settings = {"batch_size": recipe.batch_size}
        self._shuffled: tuple[int, Tensor] | None = None

    def to(self, device: torch.device) -> None:
        """Keep what batches are made of on a device."""
        self._table = self._table.to(device)

    @property
    def _windows(self) -> Tensor:
        """Every window of every region, as one view: nothing is copied before a batch is drawn."""
        return self._table.unfold(0, self.recipe.lookback_hours, 1)

    @property
    def _load(self) -> Tensor:
        return self._table[:, _LOAD]

    def _fitted_on(self, region: Region) -> FloatArray:
        every = columns(region.series, region.load_mw)
        return every if self.recipe.scaled_on == "all" else every[: region.train_end]

    def forecaster(self) -> ArticleForecaster:
        """A new, untrained one."""
        return ArticleForecaster(self.recipe, self.scales)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam as the recipe sets it."""
        return torch.optim.Adam(parameters, self.recipe.learning_rate)

    def learning_rate(self, step: int) -> float:
        """Constant."""
        return self.recipe.learning_rate

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, share: Share = ALONE) -> Tensor:
        """Mean squared error of one batch of windows; an epoch visits them in a random order of its own."""
        epoch, within = divmod(step, self._batches)
        order = self._order(epoch)[within * self._batch : (within + 1) * self._batch]
        targets = self._targets[order]
        own = share.part(targets).to(self._table.device)
        windows = self._windows[own - self.recipe.lookback_hours].transpose(1, 2)
        error = torch.nn.functional.mse_loss(network(windows), self._load[own], reduction="sum")
        return error * share.of / len(targets)

    def _order(self, epoch: int) -> Tensor:
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = (epoch, epoch_order(len(self._targets), self._seed, epoch))
        return self._shuffled[1]
