"""A direct network fitted on a panel: split, scales, training, calibration, forecasts in the units given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from gatedcells.forecast.conformal import Margins, level_pairs
from gatedcells.forecast.data import FloatArray, IntArray, shown
from gatedcells.forecast.direct import DirectForecaster, DirectRecipe, DirectTask, InMemory, Sizes
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.grid import Grid
from gatedcells.forecast.panel import Panel, outliers
from gatedcells.forecast.panel_inputs import (
    Covariates,
    PanelInputs,
    fill_gaps,
    input_sizes,
    reach_back,
    seasons_of,
)
from gatedcells.forecast.progress import train_shown
from gatedcells.forecast.scaling import SeriesScales
from gatedcells.forecast.training import Progress

SCALINGS = ("auto", "log", "standard")
_WINDOWS_EACH = 1000  # of a series that calibrate at most, evenly spaced
_WINDOWS_ALL = 50_000


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
    """

    level: tuple[float, ...] = (80.0, 95.0)
    country: str = "none"
    identity: bool = True
    scaling: str = "auto"
    calibration: float = 0.1
    repair: bool = False
    seed: int = 0


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
        x = _in_units(panel, self.scales.log)
        scales = self.scales.take(np.maximum(numbers, 0))
        if len(strange):
            sizes = panel.sizes[strange]
            part = panel.select(strange, np.zeros_like(sizes), sizes, 0)
            fitted = SeriesScales.fit(_in_units(part, self.scales.log), part.offsets, self.scales.log)
            for name in ("level", "spread", "change"):
                getattr(scales, name)[strange] = getattr(fitted, name)
        return self._inputs(panel, x, scales, np.maximum(numbers, 0)), numbers

    def _inputs(self, panel: Panel, x: FloatArray, scales: SeriesScales, numbers: IntArray) -> PanelInputs:
        return PanelInputs(
            panel, x, scales, numbers, self.covariates,
            country=self.fit.country, horizon=self.recipe.horizon, reach=self.recipe.lookback,
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
        x = last[:, None, None] + moved * inputs.scales.spread[series][:, None, None]
        return np.exp(x) if self.scales.log else x


def check(recipe: DirectRecipe, fit: Fit) -> None:
    """Refuse settings that cannot be.

    Raises:
        ForecastError: says which.
    """
    q = recipe.quantiles
    if not q or any(not 0 < one < 1 for one in q) or list(q) != sorted(set(q)) or 0.5 not in q:
        raise ForecastError(f"quantiles must rise between 0 and 1 and have 0.5 among them, got {q}")
    for name in ("horizon", "lookback", "hidden_size", "width", "steps", "batch_size"):
        if getattr(recipe, name) < (2 if name == "lookback" else 1):
            raise ForecastError(f"{name} must be positive, got {getattr(recipe, name)}")
    if fit.scaling not in SCALINGS:
        raise ForecastError(f"scaling must be one of {', '.join(SCALINGS)}, got {fit.scaling!r}")
    if not 0 <= fit.calibration < 1:
        raise ForecastError(f"calibration is the share held out, from 0 to below 1, got {fit.calibration}")
    level_pairs(fit.level, q)


def fit_panel(
    panel: Panel,
    recipe: DirectRecipe,
    fit: Fit,
    console: Console,
    *,
    name: str,
    checkpoint: Path | None = None,
) -> tuple[PanelModel, Progress]:
    """Train and calibrate.

    Args:
        panel: all that may be known; the last share of each series calibrates.
        recipe, fit: how.
        console: shows the bar, where it is a terminal.
        name: what the bar calls it; checkpoint: file to go on from, if there is one.

    Raises:
        ForecastError: settings or series that do not fit.
        gatedcells.forecast.training.Interrupted: Ctrl-C.
    """
    check(recipe, fit)
    held = np.maximum((fit.calibration * panel.sizes).astype(np.int64), recipe.horizon)
    # too short to hold anything out: all of it is trained on
    held[(fit.calibration == 0) | (panel.sizes - held < 2 * recipe.horizon)] = 0
    ends = panel.sizes - held
    every = np.arange(len(panel.ids))
    part = panel.select(every, np.zeros_like(ends), ends, 0)
    if fit.repair:
        part = replace(part, y=np.where(outliers(part), np.nan, part.y))
    log = fit.scaling == "log" or (fit.scaling == "auto" and bool((panel.y[np.isfinite(panel.y)] > 0).all()))
    x = _in_units(part, log)
    scales = SeriesScales.fit(x, part.offsets, log)
    covariates = Covariates.fit(part)
    sizes = Sizes(
        *input_sizes(panel.grid, covariates, panel.known.shape[1], panel.past.shape[1]),
        len(panel.ids) if fit.identity else 0,
    )
    margins = Margins.none(len(panel.ids), len(fit.level), recipe.horizon)
    model = PanelModel(
        DirectForecaster(recipe, sizes), fit, panel.grid, panel.ids, scales, covariates, margins
    )
    task = DirectTask(recipe, sizes, InMemory(model._inputs(part, x, scales, every)))
    model.network, done = train_shown(task, name, console, seed=fit.seed, checkpoint=checkpoint)
    model.margins = _calibrated(model, panel, held)
    return model, done


def _calibrated(model: PanelModel, panel: Panel, held: IntArray) -> Margins:
    horizon = model.recipe.horizon
    each = max(min(_WINDOWS_EACH, _WINDOWS_ALL // len(panel.ids)), 1)
    origins: list[IntArray] = []
    for size, out in zip(panel.sizes, held, strict=True):
        room = np.arange(size - out, size - horizon + 1) if out else np.arange(0)
        spaced = np.linspace(0, len(room) - 1, min(each, len(room))).astype(np.int64)
        origins.append(room[spaced] if len(room) else room)
    series = np.repeat(np.arange(len(panel.ids)), [len(one) for one in origins])
    if not len(series) or not model.fit.level:
        return model.margins
    origin = np.concatenate(origins)
    inputs, _ = model.inputs(panel)
    quantiles, _ = model.network.quantiles(inputs, series, origin)
    actual, known = inputs.targets(series, origin[None])
    actual = np.where(known[0], actual[0], np.nan)
    return Margins.fit(quantiles, actual, series, len(panel.ids), model.fit.level, model.pairs)


def _in_units(panel: Panel, log: bool) -> FloatArray:
    """``[N]`` values without holes, in logarithms if asked.

    Raises:
        ForecastError: a value has no logarithm.
    """
    if log:
        low = panel.y <= 0
        if low.any():
            at = int(np.argmax(low))
            series = int(np.searchsorted(panel.offsets, at, side="right")) - 1
            raise ForecastError(
                f"{shown(panel.ids[series])} has the value {panel.y[at]:g}, which has no logarithm; fit with"
                " scaling='standard'"
            )
    return fill_gaps(np.log(panel.y) if log else panel.y, panel.offsets, seasons_of(panel.grid)[0])


def too_few(windows: int, levels: Sequence[float]) -> list[float]:
    """The levels that so many held-out windows are too few to calibrate: beyond the largest error seen
    nothing is known."""
    return [level for level in levels if windows and windows + 1 < 1 / (1 - level / 100)]
