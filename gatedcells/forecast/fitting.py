"""Fitting a direct network: split, scales, training, calibration; on a panel, or on more."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gatedcells.forecast.calendar import SEASON_HOURS
from gatedcells.forecast.conformal import Margins, level_pairs
from gatedcells.forecast.continuing import last_values
from gatedcells.forecast.covariates import CovariateMoments
from gatedcells.forecast.data import IntArray
from gatedcells.forecast.direct import DirectForecaster, DirectRecipe, DirectTask, Sizes
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fingerprint import Fingerprint
from gatedcells.forecast.grid import HOUR_S, Grid
from gatedcells.forecast.panel import Panel, outliers
from gatedcells.forecast.panel_inputs import PanelInputs, input_sizes, reach_back
from gatedcells.forecast.panel_model import Fit, PanelModel, in_units
from gatedcells.forecast.panel_store import Store, StoreChunks, joined
from gatedcells.forecast.progress import progress_bar, train_shown
from gatedcells.forecast.scaling import SeriesScales
from gatedcells.forecast.training import Progress

SCALINGS = ("auto", "log", "standard")
_WINDOWS_EACH = 1000  # of a series that calibrate at most, evenly spaced
_WINDOWS_ALL = 50_000


@dataclass(frozen=True)
class Fitted:
    """What fitting makes.

    Attributes:
        model: the fitted model; done: where its training stands.
        context: the ends of all series, as far back as forecasts depend on them.
    """

    model: PanelModel
    done: Progress
    context: Panel


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


def fit_store(
    store: Store, grid: Grid, recipe: DirectRecipe, fit: Fit, console: Console, *, name: str,
    checkpoint: Path | None = None, device: str = "cpu", fewer: bool = False,
) -> Fitted:  # fmt: skip
    """Train and calibrate.

    Args:
        store: all that may be known; the last share of each series calibrates.
        grid: of its series.
        recipe, fit: how.
        console: shows the bar, where it is a terminal.
        name: what the bar calls it; checkpoint: file to go on from, if there is one; device: to train on.
        fewer: whether few values take smaller batches and fewer steps than the recipe has.

    Raises:
        ForecastError: settings or series that do not fit.
        gatedcells.forecast.training.Interrupted: Ctrl-C.
    """
    check(recipe, fit)
    seen = _surveyed(store, recipe, fit, console)
    recipe = recipe.suited(seen.windows) if fewer else recipe
    fit = replace(fit, season=fit.season and seen.longest * grid.step_s >= SEASON_HOURS * HOUR_S)
    context = joined(seen.tails)
    covariates = seen.covariates.fitted()
    sizes = Sizes(
        *input_sizes(grid, covariates, context.known.shape[1], context.past.shape[1]),
        len(context.ids) if fit.identity else 0,
    )
    margins = Margins.none(len(context.ids), len(fit.level), recipe.horizon)
    model = PanelModel(
        DirectForecaster(recipe, sizes), fit, grid, context.ids, seen.scales, covariates, margins
    )

    def inputs(part: int) -> PanelInputs:
        panel, _ = _training_part(store.panel(part), recipe, fit)
        numbers = seen.begins[part] + np.arange(len(panel.ids))
        scales = seen.scales.take(numbers)
        return model.inputs_of(panel, in_units(panel, scales.log), scales, numbers)

    chunks = StoreChunks(store, inputs, seen.windows, recipe.windows_a_step, recipe.steps, fit.seed)
    task = DirectTask(recipe, sizes, chunks, fit.season, seen.fingerprint.of(recipe, fit))
    model.network, done = train_shown(
        task, name, console, seed=fit.seed, checkpoint=checkpoint, device=device
    )
    del task, chunks  # what training read, before calibration reads as much again
    model.margins = _calibrated(model, store, seen, console)
    return Fitted(model, done, context)


@dataclass
class _Survey:
    """What a first pass over all parts finds.

    Attributes:
        begins: ``[parts]`` the number of each one's first series.
        windows: steps to train on, in all; longest: of one series; held: ``[S]`` steps held out.
        scales: of all series; covariates: of all parts; tails: their ends.
        fingerprint: of all parts.
    """

    begins: list[int]
    windows: int
    longest: int
    held: IntArray
    scales: SeriesScales
    covariates: CovariateMoments
    tails: list[Panel]
    fingerprint: Fingerprint


def _surveyed(store: Store, recipe: DirectRecipe, fit: Fit, console: Console) -> _Survey:
    covariates, tails, fingerprint = CovariateMoments(), list[Panel](), Fingerprint()
    begins: list[int] = []
    held: list[IntArray] = []
    # in logarithms as long as every value is positive, and plain in case one will not be
    scales: dict[bool, list[SeriesScales]] = {True: [], False: []}
    log = fit.scaling != "standard"
    windows = series = longest = 0
    with progress_bar(console) as progress:
        bar = progress.add_task("reading", total=len(store), visible=len(store) > 1)
        for number in range(len(store)):
            panel = store.panel(number)
            part, out = _training_part(panel, recipe, fit)
            log = log and (fit.scaling == "log" or bool((panel.y[np.isfinite(panel.y)] > 0).all()))
            for logarithm in (True, False):
                if (logarithm and log) or (not logarithm and fit.scaling != "log"):
                    x = in_units(part, logarithm)
                    scales[logarithm].append(SeriesScales.fit(x, part.offsets, logarithm))
            fingerprint.add(panel)
            covariates.add(part)
            tails.append(last_values(panel, reach_back(panel.grid, recipe.lookback, recipe.horizon)))
            begins.append(series)
            held.append(out)
            series, windows = series + len(panel.ids), windows + len(part.y)
            longest = max(longest, int(part.sizes.max()))
            progress.advance(bar)
    scaled = SeriesScales.joined(scales[log])
    return _Survey(begins, windows, longest, np.concatenate(held), scaled, covariates, tails, fingerprint)


def _training_part(panel: Panel, recipe: DirectRecipe, fit: Fit) -> tuple[Panel, IntArray]:
    """What is trained on, and how many steps of each series are held out behind it."""
    held = np.maximum((fit.calibration * panel.sizes).astype(np.int64), recipe.horizon)
    # too short to hold anything out: all of it is trained on
    held[(fit.calibration == 0) | (panel.sizes - held < 2 * recipe.horizon)] = 0
    ends = panel.sizes - held
    part = panel.up_to(ends)
    if fit.repair:
        part = replace(part, y=np.where(outliers(part), np.nan, part.y))
    return part, held


def _calibrated(model: PanelModel, store: Store, seen: _Survey, console: Console) -> Margins:
    many, horizon = len(model.ids), model.recipe.horizon
    each = max(min(_WINDOWS_EACH, _WINDOWS_ALL // many), 1)
    found: list[Any] = []
    if not model.fit.level or not seen.held.any():
        return model.margins
    with progress_bar(console) as progress:
        bar = progress.add_task("calibrating", total=len(store), visible=len(store) > 1)
        for number, begin in enumerate(seen.begins):
            panel = store.panel(number)
            held = seen.held[begin : begin + len(panel.ids)]
            origins: list[IntArray] = []
            for size, out in zip(panel.sizes, held, strict=True):
                room = np.arange(size - out, size - horizon + 1) if out else np.arange(0)
                spaced = np.linspace(0, len(room) - 1, min(each, len(room))).astype(np.int64)
                origins.append(room[spaced])
            series = np.repeat(np.arange(len(panel.ids)), [len(one) for one in origins])
            origin = np.concatenate(origins)
            inputs, _ = model.inputs(panel)
            quantiles, _ = model.network.quantiles(inputs, series, origin)
            actual, known = inputs.targets(series, origin[None])
            found.append((quantiles, np.where(known[0], actual[0], np.nan), begin + series))
            progress.advance(bar)
    quantiles, actual, series = (np.concatenate([one[at] for one in found]) for at in range(3))
    return Margins.fit(quantiles, actual, series, many, model.fit.level, model.pairs)


def too_few(windows: int, fit: Fit) -> list[float]:
    """The levels that so many held-out windows are too few to calibrate: beyond the largest error seen
    nothing is known."""
    asked = fit.level if fit.calibration > 0 else ()
    return [level for level in asked if (windows + 1) * level / 100 > windows]
