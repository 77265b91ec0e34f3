"""What is made of holes and of single-hour spikes in a load file: chosen by the user, kept with the run."""

from dataclasses import dataclass

import numpy as np

from gatedcells.forecast.data import IntArray, LoadSeries
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.flaws import REMEDIES, SPIKE, spike_mask

ON_GAP = {
    "fill": "filled from the past, not trained on, not scored",
    "drop": "hours whose inputs include one are left out as well",
    "raise": "refused",
}
ON_OUTLIER = {
    "repair": "repaired before the test part",
    "keep": "left as they are",
    "raise": "refused",
}


@dataclass(frozen=True)
class Policy:
    """What is made of what a file lacks, and of what is unlikely in it.

    Attributes:
        on_gap: of hours without a row or without a positive load: ``"fill"`` reads a value made from the
            hours before in their place, and neither trains on nor scores them; ``"drop"`` leaves out,
            besides, every hour whose inputs reach back to one; ``"raise"`` refuses the file.
        on_outlier: of single hours more than 10% off the median of the five around them: ``"repair"`` treats
            them as holes in the training part alone (what is tested stays as recorded), ``"keep"`` leaves
            them, ``"raise"`` refuses the file.

    Raises:
        ForecastError: there is no such policy.
    """

    on_gap: str = "fill"
    on_outlier: str = "repair"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("on-gap", self.on_gap, ON_GAP),
            ("on-outlier", self.on_outlier, ON_OUTLIER),
        ):
            if value not in known:
                raise ForecastError(f"{name} must be one of {', '.join(known)}, got {value!r}")

    def remedies(self) -> dict[str, str]:
        """`gatedcells.forecast.flaws.REMEDIES` under this policy."""
        missing = {"fill": ON_GAP["fill"], "drop": f"{ON_GAP['fill']}, {ON_GAP['drop']}"}
        said = {"missing_hours": f"hours without a row: {missing.get(self.on_gap, ON_GAP['raise'])}"}
        said["spikes"] = f"hours over {SPIKE:.0%} off the median of five: {ON_OUTLIER[self.on_outlier]}"
        return REMEDIES | said

    def in_words(self) -> str:
        """As the options are written."""
        return f"--on-gap {self.on_gap}, --on-outlier {self.on_outlier}"


DEFAULT = Policy()


def gaps(series: LoadSeries) -> IntArray:
    """Positions without a positive load, in order."""
    return np.flatnonzero(~np.isfinite(series.load_mw))


def outliers(series: LoadSeries) -> IntArray:
    """Positions of single-hour spikes, in order."""
    return series.rows[spike_mask(series.load_mw[series.rows])]


def check(series: LoadSeries, policy: Policy) -> None:
    """Refuse what the policy says to refuse.

    Raises:
        ForecastError: a hole or a spike is in the file; the message names file, stamp and value.
    """
    if policy.on_gap == "raise" and len(found := gaps(series)):
        at = int(found[0])
        raise ForecastError(
            f"{series.source}: the hour stamped {_stamp(series, at)} {written(series, at)}"
            f"{_more(len(found), 'hole')}; expected a positive load in every hour, as --on-gap raise"
            " requires (fill and drop accept it)"
        )
    if policy.on_outlier == "raise" and len(found := outliers(series)):
        at = int(found[0])
        around = series.load_mw[max(at - 2, 0) : at + 3]
        raise ForecastError(
            f"{series.source}: the hour stamped {_stamp(series, at)} has {series.load_mw[at]:g} MW, the"
            f" median of the five around it is {np.nanmedian(around):g}{_more(len(found), 'such hour')};"
            f" expected no hour over {SPIKE:.0%} off, as --on-outlier raise requires (repair and"
            " keep accept it)"
        )


def written(series: LoadSeries, position: int) -> str:
    """What a file has at an hour without a positive load."""
    if position not in series.not_positive:
        return "has no row"
    value = series.not_positive[position]
    return "is blank" if np.isnan(value) else f"has {value:g} MW"


def _stamp(series: LoadSeries, position: int) -> str:
    return f"{series.local_stamps()[position]:%Y-%m-%d %H:%M:%S}"


def _more(count: int, what: str) -> str:
    return "" if count == 1 else f" (the first of {count:,} {what}s)"
