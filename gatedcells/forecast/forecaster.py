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
    """A forecaster was asked for what only a fitted one has."""


class Forecaster:
    """A GRU or LSTM that forecasts many series, many steps ahead, with intervals.

    Args:
        cell: ``"gru"`` or ``"lstm"``.
        horizon: steps that are forecast at once.
        lookback: steps that the recurrent layer reads before a forecast (beyond them it sees the seasons
            before, each on its own); None for twice the shorter season, or four horizons if that is more,
            336 at most.
        hidden_size: units of the recurrent layer; learning_rate: of the training.
        steps, batch_size: of the training; None for 1000 and 16. If both are None, few values take smaller
            batches and fewer steps, so as to pass over them eight times (``model_.recipe`` says how many).
        quantiles: that the network forecasts, in rising order, 0.5 among them: the median is the point
            forecast.
        level: intervals to give, in %; each between two of the quantiles.
        known: columns that are known in advance, as a weather forecast or a price list.
        past: columns that are known up to now.
        static: columns that say something of a series, numbers or categories (not of wide frames).
        holidays: country whose public holidays are inputs, as ``"US"``; None for none.
        freq: frequency of the stamps as pandas writes it, from seconds to days; None to infer it.
        tz: time zone of stamps without one, and of the calendar (a stamp's own where it has one; else UTC).
        stamp: whether a stamp is the ``"beginning"`` or the ``"ending"`` of its step.
        scaling: ``"standard"``: each series less its median, in units of its interquartile range; ``"log"``:
            so in logarithms; ``"auto"``: in logarithms where every value is positive.
        on_gap, on_duplicate, on_outlier: see `FramePolicy`; what was found is in ``report_``, and a warning
            says in one line what was changed.
        calibration: share of every series, at its end, that the network is not trained on and its intervals
            are calibrated with; 0 for intervals as the network gives them.
        identity: whether the network tells series apart; without, it forecasts also series it was not fitted
            on.
        seed: of everything random; threads: of torch, None for its own choice. Same seed, threads and
            machine: the same forecasts. device: ``"cpu"`` or ``"cuda"``, to train on.
        id_col, time_col, target_col: names of the columns. A frame without ``id_col`` is one series, its
            ``target_col``; without that too, where it is the default, it is wide: each column that is neither
            the time nor a covariate is a series.
        verbose: whether reading and training show a bar.

    Attributes:
        report_: `FrameReport` of the frame it was fitted on.
        model_: `PanelModel`.
        train_seconds_, loss_: of the training.
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
        """All parameters by name; ``deep`` is scikit-learn's and changes nothing here."""
        return {name: getattr(self, name) for name in _DEFAULTS}

    def set_params(self, **changed: Any) -> "Forecaster":
        """Change parameters; they take effect with the next `fit`.

        Raises:
            ForecastError: no such parameter.
        """
        for name in changed:
            if name not in _DEFAULTS:
                raise ForecastError(f"no parameter is called {name!r}; there are {', '.join(_DEFAULTS)}")
        vars(self).update(changed)
        return self

    def __repr__(self) -> str:
        # arrays do not compare as others do
        given = [f"{n}={v!r}" for n, v in self.get_params().items() if repr(v) != repr(_DEFAULTS[n])]
        return f"Forecaster({', '.join(given)})"

    def fit(self, frame: Any, *, checkpoint: str | Path | None = None) -> "Forecaster":
        """Train on a frame, or on the CSV or Parquet file of a path, or on a folder of Parquet files.

        Args:
            frame: pandas or polars, long or wide. Of a folder one file at a time is in memory; each has whole
                series.
            checkpoint: a file to keep the training in; where it exists already, that training goes on, and
                one of other series or settings is refused. It goes when all is finished.

        Raises:
            ForecastError: parameters or a frame that cannot be used; the message says what was expected.
            KeyboardInterrupt: Ctrl-C; the step under way is finished, and written to ``checkpoint``.
        """
        self.fit_kept(frame, checkpoint)
        if checkpoint is not None and share().first:
            drop(Path(checkpoint))
        return self

    def fit_kept(self, frame: Any, checkpoint: str | Path | None) -> None:
        """As `fit`, but ``checkpoint`` stays: for who has yet to save what was fitted."""
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
        """Train on a panel that is laid out already; ``console`` shows the bar instead of one of its own,
        ``usual`` are steps and batch size where the parameters name none, and ``checkpoint`` stays."""
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
        """Forecast the steps after the end of every series.

        Args:
            h: how many; the horizon by default.
            frame: series to go on from, with the columns of the frame fitted on; by default that one.
            future: the columns ``known`` for the steps to come: a frame of `make_future_dataframe`, filled
                in.

        Returns:
            a frame of the kind given with the series, the stamp, the median (``GRU``), ``GRU-lo-80``,
            ``GRU-hi-80`` and so on, and ``GRU-ql0.3`` for a quantile that bounds none of the levels.

        Raises:
            NotFitted: not fitted yet.
            ForecastError: ``h`` is more than the horizon, or ``future`` lacks steps.
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
        """Go on to values that have come since: `predict` goes on from their end, and the intervals of every
        series become wider or narrower by how many of them lay outside. The network stays as it is.

        Args:
            frame: with the columns of the frame fitted on: the new rows alone, or those before them as well.
                Steps between the values known and the first new one are a hole. Of a stamp that autumn shows
                twice, a row that begins right behind what is known is taken for the second.

        Raises:
            NotFitted: not fitted yet.
            ForecastError: a frame that cannot be used, one that begins long after the values known, or after
                a hole unless ``on_gap="fill"``.
        """
        model, policy = self._fitted(), FramePolicy(self.on_gap, self.on_duplicate)
        with threads_set(self.threads):
            self._context, self._style = gone_on(model, self._context, self._names, policy, frame)
        return self

    def make_future_dataframe(self, h: int | None = None, *, frame: Any = None) -> Any:
        """The series and stamps that `predict` would forecast, to fill in what is known of them.

        Args:
            h, frame: as of `predict`.
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
        """Forecast from several places before the end of every series, each knowing only what is before it.

        The forecaster itself stays as it is: a copy is trained on what lies before the first place, or with
        ``refit`` before each. ``scaling="auto"`` is decided on all values of the frame.

        Args:
            frame: series; the last window ends where each of them ends.
            n_windows: how many places; step_size: steps from one to the next, by default ``h``.
            h: steps that are forecast from each, by default the horizon.

        Returns:
            as `predict`, with ``cutoff``, the last stamp known, and the values that came.

        Raises:
            ForecastError: a series is too short for so many windows.
        """
        self.checked()
        h = steps_ahead(h, int(self.horizon))
        step_size = h if step_size is None else whole("step_size", step_size)
        return cross_validated(self, frame, whole("n_windows", n_windows), step_size, h, refit)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted forecaster as safetensors and JSON, and the values it goes on from.

        Raises:
            NotFitted: not fitted yet.
            ForecastError: the folder holds something else, or cannot be written.
        """
        content = forecaster_files.Saved(
            self.get_params(), self._fitted(), self._context, self._names, self._style, self.report_,
            self.loss_, self.train_seconds_,
        )  # fmt: skip
        forecaster_files.write(Path(folder), content, _DEFAULTS)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Forecaster":
        """Read what `save` wrote; nothing in it is executed.

        Raises:
            ForecastError: it is something else, or its files do not fit together.
        """
        with settled():
            content = forecaster_files.read(Path(folder), _DEFAULTS)
        made = cls(**content.parameters)
        made.model_, made._context = content.model, content.context
        made._take(content.names, content.style, content.report)
        made.loss_, made.train_seconds_ = content.loss, content.train_seconds
        return made

    def checked(self) -> tuple[FramePolicy, Names]:
        """Policies and names, after everything that can be told without a frame."""
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
