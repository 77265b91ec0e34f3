"""Regular time: the stamps of a frame as positions on a grid.

A position is a whole number of steps since 1970. Steps of up to an hour are counted in UTC, so that the hour
which comes twice in autumn is two positions and the one that spring skips is none. Longer steps, as days, are
counted on the wall clock of the series' time zone, where a day is a day however many hours it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gatedcells.forecast.data import Clock, IntArray
from gatedcells.forecast.errors import ForecastError

HOUR_S, DAY_S = 3600, 86400
_FREQUENCIES = "a frequency such as '15min', 'h', '6h', 'D' or '7D'"


@dataclass(frozen=True)
class Grid:
    """Where the stamps of regular series lie.

    Attributes:
        step_s: seconds from one position to the next.
        phase_s: seconds since 1970 of position 0, less than a step.
        wall: whether the seconds are those of the wall clock of ``clock.tz``, else of UTC.
        clock: the time zone of the series, and whether a stamp begins or ends its step.
    """

    step_s: int
    phase_s: int
    wall: bool
    clock: Clock

    @property
    def freq(self) -> str:
        """The step in words of pandas, as ``"15min"``."""
        return freq_of(self.step_s)

    def positions(self, seconds: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Positions of seconds of this grid's time, and which of them lie on it."""
        off = seconds - self.phase_s
        return off // self.step_s, off % self.step_s == 0

    def wall_stamps(self, positions: IntArray) -> pd.DatetimeIndex:
        """The stamps that the local clock shows, without a time zone. One that ends its step is its
        beginning's
        time and a step: clocks change between them without a word."""
        return self.local_starts(positions) + pd.Timedelta(seconds=self._back * self.step_s)

    def utc_stamps(self, positions: IntArray) -> pd.DatetimeIndex:
        """The moments, in UTC; a wall-clock stamp that spring skips is the moment at which clocks skip, one
        that autumn repeats is the first."""
        stamps = from_seconds(positions * self.step_s + self.phase_s)
        if not self.wall:
            return stamps.tz_localize("UTC")
        summer = np.ones(len(stamps), dtype=bool)
        local = stamps.tz_localize(self.clock.tz, ambiguous=summer, nonexistent="shift_forward")
        return local.tz_convert("UTC")

    def local_starts(self, positions: IntArray) -> pd.DatetimeIndex:
        """The local time at which each step begins: the calendar of a step is that of its beginning."""
        starts = from_seconds((positions - self._back) * self.step_s + self.phase_s)
        return starts if self.wall else starts.tz_localize("UTC").tz_convert(self.clock.tz).tz_localize(None)

    @property
    def _back(self) -> int:
        return 1 if self.clock.stamp == "ending" else 0

    def per(self, seconds: int) -> int | None:
        """How many steps there are in so many seconds; None if that is no whole number."""
        return seconds // self.step_s if seconds % self.step_s == 0 else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "step_s": self.step_s,
            "phase_s": self.phase_s,
            "wall": self.wall,
            "tz": self.clock.tz,
            "stamp": self.clock.stamp,
        }

    @classmethod
    def from_json(cls, content: Any) -> "Grid":
        """Undo `to_json`.

        Raises:
            KeyError, TypeError, ValueError, ForecastError: it is something else.
        """
        step, phase, wall = content["step_s"], content["phase_s"], content["wall"]
        whole = isinstance(step, int) and isinstance(phase, int) and isinstance(wall, bool)
        if not whole or not 0 < step <= 366 * DAY_S or not 0 <= phase < step:
            raise ValueError(f"a grid with steps of {step!r} s from {phase!r} s")
        return cls(step, phase, wall, Clock(str(content["tz"]), str(content["stamp"])))


def from_seconds(seconds: IntArray) -> pd.DatetimeIndex:
    """Seconds since 1970 as stamps without a time zone."""
    return pd.DatetimeIndex(np.asarray(seconds, dtype=np.int64).astype("datetime64[s]"))


def seconds_of(stamps: pd.DatetimeIndex, where: Callable[[int], str]) -> IntArray:
    """Stamps (of a time zone: in UTC) as whole seconds since 1970.

    Raises:
        ForecastError: one has a fraction of a second; ``where`` names its row.
    """
    plain = stamps if stamps.tz is None else stamps.tz_convert("UTC").tz_localize(None)
    whole = plain.floor("s")
    if (plain != whole).any():
        row = int(np.argmax(plain != whole))
        raise ForecastError(f"{where(row)}: the stamp {stamps[row]} has a fraction of a second; round it")
    return np.asarray(whole.as_unit("s").asi8, dtype=np.int64)


def step_of(freq: str) -> int:
    """Seconds of a frequency as pandas writes it.

    Raises:
        ForecastError: it is none, or one without a fixed length such as a month.
    """
    try:
        offset: Any = pd.tseries.frequencies.to_offset(freq)
        # of a length that differs from one to the next there is no timedelta
        days = {pd.offsets.Day: 1, pd.offsets.Week: 7}.get(type(offset))
        step = offset.n * days * DAY_S if days else pd.Timedelta(offset).total_seconds()
    except (ValueError, TypeError, AttributeError) as error:
        raise ForecastError(f"freq must be {_FREQUENCIES}, got {freq!r}") from error
    if step < 1 or step != int(step):
        raise ForecastError(f"freq must be {_FREQUENCIES}, of a second at least, got {freq!r}")
    return int(step)


def freq_of(step_s: int) -> str:
    """A step in words of pandas."""
    for unit, seconds in (("D", DAY_S), ("h", HOUR_S), ("min", 60)):
        if step_s % seconds == 0:
            return unit if step_s == seconds else f"{step_s // seconds}{unit}"
    return f"{step_s}s"


def infer_step(wall_seconds: IntArray, codes: IntArray) -> int:
    """The commonest distance between neighbouring stamps of one series.

    Args:
        wall_seconds: ``[R]`` of every row.
        codes: ``[R]`` the series' number.

    Raises:
        ForecastError: no series has two different stamps.
    """
    order = np.lexsort((wall_seconds, codes))
    apart = np.diff(wall_seconds[order])
    apart = apart[(np.diff(codes[order]) == 0) & (apart > 0)]
    if len(apart) == 0:
        raise ForecastError("no series has two stamps: give the frequency with freq=")
    values, counts = np.unique(apart, return_counts=True)
    return int(values[np.argmax(counts)])
