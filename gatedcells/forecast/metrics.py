"""Scores of a forecast: F forecast, A actual, in MW.

A score that is not defined (no hours, a zero to divide by) is NaN, with a warning. Hours without an
actual load (NaN) are left out. A forecast must be a number at every hour.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from gatedcells.forecast.data import FloatArray


class UndefinedScore(UserWarning):
    """A score has no value here and is NaN."""


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one region, or their mean over regions.

    Attributes:
        smape: true symmetric mean absolute percentage error, ``100/n Σ |F−A| / ((|F|+|A|)/2)``, in %.
        article_smape: what the article's code computes, ``100/n Σ (|F−A| / (F+A)) / 2``, in %: a quarter
            of the true one, because it divides by the sum and halves instead of dividing by half the sum.
        mae_mw: mean absolute error, MW.
        rmse_mw: root mean squared error, MW.
        mase: MAE over the MAE of "as yesterday at this hour" within the training part (Hyndman &
            Koehler 2006).
    """

    smape: float
    article_smape: float
    mae_mw: float
    rmse_mw: float
    mase: float

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers, None for NaN."""
        return {name: defined(value) for name, value in asdict(self).items()}


def defined(value: float) -> float | None:
    """A score as JSON has it: None for NaN."""
    return None if np.isnan(value) else value


def score(forecast_mw: FloatArray, actual_mw: FloatArray, naive_mae_mw: float) -> Scores:
    """Score ``[n]`` forecasts; ``naive_mae_mw`` is `naive_mae` of the training part.

    Raises:
        ValueError: the lengths differ or a forecast is not a number.
    """
    if forecast_mw.shape != actual_mw.shape:
        raise ValueError(f"forecast has shape {forecast_mw.shape}, actual {actual_mw.shape}")
    if not np.isfinite(forecast_mw).all():
        raise ValueError("a forecast is not a number")
    known = np.isfinite(actual_mw)
    f, a = forecast_mw[known], actual_mw[known]
    error = np.abs(f - a)
    mae = _mean(error, "MAE")
    return Scores(
        smape=100 * _mean(_ratio(error, (np.abs(f) + np.abs(a)) / 2, "sMAPE"), "sMAPE"),
        article_smape=100 * _mean(_ratio(error, f + a, "article sMAPE") / 2, "article sMAPE"),
        mae_mw=mae,
        rmse_mw=float(np.sqrt(_mean(error**2, "RMSE"))),
        mase=float(_ratio(np.array([mae]), np.array([naive_mae_mw]), "MASE")[0]),
    )


def score_by_step(
    forecast_mw: FloatArray, actual_mw: FloatArray, naive_mae_mw: float, steps: Sequence[int]
) -> dict[str, Scores]:
    """Scores of ``[W, H]`` forecasts of the H steps after W places: those of single steps, counted from 1,
    and under ``"mean"`` of all."""
    found = {
        str(step): score(forecast_mw[:, step - 1], actual_mw[:, step - 1], naive_mae_mw) for step in steps
    }
    return found | {"mean": score(forecast_mw.ravel(), actual_mw.ravel(), naive_mae_mw)}


def pinball_loss(forecast: FloatArray, actual: FloatArray, quantile: float) -> float:
    """Mean of ``max(τ (A − F), (τ − 1)(A − F))`` (Koenker & Bassett 1978); NaN actuals are left out."""
    above = (actual - forecast)[np.isfinite(actual)]
    return _mean(np.maximum(quantile * above, (quantile - 1) * above), "pinball loss")


def coverage(lower: FloatArray, upper: FloatArray, actual: FloatArray) -> float:
    """The share of actual values from ``lower`` to ``upper``; NaN actuals are left out."""
    known = np.isfinite(actual)
    inside = (lower[known] <= actual[known]) & (actual[known] <= upper[known])
    return _mean(inside.astype(np.float64), "coverage")


def naive_mae(load_mw: FloatArray, period: int = 24) -> float:
    """Mean of ``|y[t] − y[t−period]|`` over a series ``[n]``, MW; NaN hours are left out."""
    change = np.abs(load_mw[period:] - load_mw[:-period]) if len(load_mw) > period else np.empty(0)
    return _mean(change[np.isfinite(change)], "naive MAE")


def mean_of(scores: Sequence[Scores]) -> Scores:
    """The mean over regions, each counting the same; one where a score is not defined counts not in it."""
    return Scores(**{f.name: mean_defined([getattr(s, f.name) for s in scores]) for f in fields(Scores)})


def mean_defined(values: Sequence[float | None]) -> float:
    """The mean of those that are defined, neither None nor NaN; NaN if none is."""
    found = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def _mean(values: FloatArray, name: str) -> float:
    if len(values) == 0:
        warnings.warn(f"{name} over no hours is undefined: NaN", UndefinedScore, stacklevel=3)
        return float("nan")
    return float(values.mean())


def _ratio(above: FloatArray, below: FloatArray, name: str) -> FloatArray:
    if (below == 0).any():
        warnings.warn(f"{name} divides by zero here: NaN", UndefinedScore, stacklevel=3)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)
