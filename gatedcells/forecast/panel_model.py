"""A direct network fitted on a panel: split, scales, training, calibration, forecasts in the units given."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.conformal import Margins, level_pairs
from gatedcells.forecast.data import FloatArray, IntArray, shown
from gatedcells.forecast.direct import DirectForecaster, DirectRecipe
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.grid import Grid
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.panel_inputs import (
    Covariates,
    PanelInputs,
    fill_gaps,
    reach_back,
    seasons_of,
)
from gatedcells.forecast.scaling import SeriesScales


@dataclass(frozen=True)
class Fit:
    """How a panel is fitted, beside the network's recipe.

    Attributes:
        level: of the intervals, in %.
        country: whose holidays are inputs, or ``"none"``.
        identity: whether the network tells series apart.
        scaling: ``"log"``, ``"standard"``, or ``"auto"``: logarithms where every value is positive.
        calibration: share of every series, at its end, that is held out to calibrate intervals; 0 for none.
        repair: whether outliers of the part trained on count as missing.
        seed: of everything random.
        season: whether the day of the year is an input: where any series has a year to train on.
    """

    level: tuple[float, ...] = (80.0, 95.0)
    country: str = "none"
    identity: bool = True
    scaling: str = "auto"
    calibration: float = 0.1
    repair: bool = False
    seed: int = 0
    season: bool = True


@dataclass
class PanelModel:
    """What was fitted.

    Attributes:
        network: trained; fit: how.
        grid: of the series; ids: ``[S]`` those it was trained on.
        scales: ``[S]`` of them; covariates: as fitted; margins: of the intervals.
    """

    network: DirectForecaster
    fit: Fit
    grid: Grid
    ids: tuple[Any, ...]
    scales: SeriesScales
    covariates: Covariates
    margins: Margins

    @property
    def recipe(self) -> DirectRecipe:
        """Of the network."""
        return self.network.recipe

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Which quantiles bound each level."""
        return level_pairs(self.fit.level, self.recipe.quantiles)

    @property
    def reach(self) -> int:
        """How many values before its end a forecast depends on at most."""
        return reach_back(self.grid, self.recipe.lookback, self.recipe.horizon)

    @property
    def looks_back(self) -> int:
        """How many values before its end a forecast reads: of the recurrent layer, and the longer season."""
        return self.recipe.lookback + seasons_of(self.grid)[-1]

    def inputs(self, panel: Panel) -> tuple[PanelInputs, IntArray]:
        """What the network reads of a panel, and for each of its series the number among `ids`, or -1.

        Raises:
            ForecastError: a series that the network was not trained on, where it tells them apart; or a
                value that has no logarithm, where it was fitted on them.
        """
        known = {one: at for at, one in enumerate(self.ids)}
        numbers = np.array([known.get(one, -1) for one in panel.ids], dtype=np.int64)
        strange = np.flatnonzero(numbers < 0)
        if len(strange) and self.fit.identity:
            raise ForecastError(
                f"{shown(panel.ids[strange[0]])} is not one of the {len(self.ids)} series it was fitted on;"
                " fit with identity=False to forecast others"
            )
        x = in_units(panel, self.scales.log)
        scales = self.scales.take(np.maximum(numbers, 0))
        if len(strange):
            part = panel.only(strange)
            fitted = SeriesScales.fit(in_units(part, self.scales.log), part.offsets, self.scales.log)
            for name in ("level", "spread", "change"):
                getattr(scales, name)[strange] = getattr(fitted, name)
        return self.inputs_of(panel, x, scales, np.maximum(numbers, 0)), numbers

    def inputs_of(self, panel: Panel, x: FloatArray, scales: SeriesScales, numbers: IntArray) -> PanelInputs:
        """What the network reads of a panel with values ``x``, as of `PanelInputs`."""
        return PanelInputs(
            panel, x, scales, numbers, self.covariates, country=self.fit.country, season=self.fit.season,
            horizon=self.recipe.horizon, reach=self.recipe.lookback,
        )  # fmt: skip

    def forecast(
        self, panel: Panel, series: IntArray, origins: IntArray, progress: Any = None
    ) -> npt.NDArray[np.float64]:
        """``[W, H, Q]`` quantiles in the units of the values, with calibrated intervals.

        Args:
            panel: whose values before each origin are known.
            series, origins: ``[W]`` from where; a local position.
            progress: told the number of windows done, now and then.
        """
        inputs, numbers = self.inputs(panel)
        found, last = self.network.quantiles(inputs, series, origins, progress)
        moved = self.margins.move(found, numbers[series], self.pairs, self.recipe.quantiles.index(0.5))
        return self._in_their_units(inputs, series, moved, last)

    def follow(
        self, panel: Panel, series: IntArray, origins: IntArray, came: IntArray, progress: Any = None
    ) -> npt.NDArray[np.float64]:
        """Forecast windows that have come true, each with intervals as wide as those of its series that had
        ended before it taught, and keep what all of them taught; else as `forecast`.

        Args:
            panel, series, origins, progress: as of `forecast`.
            came: ``[W]`` values since the window of the series before.

        Raises:
            ForecastError: a series that the network was not trained on has no width of its own.
        """
        inputs, numbers = self.inputs(panel)
        strange = series[numbers[series] < 0]
        if len(strange):
            raise ForecastError(f"{shown(panel.ids[strange[0]])} is not one of the series it was fitted on")
        found, last = self.network.quantiles(inputs, series, origins, progress)
        actual, known = inputs.targets(series, origins[None])
        moved, self.margins = self.margins.follow(
            found, np.where(known[0], actual[0], np.nan), numbers[series], origins, came,
            self.fit.level, self.pairs, self.recipe.quantiles.index(0.5),
        )  # fmt: skip
        return self._in_their_units(inputs, series, moved, last)

    def _in_their_units(
        self, inputs: PanelInputs, series: IntArray, moved: FloatArray, last: FloatArray
    ) -> npt.NDArray[np.float64]:
        x = last[:, None, None] + moved * inputs.scales.spread[series][:, None, None]
        return np.exp(x) if self.scales.log else x


def in_units(panel: Panel, log: bool) -> FloatArray:
    """``[N]`` values without holes, in logarithms if asked.

    Raises:
        ForecastError: a value has no logarithm.
    """
    if log:
        low = panel.y <= 0
        if low.any():
            at = int(np.argmax(low))
            raise ForecastError(
                f"{shown(panel.ids[panel.series_at(at)])} has the value {panel.y[at]:g}, which has no"
                " logarithm; fit with scaling='standard'"
            )
    x = np.log(panel.y) if log else panel.y.copy()
    if log in panel.filled:
        x[np.isnan(x)] = panel.filled[log]
    return fill_gaps(x, panel.offsets, seasons_of(panel.grid)[0])
