"""The next day of every region, forecast at once: the direct network, last week, yesterday, boosted trees.

All forecast the same hours from the same places in the regions' test parts, knowing nothing after them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.conformal import level_pairs
from gatedcells.forecast.data import FloatArray, IntArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.grid import HOUR_S, Grid
from gatedcells.forecast.metrics import (
    coverage,
    defined,
    mean_defined,
    naive_mae,
    pinball_loss,
    score_by_step,
)
from gatedcells.forecast.panel import Panel, offsets_of
from gatedcells.forecast.panel_inputs import PanelInputs
from gatedcells.forecast.panel_model import PanelModel
from gatedcells.forecast.trees import lightgbm_module, tree_settings
from gatedcells.forecast.windows import Region

_TREE_WINDOWS = 512  # whose columns are made together


def panel_of(regions: Sequence[Region]) -> Panel:
    """Regions as a panel: what the training part's repair took out, and what is missing, is NaN. The hours of
    all begin at one minute of UTC."""
    clock, phase_s = regions[0].series.clock, regions[0].series.phase_s
    later = 1 if clock.stamp == "ending" else 0
    begins = [int(np.argmax(region.usable)) for region in regions]
    values = [
        np.where(region.usable, region.load_mw, np.nan)[begin:]
        for region, begin in zip(regions, begins, strict=True)
    ]
    first = [
        int(region.series.first_hour.timestamp()) // HOUR_S + begin + later
        for region, begin in zip(regions, begins, strict=True)
    ]
    y = np.concatenate(values)
    return Panel(
        grid=Grid(HOUR_S, phase_s, False, clock),
        ids=tuple(region.name for region in regions),
        first=np.array(first),
        offsets=offsets_of([len(one) for one in values]),
        y=y,
        known=np.empty((len(y), 0)),
        ahead=0,
        past=np.empty((len(y), 0)),
        static={},
    )


def up_to_last_load(panel: Panel) -> Panel:
    """Of each series what there is up to its last known value."""
    seen = np.where(np.isnan(panel.y), -1, np.arange(len(panel.y)))
    ends = np.maximum.accumulate(seen)[panel.offsets[1:] - 1] + 1 - panel.offsets[:-1]
    return panel.up_to(ends)


def train_ends(regions: Sequence[Region]) -> IntArray:
    """Local positions in `panel_of` from which on the regions' test parts are."""
    return np.array([region.train_end - int(np.argmax(region.usable)) for region in regions])


@dataclass(frozen=True)
class Places:
    """From where is forecast: W places.

    Attributes:
        series: ``[W]`` numbers of the regions; origins: ``[W]`` local positions of the first hour forecast.
        actual: ``[W, H]`` what came, NaN where that is not known.
    """

    series: IntArray
    origins: IntArray
    actual: FloatArray

    @classmethod
    def of(cls, panel: Panel, ends: IntArray, horizon: int, every: int) -> "Places":
        """The places in the test parts at which the local hour divides by ``every`` (24: midnight) and after
        which there is a whole horizon.

        Raises:
            ForecastError: a region has none.
        """
        series: list[Any] = []
        origins: list[Any] = []
        for at, (end, size) in enumerate(zip(ends, panel.sizes, strict=True)):
            local = np.arange(end, size - horizon + 1)
            hours = panel.grid.local_starts(panel.first[at] + local).hour.to_numpy()
            chosen = local[hours % every == 0]
            if not len(chosen):
                raise ForecastError(
                    f"{panel.ids[at]}: {size - end} test hours; expected a whole {horizon} after a"
                    " place to forecast from"
                )
            series.append(np.full(len(chosen), at))
            origins.append(chosen)
        numbers, where = np.concatenate(series), np.concatenate(origins)
        rows = (panel.offsets[numbers] + where)[:, None] + np.arange(horizon)
        return cls(numbers, where, panel.y[rows])


def seasonal(inputs: PanelInputs, places: Places, period: int, log: bool) -> FloatArray:
    """``[W, H]``: the value a period before each hour, or as many periods as it takes to know it."""
    horizon = places.actual.shape[1]
    ahead = np.arange(horizon)
    back = period * -(-(ahead + 1) // period)
    local = np.maximum(places.origins[:, None] + ahead - back, 0)
    found = inputs.x[inputs.panel.offsets[places.series][:, None] + local]
    return np.exp(found) if log else found


class DirectTrees:
    """LightGBM, one model for all regions and hours of the horizon, whose number is one of its columns; the
    others are those that the network reads at the place and of the hour forecast, and the region.

    Args:
        trees: how many; rows: of pairs of a place and an hour ahead that it is fitted on, drawn from all.
        threads, seed: of LightGBM and of the draw.

    Raises:
        ForecastError: LightGBM is not installed.
    """

    def __init__(self, trees: int, *, rows: int = 1_000_000, threads: int = 1, seed: int = 0) -> None:
        self._lightgbm = lightgbm_module()
        self.trees, self.rows, self._threads, self._seed = trees, rows, threads, seed
        self.name = f"LightGBM, {trees} trees, {rows:,} rows"

    def forecast(
        self, inputs: PanelInputs, ends: IntArray, places: Places, log: bool, progress: Callable[[int], None]
    ) -> FloatArray:
        """Fit on the hours before ``ends``, and forecast ``[W, H]``.

        Args:
            inputs: of the whole panel; ends: of the parts trained on; places: to forecast from.
            log: whether values are in logarithms; progress: told the number of each tree.
        """
        horizon = places.actual.shape[1]
        generator = np.random.default_rng(self._seed)
        room = np.maximum(ends - horizon, 1)
        drawn = generator.integers(0, int(room.sum()), self.rows)
        series = np.searchsorted(np.cumsum(room), drawn, side="right")
        origins = drawn - (np.cumsum(room) - room)[series] + 1
        steps = generator.integers(0, horizon, self.rows)
        columns, target, known = self._table(inputs, series, origins, steps)
        known &= origins + steps < ends[series]
        data = self._lightgbm.Dataset(
            columns[known], target[known], weight=inputs.scales.spread[series][known],
            categorical_feature=[columns.shape[1] - 1], free_raw_data=True,
        )  # fmt: skip
        model = self._lightgbm.train(
            tree_settings(self._threads, self._seed), data, num_boost_round=self.trees,
            callbacks=[lambda now: progress(now.iteration + 1)],
        )  # fmt: skip
        found = np.empty(places.actual.shape)
        for step in range(horizon):
            same = np.full(len(places.series), step)
            columns, _, _ = self._table(inputs, places.series, places.origins, same)
            move = np.asarray(model.predict(columns, num_threads=self._threads))
            found[:, step] = move * inputs.scales.spread[places.series]
        found += inputs.last(places.series, places.origins)[:, None]
        return np.exp(found) if log else found

    @staticmethod
    def _table(
        inputs: PanelInputs, series: IntArray, origins: IntArray, steps: IntArray
    ) -> tuple[npt.NDArray[np.float32], FloatArray, npt.NDArray[np.bool_]]:
        """Columns ``[n, C]``, targets, and whether these are known, of n pairs of a place and a step."""
        tables: list[Any] = []
        targets: list[Any] = []
        known: list[Any] = []
        for start in range(0, len(series), _TREE_WINDOWS):
            own, at = series[start : start + _TREE_WINDOWS], origins[start : start + _TREE_WINDOWS]
            step, every = steps[start : start + _TREE_WINDOWS], np.arange(len(own))
            batch = inputs.batch(own, at[None], 1)
            there = batch.ahead[step, every].numpy()
            lags = batch.lags[0, every, step].numpy()
            beside = np.stack([step, own], axis=1).astype(np.float32)
            tables.append(np.concatenate([batch.x[0].numpy(), there, lags, beside], axis=1))
            move, has = inputs.targets(own, at[None])
            targets.append(move[0, every, step])
            known.append(has[0, every, step])
        return np.concatenate(tables), np.concatenate(targets), np.concatenate(known)


def scores(
    panel: Panel, ends: IntArray, places: Places, forecast: FloatArray, steps: Sequence[int]
) -> dict[str, Any]:
    """By region and step, and under ``"mean"`` over regions, each counting the same: sMAPE, MASE and the
    rest. A score that is not defined in a region is None, and not in the mean."""
    by_region: dict[str, Any] = {}
    for at, name in enumerate(panel.ids):
        own = places.series == at
        begin = panel.offsets[at]
        naive = naive_mae(panel.y[begin : begin + ends[at]])
        found = score_by_step(forecast[own], places.actual[own], naive, steps)
        by_region[str(name)] = {step: one.to_json() for step, one in found.items()}
    every = list(by_region.values())
    mean = {
        step: {score: defined(mean_defined([one[step][score] for one in every])) for score in every[0][step]}
        for step in every[0]
    }
    return by_region | {"mean": mean}


def interval_scores(
    model: PanelModel, panel: Panel, places: Places, quantiles: FloatArray
) -> dict[str, dict[str, float | None]]:
    """By region, and under ``"mean"``: pinball loss, mean over quantiles, and the coverage of each level;
    None as of `scores`."""
    found: dict[str, dict[str, float | None]] = {}
    q = model.recipe.quantiles
    for at, name in enumerate(panel.ids):
        own = places.series == at
        actual, forecast = places.actual[own], quantiles[own]
        losses = [pinball_loss(forecast[..., one], actual, quantile) for one, quantile in enumerate(q)]
        found[str(name)] = {"pinball": defined(float(np.mean(losses)))}
        for level, (low, high) in zip(model.fit.level, level_pairs(model.fit.level, q), strict=True):
            covered = coverage(forecast[..., low], forecast[..., high], actual)
            found[str(name)][f"coverage_{level:g}"] = defined(covered)
    names = next(iter(found.values()))
    return found | {"mean": {one: defined(mean_defined([r[one] for r in found.values()])) for one in names}}
