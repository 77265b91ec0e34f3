"""Hourly load files as regular series of UTC hours.

A file is ``Datetime,<REGION>_MW``: local clock time and megawatts. The PJM files are in Eastern
prevailing time and stamp an hour by its end, in no particular order of rows. Inside the library an hour
is a position on a grid of UTC hours without holes: the two hours that share the stamp of an autumn night
are two positions, the hour that a spring night skips is none. Where clocks are not whole hours from UTC, as
India's, all hours of a folder begin so many minutes past the UTC hour.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gatedcells.forecast.csv_text import PANDAS_2, line_of, place
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.flaws import Flaws, find_flaws
from gatedcells.forecast.load_table import LONGEST, columns_of, is_load_file, read_table, region_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

EASTERN = "America/New_York"
_FIRST_YEAR, _LAST_YEAR = 1900, 2200
_MOST_MW = 1e30  # the square of an error has to be a number too
NOT_HOURLY_LOAD = {"pjm_hourly_est.csv"}  # in the published folder: all regions side by side
_HOUR, _HOUR_S = pd.Timedelta(hours=1), 3600


@dataclass(frozen=True)
class Clock:
    """How a file writes time.

    Attributes:
        tz: the time zone of its local stamps.
        stamp: ``"ending"`` if a stamp is the end of its hour (PJM), ``"beginning"`` if the start.
    """

    tz: str = EASTERN
    stamp: str = "ending"

    def __post_init__(self) -> None:
        if self.stamp not in ("ending", "beginning"):
            raise ForecastError(f"hours are stamped 'ending' or 'beginning', got {self.stamp!r}")
        try:
            pd.Timestamp(0, tz=self.tz)
        except (KeyError, IndexError, ValueError, OSError) as error:
            raise ForecastError(f"there is no time zone {self.tz!r} (try {EASTERN!r} or 'UTC')") from error

    def localize(self, wall: pd.DatetimeIndex, summer: npt.NDArray[np.bool_]) -> pd.DatetimeIndex:
        """Local stamps as moments; of a time that comes twice in autumn ``summer`` says which is the first
        (in summer time), and one that clocks skip in spring is NaT."""
        return wall.tz_localize(self.tz, ambiguous=summer, nonexistent="NaT")


@dataclass(frozen=True)
class LoadSeries:
    """The hourly load of one region on a grid of hours of UTC.

    Attributes:
        region: its name, from the header.
        source: the file's name.
        clock: how the file writes time.
        first_hour: UTC start of the hour at position 0; all begin as many minutes past the UTC hour.
        load_mw: ``[n]`` megawatts, NaN where the file has no positive number.
        rows: ``[r]`` positions of the file's rows, in order of time.
        flaws: what was found and what was made of it.
        not_positive: at positions whose row has no positive number, what it has (NaN: blank).
    """

    region: str
    source: str
    clock: Clock
    first_hour: pd.Timestamp
    load_mw: FloatArray
    rows: IntArray
    flaws: Flaws
    not_positive: Mapping[int, float] = field(default_factory=dict[int, float])

    @property
    def phase_s(self) -> int:
        """Seconds past the UTC hour at which its hours begin."""
        return int(self.first_hour.timestamp()) % _HOUR_S

    def local_stamps(self, extra_hours: int = 0) -> pd.DatetimeIndex:
        """The stamp that the file's clock gives to every position, and to ``extra_hours`` more beyond the
        end; without a time zone. Both hours of an autumn night have one stamp."""
        hours = pd.date_range(self.first_hour, periods=len(self.load_mw) + extra_hours, freq="h")
        wall = hours.tz_convert(self.clock.tz).tz_localize(None)
        return wall + _HOUR if self.clock.stamp == "ending" else wall


def load_files(folder: Path) -> list[Path]:
    """The CSV files of a folder, packed by gzip or not, in the order of their names; however their suffix is
    written.

    Raises:
        ForecastError: one is a link that leads nowhere.
    """
    hourly = (p for p in folder.glob("*") if p.name.lower().removesuffix(".gz") not in NOT_HOURLY_LOAD)
    return sorted(p for p in hourly if is_load_file(p))


def read_folder(
    folder: Path, clock: Clock | None = None, progress: Callable[[Path], None] | None = None
) -> list[LoadSeries]:
    """Read every hourly load file of a folder, in the order of their names.

    Raises:
        ForecastError: no folder, no CSV files, two files for one region, hours that begin at other minutes
            than another file's, or a file that `read_file` refuses.
    """
    if not folder.is_dir():
        raise ForecastError(f"{folder}: no such folder")
    paths = load_files(folder)
    if not paths:
        raise ForecastError(f"{folder}: no CSV files; expected files with columns Datetime,<REGION>_MW")
    found: dict[str, LoadSeries] = {}
    for path in paths:
        if progress is not None:
            progress(path)
        series = read_file(path, clock)
        if series.region in found:
            raise ForecastError(
                f"{path}: region {series.region} is already in {found[series.region].source}; expected one"
                " file a region"
            )
        other = next(iter(found.values()), series)
        if series.phase_s != other.phase_s:
            raise ForecastError(
                f"{place(path, 0)}: hours begin {_past(series.phase_s)}, those of {other.source}"
                f" {_past(other.phase_s)}; expected the same for all files of a folder"
            )
        found[series.region] = series
    return list(found.values())


def read_file(path: Path, clock: Clock | None = None) -> LoadSeries:
    """Read one file ``Datetime,<REGION>_MW``.

    Raises:
        ForecastError: the file is missing, empty, not text, or has a cell that is neither a number nor
            blank, a stamp that is not a whole hour or does not exist in the time zone, hours that do not all
            begin at one minute of UTC, or two different rows for one hour. The message names file and row.
    """
    clock = clock or Clock()
    frame = read_table(path)
    stamp_column, load_column = columns_of(path, frame)
    load = _numbers(path, frame[load_column], load_column)
    begins, phase_s = _utc_hours(path, frame[stamp_column], clock)
    order = np.argsort(begins, kind="stable")
    begins, load = begins[order], load[order]
    keep = _without_repeats(path, begins, load, order)
    repeated = int((~keep).sum())
    positions, first_hour = begins[keep] - begins[0], utc_hour(int(begins[0]), phase_s)
    hours = int(positions[-1]) + 1
    if hours > 2 * len(positions) + 48:
        raise ForecastError(
            f"{path}: {len(positions):,} rows span {hours:,} hours; expected hourly data (is the first hour,"
            f" {first_hour}, or the last, {utc_hour(int(begins[-1]), phase_s)}, mistyped?)"
        )
    grid = np.full(hours, np.nan)
    grid[positions] = np.where(load[keep] > 0, load[keep], np.nan)
    region = region_of(load_column)
    series = LoadSeries(region, path.name, clock, first_hour, grid, positions, Flaws())
    flaws = find_flaws(
        local_stamps=series.local_stamps(),
        load_mw=grid,
        positions=positions,
        row_load_mw=load[keep],
        backward_steps=int((np.diff(np.argsort(order, kind="stable")) < 0).sum()),
        repeated_rows=repeated,
    )
    kept = load[keep]
    not_positive = {int(positions[row]): float(kept[row]) for row in np.flatnonzero(~(kept > 0))}
    return LoadSeries(region, path.name, clock, first_hour, grid, positions, flaws, not_positive)


def utc_hour(hours: int, phase_s: int = 0) -> pd.Timestamp:
    """The hour that starts so many hours, and seconds, after the start of 1970 in UTC."""
    stamp: Any = pd.Timestamp(hours * _HOUR_S + phase_s, unit="s", tz="UTC")
    return stamp


def _numbers(path: Path, cells: Any, column: str) -> FloatArray:
    numbers = nearest_numbers(cells)
    wrong = np.isnan(numbers) & cells.notna().to_numpy() | (np.abs(numbers) > _MOST_MW)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ForecastError(f"{place(path, row)}: {column} is {cells.iloc[row]!r}; expected a number")
    return numbers


def nearest_numbers(cells: Any) -> FloatArray:
    """Text, a pandas series, as the nearest float64; NaN where a cell is no number."""
    numbers = np.array(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)
    if PANDAS_2:
        finite = np.isfinite(numbers)
        numbers[finite] = cells[finite].astype(np.float64)
    return numbers


def _utc_hours(path: Path, cells: Any, clock: Clock) -> tuple[IntArray, int]:
    """For each row the UTC start of its hour: in whole hours since 1970, and the seconds past them of all."""
    stamps = parse_stamps(cells, "Datetime", lambda row: place(path, row))
    off, expected = stamps != stamps.floor("h"), "whole hours"
    if stamps.tz is not None and off.any():
        # whole hours of UTC have always been read, whatever the time zone
        wall = stamps.tz_convert(clock.tz).tz_localize(None)
        off, expected = wall != wall.floor("h"), f"whole hours in {clock.tz}, the file's time zone"
    if off.any():
        row = int(np.argmax(off))
        given = shown(cells.iloc[row])
        raise ForecastError(f"{place(path, row)}: Datetime is {given}; expected {expected}")
    begins = stamps - _HOUR if clock.stamp == "ending" else stamps
    if begins.tz is None:
        begins = _localize(path, begins, cells, clock)
    seconds = np.asarray(begins.tz_convert("UTC").as_unit("s").asi8, dtype=np.int64)
    phases = seconds % _HOUR_S
    if (phases != phases[0]).any():
        row = int(np.argmax(phases != phases[0]))
        raise ForecastError(
            f"{place(path, row)}: the hour {clock.stamp} {shown(cells.iloc[row])} in {clock.tz} begins"
            f" {_past(int(phases[row]))}, that of {line_of(path, 0)} {_past(int(phases[0]))}; expected"
            " one for all (clocks there changed by less than an hour: stamps in UTC can be read)"
        )
    return seconds // _HOUR_S, int(phases[0])


def _past(phase_s: int) -> str:
    return f"{phase_s / 60:g} minutes past the UTC hour"


def parse_stamps(cells: Any, column: str, where: Callable[[int], str]) -> pd.DatetimeIndex:
    """Stamps written as text, ISO 8601: without a time zone, or in UTC where all of them have an offset.

    Args:
        cells: text, a pandas series.
        column: its name, for a message; where: from the number of a row, from 0, to what a message calls it.

    Raises:
        ForecastError: a cell is no time, has an offset where others have none, or lies in a far year.
    """
    # a sign or a Z after the day is an offset, well written or not
    with_offset = np.asarray(cells.str.contains(r"[T ].*[Zz+-]", na=False), dtype=bool)
    parsed = pd.to_datetime(cells, format="ISO8601", errors="coerce", utc=bool(with_offset.any()))
    wrong = parsed.isna().to_numpy() | (with_offset != with_offset.any())
    if wrong.any():
        row = int(np.argmax(wrong))
        check_written_year(cells.iloc[row], column, where(row))
        raise ForecastError(
            f"{where(row)}: {column} is {shown(cells.iloc[row])}; expected a time such as"
            " 2018-08-03 00:00:00" + (" with a UTC offset, as in other rows" if with_offset.any() else "")
        )
    stamps = pd.DatetimeIndex(parsed)
    check_years(stamps, column, where)
    return stamps


def check_years(stamps: pd.DatetimeIndex, column: str, where: Callable[[int], str]) -> None:
    """Refuse stamps of far years, which are mistyped.

    Raises:
        ForecastError: there is one.
    """
    far = (stamps.year < _FIRST_YEAR) | (stamps.year > _LAST_YEAR)
    if far.any():
        row = int(np.argmax(far))
        raise _far_year(stamps[row], column, where(row))


def check_written_year(cell: object, column: str, where: str) -> None:
    """The same for text that gave no stamp: before pandas 3, which counts in nanoseconds, a year beyond 1677
    to 2262 gives none.

    Raises:
        ForecastError: it is a time of such a year.
    """
    try:
        pd.to_datetime(str(cell), format="ISO8601", utc=True)
    except pd.errors.OutOfBoundsDatetime as error:
        raise _far_year(cell, column, where) from error
    except ValueError:
        return  # no time at all, which the caller says


def _far_year(stamp: object, column: str, where: str) -> ForecastError:
    return ForecastError(
        f"{where}: {column} is {shown(stamp)}; expected a year from {_FIRST_YEAR} to {_LAST_YEAR}"
    )


def _localize(path: Path, begins: pd.DatetimeIndex, cells: Any, clock: Clock) -> pd.DatetimeIndex:
    # in autumn summer time comes first; in a file that runs backwards throughout, last
    backwards = begins.is_monotonic_decreasing and begins[0] != begins[-1]
    local = clock.localize(begins, ~begins.duplicated(keep="last" if backwards else "first"))
    skipped = local.isna()
    if skipped.any():
        row = int(np.argmax(skipped))
        raise ForecastError(
            f"{place(path, row)}: the hour {clock.stamp} {shown(cells.iloc[row])} does not exist in"
            f" {clock.tz}, where clocks skip it; is the file in another time zone?"
        )
    return local


def _without_repeats(
    path: Path, begins: IntArray, load: FloatArray, order: IntArray
) -> npt.NDArray[np.bool_]:
    """Which rows, in order of time, are the first for their hour; a repeat must say the same."""
    repeat = np.concatenate([[False], np.diff(begins) == 0])
    same = (load == np.roll(load, 1)) | (np.isnan(load) & np.isnan(np.roll(load, 1)))
    conflict = repeat & ~same
    if conflict.any():
        at = int(np.argmax(conflict))
        raise ForecastError(
            f"{place(path, int(order[at]))}: a second row for the hour of"
            f" {line_of(path, int(order[at - 1]))} with another value ({load[at]:g}, before"
            f" {load[at - 1]:g}); expected one row an hour"
        )
    return ~repeat


def shown(cell: object) -> str:
    """A cell as a message shows it."""
    return "blank" if cell is None or cell != cell else repr(str(cell)[:LONGEST])
