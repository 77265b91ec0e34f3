"""Flaws found in a frame, and what was done about them."""

import warnings
from dataclasses import asdict, dataclass, replace

from gatedcells.forecast.errors import ForecastError

ON_GAP = ("fill", "raise", "drop")
ON_DUPLICATE = ("raise", "first", "last")
ON_OUTLIER = ("keep", "repair", "raise")

_MEANINGS = {
    "unsorted": "rows earlier than a row of their series above: sorted",
    "repeated": "rows given twice with the same values: read once",
    "conflicting": "rows with the stamp of another one and other values: left out",
    "edge_blanks": "rows without a value before a series' first or after its last: left out",
    "absent": "stamps without a row: filled from the past, not trained on, not scored",
    "blank": "rows without a value: as stamps without a row",
    "blank_covariates": "covariates without a value: the one before, or the mean where there is none",
    "dropped": "series with stamps or values missing: left out",
    "outliers": "values far off the median of five around them",
}
_COUNTS = ("series", "rows", *_MEANINGS)
_CHANGED = ("conflicting", "edge_blanks", "absent", "blank", "blank_covariates", "dropped")


class FrameWarning(UserWarning):
    """A frame had flaws, which were handled as the policies say."""


class ShortFrame(FrameWarning):
    """A frame to forecast from is shorter than what a forecast reads.

    Attributes:
        behind: whether it continues the known values.
    """

    behind = False


@dataclass(frozen=True)
class FramePolicy:
    """What to do about a frame's flaws.

    Attributes:
        on_gap: stamps or values missing inside a series: ``"fill"`` from the past (neither trained on nor
            scored), ``"raise"``, or ``"drop"`` the series.
        on_duplicate: two rows of one series and stamp with different values: ``"raise"``, or keep the
            ``"first"`` or the ``"last"``.
        on_outlier: single values whose distance to the median of the five around them is over ten times the
            series' average: ``"keep"`` them, ``"repair"`` them (treat them as missing) in the part trained
            on, or ``"raise"``.
    """

    on_gap: str = "fill"
    on_duplicate: str = "raise"
    on_outlier: str = "keep"

    def __post_init__(self) -> None:
        for name, known in (("on_gap", ON_GAP), ("on_duplicate", ON_DUPLICATE), ("on_outlier", ON_OUTLIER)):
            if getattr(self, name) not in known:
                raise ForecastError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class FrameReport:
    """Counts of what a frame holds and lacks.

    Attributes:
        series, rows: of the frame, of what was kept; freq: of its stamps.
        unsorted, repeated, conflicting, edge_blanks, absent, blank, blank_covariates, dropped, outliers: as
            printing a report says.
        repaired: whether the outliers were repaired in the part trained on.
        wide: whether the frame was wide, where blank ends say that a series is shorter than others.
    """

    series: int
    rows: int
    freq: str
    unsorted: int = 0
    repeated: int = 0
    conflicting: int = 0
    edge_blanks: int = 0
    absent: int = 0
    blank: int = 0
    blank_covariates: int = 0
    dropped: int = 0
    outliers: int = 0
    repaired: bool = False
    wide: bool = False

    def __add__(self, other: "FrameReport") -> "FrameReport":
        counts = {
            name: value + getattr(other, name) for name, value in asdict(self).items() if name in _COUNTS
        }
        return replace(self, **counts)

    @property
    def changed(self) -> bool:
        """Whether anything was filled, left out or repaired."""
        found = [
            name for name in _CHANGED if getattr(self, name) and not (self.wide and name == "edge_blanks")
        ]
        return bool(found) or (self.repaired and self.outliers > 0)

    def lines(self) -> list[str]:
        """One line for the whole and one for each thing found."""
        done = "repaired in the part trained on" if self.repaired else "kept"
        found = [
            f"{value:,} {meaning}" + (f": {done}" if name == "outliers" else "")
            for name, meaning in _MEANINGS.items()
            if (value := asdict(self)[name])
        ]
        return [f"{self.series:,} series, {self.rows:,} rows, every {self.freq}", *found]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def warn(self) -> None:
        """Warn in one line if anything was changed."""
        if self.changed:
            warnings.warn("; ".join(self.lines()), FrameWarning, stacklevel=4)


def warn_of_levels(levels: list[float], windows: int) -> None:
    """Warn in one line if intervals of some levels could not be calibrated."""
    if levels:
        said = ", ".join(f"{level:g}%" for level in levels)
        warnings.warn(
            f"{windows} window(s) were held out, too few to calibrate intervals of {said}: they may be too"
            " narrow (more history, a larger calibration=)",
            FrameWarning,
            stacklevel=4,
        )
