"""What is wrong with a load file: counted for each file, and what the forecaster makes of it."""

from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd

SPIKE = 0.10  # a single hour this far off the median of the five hours around it

# What each count means and what is done about it, to follow the number.
REMEDIES = {
    "backward_steps": "rows earlier than the row above: sorted",
    "repeated_rows": "rows given twice with one value: read once",
    "autumn_pairs": "timestamps with two hours, when clocks are set back: both kept, in their order",
    "spring_gaps": "timestamps skipped when clocks are set forward: no hour is missing",
    "autumn_gaps": "timestamps with two hours, neither of them in the file: both hours missing",
    "missing_hours": "hours without a row: filled from the past, not trained on, not scored",
    "not_positive": "loads that are zero, negative or blank: treated as missing",
    "spikes": "hours over 10% off the median of five: repaired before the test part",
}


@dataclass(frozen=True)
class Flaws:
    """Counts for one file; `REMEDIES` says what each means and what is done about it."""

    backward_steps: int = 0
    repeated_rows: int = 0
    autumn_pairs: int = 0
    spring_gaps: int = 0
    autumn_gaps: int = 0
    missing_hours: int = 0
    not_positive: int = 0
    spikes: int = 0

    def __add__(self, other: "Flaws") -> "Flaws":
        return Flaws(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def spike_mask(load_mw: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """``[n]``: which hours are more than 10% off the median of the five around them (fewer at the ends)."""
    series = pd.Series(load_mw)
    median = series.rolling(5, center=True, min_periods=1).median()
    return ((series - median).abs() > SPIKE * median).to_numpy()


def find_flaws(
    *,
    local_stamps: pd.DatetimeIndex,
    load_mw: npt.NDArray[np.float64],
    positions: npt.NDArray[np.int64],
    row_load_mw: npt.NDArray[np.float64],
    backward_steps: int,
    repeated_rows: int,
) -> Flaws:
    """Count the flaws of one file from its grid of hours.

    Args:
        local_stamps: ``[n]`` the local stamp of each position.
        load_mw: ``[n]`` the grid, NaN where nothing positive is recorded.
        positions: ``[r]`` positions that have a row.
        row_load_mw: ``[r]`` the loads as written.
        backward_steps: rows of the file that are earlier than the row above.
        repeated_rows: rows dropped because the same row came before.
    """
    present = np.zeros(len(load_mw), dtype=bool)
    present[positions] = True
    # from one hour to the next the clock goes on by one, but for the nights when it is changed
    step = np.diff(local_stamps.as_unit("s").asi8) // 3600
    twice = step == 0
    return Flaws(
        backward_steps=backward_steps,
        repeated_rows=repeated_rows,
        autumn_pairs=int((twice & present[1:] & present[:-1]).sum()),
        spring_gaps=int((step == 2).sum()),
        autumn_gaps=int((twice & ~present[1:] & ~present[:-1]).sum()),
        missing_hours=int((~present).sum()),
        not_positive=int((~(row_load_mw > 0)).sum()),
        spikes=int(spike_mask(load_mw[positions]).sum()),
    )
