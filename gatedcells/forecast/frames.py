"""Frames at the border: pandas, polars, CSV and Parquet in, the same kind out.

Long frames have a row for each series and stamp (``unique_id, ds, y`` by default); without the column of
series but with that of values a frame is one series, and without either it is wide: every column that is not
the stamp or a covariate is a series. narwhals reads both libraries' frames alike.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from gatedcells.forecast.csv_text import place
from gatedcells.forecast.data import FloatArray, IntArray, check_years, parse_stamps, shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.frame_columns import Where, ids_of, numbers_of, static_of
from gatedcells.forecast.frame_files import PARQUET, read_frame_file

KINDS = ("pandas", "polars")
_UNNAMED = re.compile(r"(Unnamed: \d+)?")  # what pandas and polars call a column without a name


@dataclass(frozen=True)
class Names:
    """What the columns of a frame are called; ``known``, ``past`` and ``static`` are covariates.

    Attributes:
        text: which of ``static`` are text, where that was fitted; None before.
        zoned: whether stamps have a time zone, where what was fitted says nothing of those that have none, or
            of those that do; None where either is fine.
    """

    id_col: str = "unique_id"
    time_col: str = "ds"
    target_col: str = "y"
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    text: tuple[str, ...] | None = None
    zoned: bool | None = None


@dataclass(frozen=True)
class Style:
    """How a frame writes time, so that a forecast can be given back alike.

    Attributes:
        kind: ``"pandas"`` or ``"polars"``.
        unit: of its stamps, ``"s"`` to ``"ns"``; ``"day"`` for dates.
        tz: of its stamps; None where they have none.
    """

    kind: str = "pandas"
    unit: str = "us"
    tz: str | None = None


@dataclass(frozen=True)
class Rows:
    """A frame's content, one row for each series and stamp.

    Attributes:
        ids: ``[S]`` names of the series, sorted.
        codes: ``[R]`` number of the row's series.
        stamps: ``[R]`` without a time zone, or in UTC.
        y: ``[R]`` NaN where blank; None if it was not asked for.
        numbers: covariates by name, ``[R, k]`` in the order asked for.
        static: static covariates by name, ``[R]`` each, numbers or text.
        style: of the frame.
        lines: ``[R]`` row of the frame, from 0; place: what a message calls such a row.
        wide: whether the frame was, so that a blank end only says that a series is shorter than others.
    """

    ids: tuple[Any, ...]
    codes: IntArray
    stamps: pd.DatetimeIndex
    y: FloatArray | None
    numbers: FloatArray
    static: dict[str, Any]
    style: Style
    lines: IntArray
    place: Where
    wide: bool = False

    def where(self, row: int) -> str:
        """What a message calls a row."""
        return self.place(int(self.lines[row]))


def read_frame(
    frame: Any, names: Names, *, target: bool = True, covariates: Sequence[str] = (), static: bool = True,
    text_ids: bool = False,
) -> Rows:  # fmt: skip
    """Read a frame, or the CSV or Parquet file of a path.

    Args:
        frame: long, of one series, or wide.
        names: of its columns.
        target: whether values are to be read, or covariates alone.
        covariates: which numbers to read beside.
        static: whether to read the static covariates; text_ids: as of `read_frame_file`.

    Raises:
        ForecastError: not a frame, a column is missing, or a cell is not what its column is said to hold.
    """
    table, where = _table(frame, names, text_ids), _where(frame)
    columns = list(table.columns)
    if names.time_col not in columns:
        raise ForecastError(
            f"expected a column {names.time_col!r} with the stamps (time_col=), got {_listed(columns)}"
        )
    if len(table) == 0:
        raise ForecastError("the frame has no rows")
    wanted = [*covariates, *(names.static if static else ())]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ForecastError(f"expected the covariates {_listed(missing)}, got the columns {_listed(columns)}")
    stamps, style = _stamps(table.get_column(names.time_col), names.time_col, _kind(table), where)
    if target and names.zoned is not None and names.zoned != (style.tz is not None):
        have, had = ("without", "with") if names.zoned else ("with", "without")
        raise ForecastError(
            f"{names.time_col} has stamps {have} a time zone, and those fitted on were {had} one: expected"
            " alike ones (where tz=, or --tz, was given when it was fitted, either are read)"
        )
    numbers = [numbers_of(table.get_column(name), name, where) for name in covariates]
    beside = np.stack(numbers, axis=1) if numbers else np.empty((len(table), 0))
    # in a frame that says what it holds no other column is a series
    named = target and (names.target_col in columns or names.target_col != Names.target_col)
    if names.id_col in columns or named:
        y: FloatArray | None = None
        if target:
            y = numbers_of(_column(table, names.target_col, "target_col"), names.target_col, where)
        ids, codes = (names.target_col,), np.zeros(len(table), dtype=np.int64)
        if names.id_col in columns:
            ids, codes = ids_of(table.get_column(names.id_col), names.id_col, where)
        fixed = {
            name: static_of(
                table.get_column(name), name, where, None if names.text is None else name in names.text
            )
            for name in (names.static if static else ())
        }
        return Rows(ids, codes, stamps, y, beside, fixed, style, np.arange(len(table)), where)
    if static and names.static:
        raise ForecastError("static covariates need a long frame: a wide one has no column for each series")
    return _wide(table, names, target, stamps, beside, style, where)


def _wide(
    table: Any, names: Names, target: bool, stamps: pd.DatetimeIndex, beside: FloatArray, style: Style,
    where: Where,
) -> Rows:  # fmt: skip
    other = {names.time_col, *names.known, *names.past, *names.static}
    series = _series_of([name for name in table.columns if name not in other]) if target else []
    if not target:
        series = [""]  # covariates of all series alike
    if not series:
        raise ForecastError(
            f"expected a column {names.id_col!r} (long), one {names.target_col!r} (of one series), or one for"
            f" each series (wide), got {_listed(list(table.columns))}"
        )
    values = [numbers_of(table.get_column(name), str(name), where) for name in series] if target else None
    many, n = len(series), len(table)
    return Rows(
        tuple(name if isinstance(name, str) else int(name) for name in series),
        np.repeat(np.arange(many), n),
        stamps if many == 1 else stamps.take(np.tile(np.arange(n), many)),
        None if values is None else np.concatenate(values),
        np.tile(beside, (many, 1)),
        {},
        style,
        np.tile(np.arange(n), many),
        where,
        wide=True,
    )


def _series_of(columns: Sequence[Any]) -> list[Any]:
    """The columns that are series, sorted: text, or whole numbers."""
    nameless = [name for name in columns if isinstance(name, str) and _UNNAMED.fullmatch(name)]
    if nameless:
        raise ForecastError(
            f"the column {nameless[0]!r} has no name, as an index that was written with its table; write it"
            " with index=False, or give every series a name"
        )
    whole = [isinstance(name, (int, np.integer)) and not isinstance(name, bool) for name in columns]
    if not all(whole) and not all(isinstance(name, str) for name in columns):
        raise ForecastError(
            "expected the series of a wide frame to be called by text, or all by whole numbers, got"
            f" {', '.join(repr(name) for name in columns[:8])}{', ...' if len(columns) > 8 else ''}"
        )
    return sorted(columns)


def give_back(columns: dict[str, Any], time_cols: Sequence[str], style: Style) -> Any:
    """A frame of the kind that was given.

    Args:
        columns: by name, in order; those of time as `pandas.DatetimeIndex`, in UTC where the style has a
            zone.
        time_cols: which are of time.
        style: of the frame given.

    Raises:
        ForecastError: the library is not installed.
    """
    if style.kind == "pandas":
        unit = "us" if style.unit == "day" else style.unit
        return pd.DataFrame(
            {
                name: column.tz_convert(style.tz).as_unit(unit) if name in time_cols and style.tz is not None
                else column.as_unit(unit) if name in time_cols else column
                for name, column in columns.items()
            }
        )  # fmt: skip
    try:
        import polars  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise ForecastError("fitted on a polars frame, which needs polars: pip install polars") from error
    plain = {
        name: column.tz_localize(None).as_unit("us").to_numpy() if name in time_cols else column
        for name, column in columns.items()
    }
    table: Any = nw.from_dict(plain, backend="polars")
    for name in time_cols:
        column = nw.col(name)
        if style.unit == "day":
            column = column.cast(nw.Date)
        else:
            column = column.cast(nw.Datetime(style.unit))  # pyright: ignore[reportArgumentType]
            if style.tz is not None:
                column = column.dt.replace_time_zone("UTC").dt.convert_time_zone(style.tz)
        table = table.with_columns(column)
    return table.to_native()


def _table(frame: Any, names: Names, text_ids: bool) -> Any:
    if isinstance(frame, (str, Path)):
        frame = read_frame_file(Path(frame), names.id_col, text_ids, names.text or ())
    if isinstance(frame, pd.DataFrame):
        frame = _with_stamps(frame, names)
    try:
        table = nw.from_native(frame, eager_only=True)
    except (TypeError, ValueError) as error:
        raise ForecastError(
            f"expected a pandas or polars frame, or the path of a CSV or Parquet file, got"
            f" {type(frame).__name__}"
        ) from error
    if _kind(table) not in KINDS:
        raise ForecastError(f"expected a pandas or polars frame, got one of {_kind(table)}")
    return table


def _where(frame: Any) -> Where:
    if not isinstance(frame, (str, Path)):
        return lambda row: f"row {row} of the frame"
    path = Path(frame)
    if path.suffix.lower() in PARQUET:
        return lambda row: f"{path}: row {row} of the frame"
    return lambda row: place(path, row)


def _with_stamps(frame: pd.DataFrame, names: Names) -> pd.DataFrame:
    """The frame with the stamps as a column, also where they were its index; every name once."""
    of_index: list[str] = []
    if names.time_col not in frame.columns and names.time_col in frame.index.names:
        of_index = [name for name in (names.id_col, names.time_col) if name in frame.index.names]
    twice = [name for name, count in Counter([*frame.columns, *of_index]).items() if count > 1]
    if twice:
        raise ForecastError(f"two columns are called {twice[0]!r}; expected every name once")
    if of_index:
        return frame.reset_index(level=of_index)
    if names.time_col not in frame.columns and isinstance(frame.index, pd.DatetimeIndex):
        return frame.rename_axis(names.time_col).reset_index()
    return frame


def _kind(table: Any) -> str:
    return table.implementation.name.lower()  # of which str says more in narwhals 1


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(shown(name) for name in list(names)[:8]) + (", ..." if len(names) > 8 else "")


def _column(table: Any, name: str, option: str) -> Any:
    if name not in table.columns:
        raise ForecastError(f"expected a column {name!r} ({option}=), got {_listed(table.columns)}")
    return table.get_column(name)


def _stamps(column: Any, name: str, kind: str, where: Where) -> tuple[pd.DatetimeIndex, Style]:
    dtype, native = column.dtype, column.to_native()
    if kind == "pandas" and isinstance(native.dtype, pd.DatetimeTZDtype):
        # not every time zone of pandas has a name that narwhals reads
        dtype = nw.Datetime(native.dt.unit, str(native.dt.tz))
        column = nw.from_native(native.dt.tz_convert("UTC"), series_only=True)
    if dtype == nw.Date:
        column, dtype, style = column.cast(nw.Datetime("us")), nw.Datetime("us"), Style(kind, "day")
    elif isinstance(dtype, nw.Datetime):
        style = Style(kind, dtype.time_unit, dtype.time_zone)
    elif dtype in (nw.String, nw.Object, nw.Categorical):
        cells = pd.Series(column.to_list(), dtype=object)
        blank = cells.isna()
        stamps = parse_stamps(cells.astype(str).mask(blank, None), name, where)
        return stamps, Style(kind, "us", None if stamps.tz is None else "UTC")
    else:
        raise ForecastError(f"{name} holds {dtype}; expected times (numbers are not taken for stamps)")
    blank = column.is_null().to_numpy()
    if blank.any():
        raise ForecastError(f"{where(int(np.argmax(blank)))}: {name} is blank; expected a time")
    moments = np.asarray(column.dt.timestamp("us").to_numpy(), dtype=np.int64)
    stamps = pd.DatetimeIndex(moments.astype("datetime64[us]"))
    check_years(stamps, name, where)
    return (stamps if style.tz is None else stamps.tz_localize("UTC")), style
