"""A forecaster's parameters: what network and fit they ask for, and how a folder writes them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from numbers import Integral, Real
from typing import Any

from gatedcells.forecast.calendar import check_country
from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.covariates import Covariates
from gatedcells.forecast.direct import DirectRecipe
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fitting import check
from gatedcells.forecast.frames import Names, Style
from gatedcells.forecast.grid import Grid, freq_of, step_of
from gatedcells.forecast.panel_inputs import usual_lookback
from gatedcells.forecast.panel_model import Fit
from gatedcells.forecast.panel_report import FramePolicy

USUAL = (1000, 16)  # steps, and chunks a step
LARGEST, _MOST_STEPS = 1_000_000, 2**63 - 1  # steps ask for no memory
_LARGEST_SEED = 2**64 - 1  # that torch takes
_COUNTS = ("lookback", "threads", "steps", "batch_size")  # whole numbers, or None


def checked(given: Mapping[str, Any]) -> tuple[FramePolicy, Names]:
    """Policies and names, after everything that can be told without a frame.

    Raises:
        ForecastError: parameters that cannot be.
    """
    if given["cell"] not in CELLS:
        raise ForecastError(f"cell must be one of {', '.join(CELLS)}, got {given['cell']!r}")
    _check_numbers(given)
    for name in ("known", "past", "static"):
        if isinstance(given[name], str) or not isinstance(given[name], Iterable):
            raise ForecastError(f"{name} must be a list of names of columns, got {given[name]!r}")
    columns = [given[name] for name in ("id_col", "time_col", "target_col")]
    beside = [tuple(given[name]) for name in ("known", "past", "static")]
    every = [*columns, *(name for part in beside for name in part)]
    strange = [name for name in every if not isinstance(name, str)]
    if strange:
        raise ForecastError(f"names of columns must be text, got {strange[0]!r}")
    twice = {name for name in every if every.count(name) > 1}
    if twice:
        raise ForecastError(f"columns are named twice: {', '.join(sorted(twice))}")
    name = given["cell"].upper()
    taken = [one for one in columns if one in (name, "cutoff") or one.startswith(f"{name}-")]
    if taken:
        raise ForecastError(
            f"a column is called {taken[0]!r}, as one of a forecast is; expected other names (id_col=,"
            " time_col=, target_col=)"
        )
    check(recipe_of(given, None), fit_of(given))
    policy = FramePolicy(given["on_gap"], given["on_duplicate"], given["on_outlier"])
    return policy, Names(*columns, *beside)


def whole(name: str, value: Any) -> int:
    """A whole number, of whatever type.

    Raises:
        ForecastError: it is none.
    """
    if isinstance(value, Integral):
        return int(value)
    if not isinstance(value, Real) or not float(value).is_integer():
        raise ForecastError(f"{name} must be a whole number, got {value!r}")
    return int(float(value))


def _check_numbers(given: Mapping[str, Any]) -> None:
    for name in ("horizon", "hidden_size", "seed", *_COUNTS):
        if name not in _COUNTS or given[name] is not None:
            whole(name, given[name])
    for name, least, most in (("seed", 0, _LARGEST_SEED), ("threads", 1, LARGEST)):
        if given[name] is not None and not least <= given[name] <= most:
            raise ForecastError(f"{name} must be from {least} to {most}, got {given[name]}")
    for name in ("learning_rate", "calibration"):
        if not isinstance(given[name], Real):
            raise ForecastError(f"{name} must be a number, got {given[name]!r}")
    if not 0 < given["learning_rate"] < inf:
        raise ForecastError(f"learning_rate must be a number above 0, got {given['learning_rate']}")
    for name in ("quantiles", "level"):
        listed = given[name] if isinstance(given[name], Iterable) else (None,)
        if not all(isinstance(one, Real) for one in listed):
            raise ForecastError(f"{name} must be a list of numbers, got {given[name]!r}")


def names_fitted(names: Names, covariates: Covariates, style: Style, tz: Any) -> Names:
    """The names with what was fitted on under them; ``tz`` is the parameter."""
    text = tuple(name for name, fitted in covariates.static.items() if isinstance(fitted[0], str))
    return replace(names, text=text, zoned=None if tz else style.tz is not None)


def recipe_of(given: Mapping[str, Any], grid: Grid | None, usual: tuple[int, int] = USUAL) -> DirectRecipe:
    """The network; ``usual`` are steps and batch size where the parameters name none."""
    horizon = int(given["horizon"])
    return DirectRecipe(
        cell=given["cell"],
        horizon=horizon,
        lookback=int(given["lookback"] or usual_lookback(grid, horizon)),
        quantiles=tuple(float(q) for q in given["quantiles"]),
        hidden_size=int(given["hidden_size"]),
        steps=int(usual[0] if given["steps"] is None else given["steps"]),
        batch_size=int(usual[1] if given["batch_size"] is None else given["batch_size"]),
        learning_rate=float(given["learning_rate"]),
    )


def fit_of(given: Mapping[str, Any]) -> Fit:
    """How it is fitted."""
    country = "none" if given["holidays"] is None else check_country(given["holidays"])
    return Fit(
        tuple(float(one) for one in given["level"]), country, bool(given["identity"]), given["scaling"],
        float(given["calibration"]), given["on_outlier"] == "repair", int(given["seed"]),
    )  # fmt: skip


def written(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as values of JSON that `read` takes back: each of the type of its default, as fitting
    takes it."""
    return {name: _written(name, given[name], like) for name, like in defaults.items()}


def _written(name: str, value: Any, like: Any) -> Any:
    if isinstance(like, tuple):
        return [str(one) if isinstance(one, str) else _number(one) for one in value]
    if like is not None:
        return type(like)(value)
    if not value:  # a lookback of 0 is that of the season as well
        return None
    if name in _COUNTS:
        return int(value)
    if name == "freq" and not isinstance(value, str):
        return freq_of(step_of(value))
    return str(value)


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, Integral) else float(value)


def read(name: str, value: Any, like: Any) -> Any:
    """A parameter from JSON, of a type that the constructor's has.

    Raises:
        ValueError: it is something else.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(like, tuple):
        listed = tuple(value) if isinstance(value, list) else (None,)
        value, fine = listed, all(isinstance(one, (str, int, float)) for one in listed)
    elif like is None:
        fine = value is None or isinstance(value, str)
        if name in _COUNTS:
            most = _MOST_STEPS if name == "steps" else LARGEST
            fine = value is None or (type(value) is int and 0 < value <= most)
    elif isinstance(like, float):
        fine = number
    else:
        fine = type(value) is type(like)
    if not fine:
        raise ValueError(f"{name} is {value!r}")
    return value
