"""Forecasts of one's own series: fit, predict, cross-validate, save, on pandas and polars frames.

Method names and columns are those of Nixtla's libraries (``unique_id, ds, y``; ``GRU``, ``GRU-lo-80``),
parameters behave as scikit-learn's: the constructor only stores, what is learnt ends in ``_``.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gatedcells.forecast import forecaster_files, forecaster_parameters
from gatedcells.forecast.answers import forecast_frame
from gatedcells.forecast.cells import settled
from gatedcells.forecast.continuing import warn_of_short
from gatedcells.forecast.distributed import share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import drop
from gatedcells.forecast.fitting import fit_store, too_few
from gatedcells.forecast.forecaster_parameters import USUAL, fit_of, names_fitted, recipe_of, whole
from gatedcells.forecast.frames import Names, Style, give_back
from gatedcells.forecast.future import future_stamps, with_future
from gatedcells.forecast.grid import Grid
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.panel_model import PanelModel
from gatedcells.forecast.panel_report import FramePolicy, FrameReport, warn_of_levels
from gatedcells.forecast.panel_store import InMemory, ParquetFolder, Store
from gatedcells.forecast.rolling import (
    cross_validated,
    gone_on,
    laid_out,
    laid_out_as,
    steps_ahead,
    threads_set,
)
from gatedcells.forecast.training import Interrupted


class NotFitted(ForecastError):
    """The forecaster is not fitted yet."""


class Forecaster:
    """A GRU or LSTM that forecasts many series, several steps ahead, with prediction intervals.

    Args:
        cell: ``"gru"`` or ``"lstm"``.
        horizon: number of steps that are forecast at once.
        lookback: number of steps that the recurrent layer reads before a forecast (values one season earlier
            are further inputs); None: twice the shorter season or four horizons, whichever is more, but at
            most 336.
        hidden_size: hidden units of the recurrent layer; learning_rate: of the training.
        steps, batch_size: of the training; None: 1000 and 16. If both are None, a small data set is trained
            on with smaller batches and fewer steps, about eight passes over it (see ``model_.recipe``).
        quantiles: the quantiles that the network forecasts, in increasing order and with 0.5: the median is
            the point forecast.
        level: prediction intervals to output, in %; their bounds must be among the quantiles.
        known: columns whose future values are known, such as a weather forecast or a price list.
        past: columns that are known for past steps only.
        static: columns of attributes of a series, numbers or categories (not in wide frames).
        holidays: country whose public holidays are inputs, such as ``"US"``; None: no holidays.
        freq: frequency of the timestamps in pandas' notation, from seconds to days; None: inferred.
        tz: time zone of timestamps without one, and of the calendar; None: the timestamps' own, or UTC.
        stamp: whether a timestamp marks the ``"beginning"`` or the ``"ending"`` of its step.
        scaling: ``"standard"``: subtract each series' median and divide by its interquartile range;
            ``"log"``: the same for logarithms; ``"auto"``: ``"log"`` if all values are positive.
        on_gap, on_duplicate, on_outlier: see `FramePolicy`. ``report_`` holds what was found, and a warning
            says in one line what was changed.
        calibration: share at the end of each series on which the network is not trained but its intervals
            are calibrated; 0: intervals without calibration.
        identity: whether the network reads which series it forecasts; without, it can also forecast series
            that it was not fitted on.
        seed: of all random numbers; threads: of torch, None: torch's default. The same seed, threads and
            machine give the same forecasts. device: ``"cpu"`` or ``"cuda"``, for training.
        id_col, time_col, target_col: names of columns. A frame without ``id_col`` is one series,
            ``target_col``. Without that too (if it has its default name), the frame is wide: every column
            that is neither the time nor a covariate is a series.
        verbose: whether reading and training show a progress bar.

    Attributes:
        report_: `FrameReport` of the frame it was fitted on.
        model_: the fitted `PanelModel`.
        train_seconds_, loss_: duration and final loss of the training.
    """

    def __init__(
        self, cell: str = "gru", horizon: int = 24, *, lookback: int | None = None, hidden_size: int = 64,
        steps: int | None = None, batch_size: int | None = None, learning_rate: float = 1e-2,
        quantiles: Sequence[float] = (0.025, 0.1, 0.5, 0.9, 0.975), level: Sequence[float] = (80, 95),
        known: Sequence[str] = (), past: Sequence[str] = (), static: Sequence[str] = (),
        holidays: str | None = None, freq: str | None = None, tz: str | None = None, stamp: str = "beginning",
        scaling: str = "auto", on_gap: str = "fill", on_duplicate: str = "raise", on_outlier: str = "keep",
        calibration: float = 0.1, identity: bool = True, seed: int = 0, threads: int | None = None,
        device: str = "cpu", id_col: str = "unique_id", time_col: str = "ds", target_col: str = "y",
        verbose: bool = False,
    ) -> None:  # fmt: skip
        self.cell, self.horizon, self.lookback, self.hidden_size = cell, horizon, lookback, hidden_size
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.quantiles, self.level = quantiles, level
        self.known, self.past, self.static, self.holidays = known, past, static, holidays
        self.freq, self.tz, self.stamp, self.scaling = freq, tz, stamp, scaling
        self.on_gap, self.on_duplicate, self.on_outlier = on_gap, on_duplicate, on_outlier
        self.calibration, self.identity = calibration, identity
        self.seed, self.threads, self.device = seed, threads, device
        self.id_col, self.time_col, self.target_col, self.verbose = id_col, time_col, target_col, verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters by name; ``deep`` exists for scikit-learn and has no effect."""
        return {name: getattr(self, name) for name in _DEFAULTS}

    def set_params(self, **changed: Any) -> "Forecaster":
        """Change parameters, with effect from the next `fit`.

        Raises:
            ForecastError: there is no such parameter.
        """
        for name in changed:
            if name not in _DEFAULTS:
                raise ForecastError(
                    f"there is no parameter {name!r}; the parameters are {', '.join(_DEFAULTS)}"
                )
        vars(self).update(changed)
        return self

    def __repr__(self) -> str:
        # arrays do not compare as others do
        given = [f"{n}={v!r}" for n, v in self.get_params().items() if repr(v) != repr(_DEFAULTS[n])]
        return f"Forecaster({', '.join(given)})"

    def fit(self, frame: Any, *, checkpoint: str | Path | None = None) -> "Forecaster":
        """Train on a frame, or on the CSV or Parquet file of a path, or on a folder of Parquet files.

        Args:
            frame: a pandas or polars frame, long or wide, or a path. A folder's files are read one at a time;
                each must contain whole series.
            checkpoint: a file in which to save the training. If it exists, its training is resumed (that of
                other series or settings is refused). It is deleted when the training is finished.

        Raises:
            ForecastError: parameters or a frame that cannot be used; the message says what was expected.
            KeyboardInterrupt: Ctrl-C; the current step is finished and saved to ``checkpoint`` first.
        """
        self.fit_kept(frame, checkpoint)
        if checkpoint is not None and share().first:
            drop(Path(checkpoint))
        return self

    def fit_kept(self, frame: Any, checkpoint: str | Path | None) -> None:
        """As `fit`, but without deleting ``checkpoint``, for callers that save the forecaster first."""
        path = None if checkpoint is None else Path(checkpoint)
        if isinstance(frame, (str, Path)) and Path(frame).is_dir():
            policy, names = self.checked()
            files = ParquetFolder(Path(frame), names, policy, freq=self.freq, tz=self.tz, stamp=self.stamp)
            self._fit_store(files, files.grid, path, None, USUAL)
            self._take(names, files.style, files.report)
        else:
            self.fit_laid_out(*laid_out(self, frame), path)
        self.report_.warn()

    def fit_laid_out(
        self, panel: Panel, style: Style, report: FrameReport, checkpoint: Path | None = None,
        console: Console | None = None, *, usual: tuple[int, int] = USUAL,
    ) -> None:  # fmt: skip
        """Train on a panel. ``console`` shows the progress bar; ``usual`` are the default steps and batch
        size; ``checkpoint`` is not deleted."""
        self._fit_store(InMemory(panel), panel.grid, checkpoint, console, usual)
        self._take(self.checked()[1], style, report)

    def _take(self, names: Names, style: Style, report: FrameReport) -> None:
        self._style, self.report_ = style, report
        self._names = names_fitted(names, self.model_.covariates, style, self.tz)

    def _fit_store(
        self, store: Store, grid: Grid, checkpoint: Path | None, console: Console | None,
        usual: tuple[int, int],
    ) -> None:  # fmt: skip
        self.checked()
        console = console or Console(quiet=not self.verbose)
        with threads_set(self.threads), settled():
            try:
                fitted = fit_store(
                    store, grid, recipe_of(self.get_params(), grid, usual), fit_of(self.get_params()),
                    console, name=f"{self.cell.upper()} training", checkpoint=checkpoint, device=self.device,
                    fewer=self.steps is None and self.batch_size is None,
                )  # fmt: skip
            except Interrupted as stopped:
                raise KeyboardInterrupt(*stopped.args) from None
        self.model_, self._context = fitted.model, fitted.context
        self.loss_, self.train_seconds_ = fitted.done.loss, fitted.done.seconds
        windows = fitted.model.margins.windows
        warn_of_levels(too_few(windows, fitted.model.fit), windows)

    def predict(self, h: int | None = None, *, frame: Any = None, future: Any = None) -> Any:
        """Forecast the steps after the end of each series.

        Args:
            h: the number of steps; None: the horizon.
            frame: the series to forecast, with the columns of the frame fitted on; None: that frame.
            future: values of the ``known`` columns for the future steps: a frame from
                `make_future_dataframe`, filled in.

        Returns:
            a frame of the kind given with the series, the timestamp, the median (``GRU``), ``GRU-lo-80``,
            ``GRU-hi-80`` and so on, and ``GRU-ql0.3`` for a quantile that is not a bound of a level.

        Raises:
            NotFitted: not fitted yet.
            ForecastError: ``h`` is larger than the horizon, or ``future`` lacks steps.
        """
        model = self._fitted()
        h = steps_ahead(h, model.recipe.horizon)
        panel, style = self._panel_to_forecast(frame)
        if frame is not None:
            warn_of_short(self._context, panel, model.looks_back)
        whole_panel = with_future(panel, future, self._names, style, h, model.recipe.horizon)
        panel = replace(whole_panel, filled=panel.filled)
        every = np.arange(len(panel.ids))
        with threads_set(self.threads):
            found = model.forecast(panel, every, panel.sizes)
        return forecast_frame(model, self._names, panel, style, every, panel.sizes, found[:, :h])

    def update(self, frame: Any) -> "Forecaster":
        """Append new values: `predict` then forecasts the steps after them, and each series' intervals become
        wider or narrower by how many of the values lay outside. The network is not trained again.

        Args:
            frame: with the columns of the frame fitted on: the new rows, with or without the earlier ones.
                Steps missing between the known and the new values are a gap. Of a local timestamp that occurs
                twice in autumn, a row directly after the known values is taken as the second.

        Raises:
            NotFitted: not fitted yet.
            ForecastError: the frame cannot be used, begins long after the known values, or begins after a gap
                and ``on_gap`` is not ``"fill"``.
        """
        model, policy = self._fitted(), FramePolicy(self.on_gap, self.on_duplicate)
        with threads_set(self.threads):
            self._context, self._style = gone_on(model, self._context, self._names, policy, frame)
        return self

    def make_future_dataframe(self, h: int | None = None, *, frame: Any = None) -> Any:
        """A frame with the series and timestamps that `predict` will forecast, to fill in with ``known``.

        Args:
            h, frame: as for `predict`.
        """
        h = steps_ahead(h, self._fitted().recipe.horizon)
        panel, style = self._panel_to_forecast(frame)
        series, stamps = future_stamps(panel, style, h)
        columns = {self._names.id_col: [panel.ids[at] for at in series], self._names.time_col: stamps}
        return give_back(columns, [self._names.time_col], style)

    def cross_validation(
        self, frame: Any, n_windows: int = 1, step_size: int | None = None, *, h: int | None = None,
        refit: bool = False,
    ) -> Any:  # fmt: skip
        """Forecast from several cutoffs before the end of each series, using only the values up to it.

        The forecaster itself is not changed: a copy is trained on the values up to the first cutoff, with
        ``refit`` up to each. ``scaling="auto"`` is decided on all values of the frame.

        Args:
            frame: the series; the last window ends at the end of each.
            n_windows: number of cutoffs; step_size: number of steps between them, by default ``h``.
            h: number of steps to forecast from each, by default the horizon.

        Returns:
            as `predict`, with ``cutoff``, the last known timestamp, and the actual values.

        Raises:
            ForecastError: a series is too short for so many windows.
        """
        self.checked()
        h = steps_ahead(h, int(self.horizon))
        step_size = h if step_size is None else whole("step_size", step_size)
        return cross_validated(self, frame, whole("n_windows", n_windows), step_size, h, refit)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted forecaster, and the last values of its series, as safetensors and JSON.

        Raises:
            NotFitted: not fitted yet.
            ForecastError: the folder contains something else, or cannot be written.
        """
        content = forecaster_files.Saved(
            self.get_params(), self._fitted(), self._context, self._names, self._style, self.report_,
            self.loss_, self.train_seconds_,
        )  # fmt: skip
        forecaster_files.write(Path(folder), content, _DEFAULTS)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Forecaster":
        """Read a forecaster that `save` wrote; nothing in it is executed.

        Raises:
            ForecastError: the folder contains something else, or its files do not belong together.
        """
        with settled():
            content = forecaster_files.read(Path(folder), _DEFAULTS)
        made = cls(**content.parameters)
        made.model_, made._context = content.model, content.context
        made._take(content.names, content.style, content.report)
        made.loss_, made.train_seconds_ = content.loss, content.train_seconds
        return made

    def checked(self) -> tuple[FramePolicy, Names]:
        """Policies and names, after all checks that need no frame."""
        return forecaster_parameters.checked(self.get_params())

    def _fitted(self) -> PanelModel:
        if not hasattr(self, "model_"):
            raise NotFitted("this forecaster is not fitted yet: call fit(frame), or Forecaster.load(folder)")
        return self.model_

    def _panel_to_forecast(self, frame: Any) -> tuple[Panel, Style]:
        if frame is None:
            return self._context, self._style
        policy = FramePolicy(self.on_gap, self.on_duplicate)
        panel, style, report = laid_out_as(self.model_, self._names, policy, frame)
        report.warn()
        return panel, style


_DEFAULTS = {name: one.default for name, one in inspect.signature(Forecaster).parameters.items()}
