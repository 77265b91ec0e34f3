"""From frames to panels, and forecasts from several places in them, each knowing only what is before it."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console

from gatedcells.forecast.answers import forecast_frame
from gatedcells.forecast.continuing import come_true, continued, last_values, missing_between
from gatedcells.forecast.csv_text import named
from gatedcells.forecast.data import shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.forecaster_parameters import whole
from gatedcells.forecast.frames import Names, Style, read_frame
from gatedcells.forecast.panel import Panel, build_panel
from gatedcells.forecast.panel_model import PanelModel
from gatedcells.forecast.panel_report import FramePolicy, FrameReport
from gatedcells.forecast.placement import going_on, placed, positions_of
from gatedcells.forecast.progress import reading


class Fitting(Protocol):
    """A forecaster, as far as it is needed here."""

    horizon: int
    freq: str | None
    tz: str | None
    stamp: str
    threads: int | None
    verbose: bool
    model_: PanelModel

    def checked(self) -> tuple[FramePolicy, Names]:
        """Policies and names."""
        ...

    def get_params(self) -> dict[str, Any]:
        """All parameters."""
        ...

    def fit_laid_out(self, panel: Panel, style: Style, report: FrameReport) -> None:
        """Train."""
        ...


@contextmanager
def threads_set(threads: int | None) -> Generator[None]:
    """Within the block torch computes with so many threads; None leaves it alone."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def laid_out(forecaster: Fitting, frame: Any) -> tuple[Panel, Style, FrameReport]:
    """A frame on the grid that its stamps make, with what was found in it.

    Raises:
        ForecastError: as the parts say.
    """
    policy, names = forecaster.checked()
    with named(frame), reading(Console(quiet=not forecaster.verbose), frame):
        rows = read_frame(frame, names, covariates=(*names.known, *names.past))
        grid, positions = placed(rows, freq=forecaster.freq, tz=forecaster.tz, stamp=forecaster.stamp)
        panel, report = build_panel(rows, names, grid, positions, policy)
    return panel, rows.style, report


def laid_out_as(
    model: PanelModel, names: Names, policy: FramePolicy, frame: Any, known: Panel | None = None
) -> tuple[Panel, Style, FrameReport]:
    """A frame on the grid of a fitted model, and what was found in it; ``known`` is what it goes on from.

    Raises:
        ForecastError: as the parts say.
    """
    # a file that has some of the series alone may have whole numbers alone
    of_text = isinstance(model.ids[0], str)
    with named(frame):
        rows = read_frame(frame, names, covariates=(*names.known, *names.past), text_ids=of_text)
        if known is None:
            positions = positions_of(rows, model.grid)
        else:
            ends = known.first + known.sizes
            positions = going_on(rows, model.grid, dict(zip(known.ids, ends.tolist(), strict=True)))
        panel, report = build_panel(rows, names, model.grid, positions, policy)
    return panel, rows.style, report


def gone_on(
    model: PanelModel, known: Panel, names: Names, policy: FramePolicy, frame: Any
) -> tuple[Panel, Style]:
    """See `Forecaster.update`: what is known then, as far back as forecasts depend on it."""
    given, style, report = laid_out_as(model, names, policy, frame, known)
    panel = continued(known, given)
    missing = missing_between(known, given, policy.on_gap)
    replace(report, absent=report.absent + missing).warn()
    model.follow(panel, *come_true(known, panel, model.recipe.horizon, model.ids))
    return last_values(panel, model.reach), style


def steps_ahead(h: Any, horizon: int) -> int:
    """``h``, or all of the horizon.

    Raises:
        ForecastError: it is no whole number, or more than that.
    """
    if h is None:
        return horizon
    h = whole("h", h)
    if not 1 <= h <= horizon:
        raise ForecastError(
            f"h is {h}; this forecaster forecasts from 1 to {horizon} steps (fit one with"
            f" horizon={h} for more)"
        )
    return h


def cross_validated(
    forecaster: Fitting, frame: Any, n_windows: int, step_size: int, h: int, refit: bool
) -> Any:
    """See `Forecaster.cross_validation`."""
    if n_windows < 1 or step_size < 1:
        raise ForecastError(f"n_windows and step_size must be positive, got {n_windows} and {step_size}")
    panel, style, report = laid_out(forecaster, frame)
    back = h + step_size * np.arange(n_windows - 1, -1, -1)
    left = panel.sizes - back[0]
    if (left <= forecaster.horizon).any():
        at = int(np.argmin(left))
        raise ForecastError(
            f"{shown(panel.ids[at])} has {panel.sizes[at]} values; {n_windows} window(s) leave"
            f" {max(left[at], 0)} to train on, expected more than the horizon of {forecaster.horizon}"
        )
    every = np.arange(len(panel.ids))
    origins = [panel.sizes - steps for steps in back]
    found: list[Any] = []
    given = forecaster.get_params()
    if given["scaling"] == "auto" and (panel.y <= 0).any():
        given["scaling"] = "standard"  # also where the values that have no logarithm come later
    one = type(forecaster)(**given)
    for number, origin in enumerate(origins):
        if refit or number == 0:
            one.fit_laid_out(panel.up_to(origin), style, report)
        with threads_set(forecaster.threads):
            found.append(one.model_.forecast(panel, every, origin))
    report.warn()
    series = np.tile(every, n_windows)
    order = np.argsort(series, kind="stable")
    _, names = forecaster.checked()
    return forecast_frame(
        one.model_, names, panel, style, series[order], np.concatenate(origins)[order],
        np.concatenate(found)[order, :h], with_actual=True,
    )  # fmt: skip
