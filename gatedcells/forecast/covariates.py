"""Covariates in units of their spread, and categories as inputs of their own."""

from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.data import FloatArray, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.panel import Panel

_SMALLEST = 1e-30


@dataclass(frozen=True)
class Covariates:
    """How covariates become inputs, fitted on the part trained on.

    Attributes:
        center, spread: of the known, then the past covariates, over all series.
        static: by name, either the mean and standard deviation or the categories.
    """

    center: tuple[float, ...]
    spread: tuple[float, ...]
    static: dict[str, tuple[Any, ...]]

    @property
    def static_size(self) -> int:
        """How many inputs the static covariates make."""
        return sum(len(fitted) if isinstance(fitted[0], str) else 1 for fitted in self.static.values())

    def scaled(self, values: FloatArray, first: int) -> npt.NDArray[np.float32]:
        """Covariates from number ``first`` on in units of their spread; a blank is the mean.

        Raises:
            ForecastError: one lies too far out for a float32.
        """
        part = slice(first, first + values.shape[1])
        centered = (values - np.array(self.center[part])) / np.array(self.spread[part])
        return _narrow(np.nan_to_num(centered, nan=0.0), "a covariate")

    def static_inputs(self, panel: Panel) -> npt.NDArray[np.float32]:
        """``[S, static_size]``.

        Raises:
            ForecastError: a category that was not there in training, or a number too far out for a float32.
        """
        parts: list[Any] = [np.empty((len(panel.ids), 0))]
        for name, fitted in self.static.items():
            values = panel.static[name]
            if not isinstance(fitted[0], str):
                apart = (values.astype(np.float64) - fitted[0]) / fitted[1]
                parts.append(_narrow(apart, f"the static covariate {name}")[:, None])
                continue
            codes = {category: at for at, category in enumerate(fitted)}
            strange = [str(value) for value in values if str(value) not in codes]
            if strange:
                raise ForecastError(
                    f"the static covariate {name} is {shown(strange[0])}; fitted on"
                    f" {', '.join(map(shown, fitted[:8]))}"
                )
            parts.append(np.eye(len(fitted))[[codes[str(value)] for value in values]])
        return np.concatenate(parts, axis=1).astype(np.float32)


def _narrow(apart: FloatArray, what: str) -> npt.NDArray[np.float32]:
    """Standard deviations from the mean as float32; ``what`` says of what.

    Raises:
        ForecastError: some are more than it holds.
    """
    far = np.abs(apart).max(initial=0.0)
    if far > np.finfo(np.float32).max:
        raise ForecastError(f"{what} lies {far:.3g} standard deviations from the mean of those fitted on")
    return apart.astype(np.float32)


class Moments(NamedTuple):
    """Of n numbers: how many, their mean, and the sum of squares about it."""

    seen: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: FloatArray) -> "Moments":
        """Of those that are numbers."""
        has = values[np.isfinite(values)]
        return cls(len(has), float(has.mean()), float(((has - has.mean()) ** 2).sum())) if len(has) else cls()

    def beside(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub & LeVeque 1979)."""
        count = self.seen + other.seen
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.seen / count
        return Moments(count, mean, self.squares + other.squares + apart**2 * self.seen * other.seen / count)

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 where there is none to speak of, or to divide float32 by."""
        found = sqrt(self.squares / self.seen) if self.seen else 0.0
        return found if found > _SMALLEST else 1.0


class CovariateMoments:
    """Gathers what `Covariates` are fitted on, a panel at a time."""

    def __init__(self) -> None:
        self._columns: list[Moments] = []
        self._static: dict[str, Moments] = {}
        self._categories: dict[str, set[str]] = {}

    def add(self, panel: Panel) -> None:
        """See one more panel.

        Raises:
            ForecastError: a static covariate is text here and numbers there.
        """
        found = [Moments.of(column) for values in (panel.known, panel.past) for column in values.T]
        before = self._columns or [Moments()] * len(found)
        self._columns = [one.beside(other) for one, other in zip(before, found, strict=True)]
        for name, values in panel.static.items():
            text = values.dtype == object
            if name in (self._static if text else self._categories):
                raise ForecastError(f"the static covariate {name} is text in one file and numbers in another")
            if text:
                self._categories.setdefault(name, set()).update(str(value) for value in values)
            else:
                self._static[name] = self._static.get(name, Moments()).beside(Moments.of(values))

    def fitted(self) -> Covariates:
        """Of all panels seen."""
        static: dict[str, tuple[Any, ...]] = {name: tuple(sorted(c)) for name, c in self._categories.items()}
        static |= {name: (one.mean, one.deviation) for name, one in self._static.items()}
        return Covariates(
            tuple(one.mean for one in self._columns), tuple(one.deviation for one in self._columns), static
        )
