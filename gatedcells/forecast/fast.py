"""The fast recipe: every hour of a chunk is supervised, and the network forecasts the change.

The article trains on one label for each window of 90 hours. Here a chunk of hours runs through the
network once and every step forecasts its hour (truncated backpropagation through time), so an epoch costs
about 1/90th. The target is the change in log load; lags, calendar and region are inputs; L1 loss in
relative error; AdamW with warm-up and cosine decay.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gatedcells.forecast.cells import State
from gatedcells.forecast.data import FloatArray, LoadSeries
from gatedcells.forecast.distributed import ALONE, Share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.features import FeatureTable, feature_table, input_names, input_size
from gatedcells.forecast.neighbours import Errors, Neighbours
from gatedcells.forecast.networks import change_network
from gatedcells.forecast.scaling import LogScale
from gatedcells.forecast.training import WarmedAdamW
from gatedcells.forecast.weighting import region_weights
from gatedcells.forecast.windows import Region

WARMUP_HOURS = 336  # before a stretch that is forecast, while the state forgets that it started at zero
_SPAN_HOURS = 720  # of the test part that are forecast side by side


def suited(recipe: FastRecipe, regions: Sequence[Region], *, fewer: bool) -> FastRecipe:
    """The recipe for regions to train on; ``fewer`` as for `FastRecipe.suited`."""
    hours, longest = sum(len(r.train) for r in regions), max(r.train_end for r in regions)
    return recipe.suited(hours, longest, fewer=fewer)


def table_of(
    recipe: FastRecipe,
    scales: dict[str, LogScale],
    series: LoadSeries,
    load_mw: FloatArray,
    first: int,
    end: int,
) -> FeatureTable:
    """Inputs of the steps ``first..end-1`` of one region."""
    return feature_table(
        series,
        load_mw,
        scales[series.region],
        np.arange(first, end),
        lags_hours=recipe.lags_hours,
        country=recipe.holidays,
        season=recipe.season,
        region=list(scales).index(series.region),
        regions=len(scales),
    )


class FastForecaster:
    """A network of the fast recipe with the scales of the regions it knows.

    Args:
        recipe: its settings.
        scales: by region, in the order in which the network numbers them.
    """

    def __init__(self, recipe: FastRecipe, scales: dict[str, LogScale]) -> None:
        self.recipe, self.scales = recipe, scales
        self.hours_needed = recipe.hours_needed  # the shortest history that a forecast can be made from
        self.neighbours: Neighbours | None = None
        self.network = change_network(
            recipe.cell,
            input_size(recipe.lags_hours, len(scales)),
            recipe.hidden_size,
            recipe.members,
            recipe.precision,
            recipe.head_size,
        )

    def forecast_test(self, regions: Sequence[Region], progress: Callable[[int], None]) -> list[FloatArray]:
        """Forecast every region's test targets, MW, each hour from those before it: stretches of the test
        part side by side, each with a state warmed up on the hours before it.

        Raises:
            ForecastError: neighbours were fitted on other regions than these.
        """
        if self.neighbours is not None:
            return self.forecast_test_twice(regions, progress)[0]
        found: list[FloatArray] = []
        for region in regions:
            logs = self._log_forecast(region, region.train_end)
            found.append(np.exp(logs[region.test - region.train_end]))
            progress(len(region.test))
        return found

    def fit_neighbours(self, regions: Sequence[Region], progress: Callable[[int], None]) -> None:
        """Learn from the training part's errors what the regions' last hours say of one another's next."""
        errors, _ = self._errors(regions, progress)
        ends = [errors.row(r.series.first_hour) + r.train_end for r in regions]
        self.neighbours = Neighbours.fit(errors, ends)

    def forecast_test_twice(
        self, regions: Sequence[Region], progress: Callable[[int], None]
    ) -> tuple[list[FloatArray], list[FloatArray]]:
        """`forecast_test` with the neighbours' correction and, from the same pass, without it, as
        `forecast_next` forecasts.

        Raises:
            ForecastError: there are no neighbours, or they were fitted on other regions than these.
        """
        neighbours, names = self.neighbours, tuple(region.name for region in regions)
        if neighbours is None:
            raise ForecastError("expected a network whose forecasts its neighbours' errors correct")
        if names != neighbours.regions:
            raise ForecastError(
                f"expected {', '.join(neighbours.regions)}, whose errors correct one another; got"
                f" {', '.join(names)}"
            )
        errors, logs = self._errors(regions, progress)
        found: list[FloatArray] = []
        alone: list[FloatArray] = []
        for column, region in enumerate(regions):
            rows = errors.row(region.series.first_hour) + region.test
            correction = neighbours.correction(errors, rows)[:, column]
            own = logs[column][region.test - len(region.load_mw)]
            found.append(np.exp(own + correction))
            alone.append(np.exp(own))
        return found, alone

    def _errors(
        self, regions: Sequence[Region], progress: Callable[[int], None]
    ) -> tuple[Errors, list[FloatArray]]:
        """Of all regions, training part and test part, but for the first weeks; and the logarithms of the
        forecasts, of each region those of its last hours."""
        errors: dict[str, tuple[pd.Timestamp, FloatArray]] = {}
        logs: list[FloatArray] = []
        for region in regions:
            first = min(WARMUP_HOURS, region.train_end)
            logs.append(self._log_forecast(region, first))
            error = np.log(region.load_mw[first:]) - logs[-1]
            error[~region.usable[first:]] = np.nan
            errors[region.name] = (region.series.first_hour + pd.Timedelta(hours=first), error)
            progress(len(region.test))
        return Errors.join(errors), logs

    @torch.no_grad()
    def _log_forecast(self, region: Region, first: int) -> FloatArray:
        """Logarithms of the forecasts of the positions from ``first`` to the end."""
        self.network.eval()
        end = len(region.load_mw)
        start = max(first - WARMUP_HOURS, 0)
        table = table_of(self.recipe, self.scales, region.series, region.load_mw, start, end)
        stretch = np.arange(first, end, _SPAN_HOURS)
        steps = stretch + np.arange(start - first, _SPAN_HOURS)[:, None]  # [T, B]
        rows = torch.from_numpy(np.minimum(steps, end - 1) - start)
        change = self.network(table.inputs(rows))[0].numpy()[first - start :]
        steps = steps[first - start :]
        by_position = np.empty(end - first)
        by_position[steps[steps < end] - first] = change[steps < end]
        before = np.log(region.load_mw[first - 1 : end - 1])
        return before + by_position * self.scales[region.name].change

    @torch.no_grad()
    def forecast_next(self, series: LoadSeries, load_mw: FloatArray, hours: int) -> FloatArray:
        """Forecast the ``hours`` after the end of a series, MW: the first from what is known, each further
        one from the forecasts before it as if they had come true.

        Raises:
            ForecastError: the series is shorter than the lags reach.
        """
        self.network.eval()
        end = len(load_mw)
        if end < self.hours_needed:
            needed = f"{self.hours_needed}, as far as the model looks back"
            raise ForecastError(f"{series.source}: {end} hours; expected at least {needed}")
        scale = self.scales[series.region]
        first = max(end - WARMUP_HOURS, 0)
        table = table_of(self.recipe, self.scales, series, load_mw, first, end + 1)
        change, state = self.network(table.inputs(torch.arange(end + 1 - first)[:, None]))
        load = load_mw
        while True:
            following = load[-1] * math.exp(float(change[-1, 0]) * scale.change)
            load = np.append(load, following)
            if len(load) == end + hours:
                return load[end:]
            table = table_of(self.recipe, self.scales, series, load, len(load), len(load) + 1)
            change, state = self.network(table.inputs(torch.zeros(1, 1, dtype=torch.int64)), state)

    @torch.no_grad()
    def day(self, series: LoadSeries, load_mw: FloatArray, end: int, hours: int = 24) -> tuple[Tensor, State]:
        """What the recurrent layer reads in the steps that forecast the ``hours`` positions before ``end``,
        ``[hours, 1, I]``, and the state that it comes with from the hours before them.

        Raises:
            ForecastError: there are not as many hours before ``end`` as that takes.
        """
        self.network.eval()
        first = end - hours
        if first < self.hours_needed:
            raise ForecastError(
                f"{series.source}: {first} hours before that day; expected at least {self.hours_needed}"
            )
        start = max(first - WARMUP_HOURS, 0)
        table = table_of(self.recipe, self.scales, series, load_mw, start, end)
        x = table.inputs(torch.arange(end - start)[:, None])
        _, state = self.rnn(x[: first - start])
        return x[first - start :], state

    @property
    def rnn(self) -> nn.Module:
        """The recurrent layer; of several networks that of the first."""
        return self.network.first.rnn

    @property
    def input_names(self) -> tuple[str, ...]:
        """What each of the layer's inputs is."""
        return input_names(self.recipe.lags_hours, list(self.scales))


class FastTask(WarmedAdamW):
    """What training asks of the fast recipe: a forecaster, an optimizer, and a loss for each step."""

    def __init__(self, recipe: FastRecipe, regions: Sequence[Region]) -> None:
        self.recipe: FastRecipe = recipe
        self.scales = {r.name: LogScale.fit(r.load_mw[: r.train_end]) for r in regions}
        self._table = FeatureTable.join(
            (table_of(recipe, self.scales, r.series, r.load_mw, 0, len(r.load_mw)) for r in regions),
            sum(len(r.load_mw) for r in regions),
        )
        changes = [np.diff(np.log(r.load_mw), prepend=np.log(r.load_mw[0])) for r in regions]
        self._change = torch.from_numpy(np.concatenate(changes).astype(np.float32))
        self._scale = torch.tensor([self.scales[r.name].change for r in regions])
        self._weight = region_weights(recipe.loss_in, regions)
        self._usable = torch.from_numpy(np.concatenate([r.usable for r in regions]))
        starts = [self._chunk_starts(r, o) for r, o in zip(regions, self._table.offsets, strict=True)]
        self._starts = torch.cat(starts)
        self.steps = recipe.steps
        self.settings = {"batch_size": recipe.batch_size, "season": recipe.season}
        # of all members' gradients together
        self.clip_norm: float | None = recipe.clip_norm * math.sqrt(recipe.members)
        supervised = recipe.batch_size * (recipe.chunk_hours - recipe.burn_in_hours)
        self.steps_per_epoch: float = sum(len(r.train) for r in regions) / supervised

    def to(self, device: torch.device) -> None:
        """Keep what batches are made of on a device."""
        self._table = self._table.to(device)
        self._change, self._scale = self._change.to(device), self._scale.to(device)
        self._weight, self._usable = self._weight.to(device), self._usable.to(device)

    def forecaster(self) -> FastForecaster:
        """A new, untrained one."""
        return FastForecaster(self.recipe, self.scales)

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, share: Share = ALONE) -> Tensor:
        """Mean relative error over the supervised hours of a batch of chunks, drawn with ``generator``."""
        recipe = self.recipe
        drawn = recipe.members * recipe.batch_size
        chosen = torch.randint(len(self._starts), (drawn,), generator=generator)
        every = self._starts[chosen] + torch.arange(recipe.chunk_hours)[:, None]  # [T, members · B]
        every = every.to(self._change.device)  # drawn on the CPU: the same batches on every device
        rows = torch.cat([share.part(own.T).T for own in every.split(recipe.batch_size, dim=1)], dim=1)
        change, _ = network(self._table.inputs(rows))
        supervised = rows[recipe.burn_in_hours :]
        region = self._table.region[supervised].long()
        # an error in log load is a relative error, whatever the size of the region
        error = (change[recipe.burn_in_hours :] * self._scale[region] - self._change[supervised]).abs()
        error = error * self._weight[region]
        usable = self._usable[supervised]
        counted = self._usable[every[recipe.burn_in_hours :]].sum().clamp(min=1)
        # the sum over members of each one's mean: they share nothing
        return (error * usable).sum() * recipe.members * share.of / counted

    def _chunk_starts(self, region: Region, offset: int) -> Tensor:
        """Rows of the table from which a whole chunk lies in the region's training part."""
        last = region.train_end - self.recipe.chunk_hours
        if last < 1:
            raise ForecastError(
                f"{region.series.source}: {region.train_end} hours to train on; expected more than the"
                f" {self.recipe.chunk_hours} of a chunk"
            )
        return torch.arange(offset + 1, offset + last + 1)
