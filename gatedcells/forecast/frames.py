"""Frames at the border: pandas, polars, CSV and Parquet in, the same kind out.

Long frames have a row for each series and stamp (``unique_id, ds, y`` by default); in wide frames every
column that is not the stamp or a covariate is a series. narwhals reads both libraries' frames alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from gatedcells.forecast.data import FloatArray, IntArray, check_years, parse_stamps, shown
from gatedcells.forecast.errors import ForecastError

KINDS = ("pandas", "polars")


@dataclass(frozen=True)
class Names:
    """What the columns of a frame are called; ``known``, ``past`` and ``static`` are covariates."""

    id_col: str = "unique_id"
    time_col: str = "ds"
    target_col: str = "y"
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


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
        lines: ``[R]`` row of the frame, from 0.
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
    wide: bool = False

    def where(self, row: int) -> str:
        """What a message calls a row."""
        return f"row {int(self.lines[row])} of the frame"


def read_frame(
    frame: Any, names: Names, *, target: bool = True, covariates: Sequence[str] = (), static: bool = True
) -> Rows:
    """Read a frame, or the CSV or Parquet file of a path.

    Args:
        frame: long or wide.
        names: of its columns.
        target: whether values are to be read, or covariates alone.
        covariates: which numbers to read beside.
        static: whether to read the static covariates.

    Raises:
        ForecastError: not a frame, a column is missing, or a cell is not what its column is said to hold.
    """
    table = _table(frame, names)
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
    stamps, style = _stamps(table[names.time_col], names.time_col, _kind(table))
    numbers = [_numbers(table[name], name) for name in covariates]
    beside = np.stack(numbers, axis=1) if numbers else np.empty((len(table), 0))
    if names.id_col in columns:
        ids, codes = _ids(table[names.id_col], names.id_col)
        y = _numbers(_column(table, names.target_col, "target_col"), names.target_col) if target else None
        fixed = {name: _static(table[name]) for name in (names.static if static else ())}
        return Rows(ids, codes, stamps, y, beside, fixed, style, np.arange(len(table)))
    if static and names.static:
        raise ForecastError("static covariates need a long frame: a wide one has no column for each series")
    return _wide(table, names, target, stamps, beside, style)


def _wide(
    table: Any, names: Names, target: bool, stamps: pd.DatetimeIndex, beside: FloatArray, style: Style
) -> Rows:
    other = {names.time_col, *names.known, *names.past, *names.static}
    series = sorted(name for name in table.columns if name not in other)
    if not target:
        series = [""]  # covariates of all series alike
    if not series:
        raise ForecastError(
            f"expected a column {names.id_col!r} (long), or one column for each series (wide), got"
            f" {_listed(list(table.columns))}"
        )
    values = [_numbers(table[name], name) for name in series] if target else None
    many, n = len(series), len(table)
    return Rows(
        tuple(series),
        np.repeat(np.arange(many), n),
        stamps if many == 1 else stamps.take(np.tile(np.arange(n), many)),
        None if values is None else np.concatenate(values),
        np.tile(beside, (many, 1)),
        {},
        style,
        np.tile(np.arange(n), many),
        wide=True,
    )


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


def _table(frame: Any, names: Names) -> Any:
    if isinstance(frame, (str, Path)):
        frame = _read_file(Path(frame))
    if isinstance(frame, pd.DataFrame) and names.time_col not in frame.columns:
        of_index = [name for name in (names.id_col, names.time_col) if name in frame.index.names]
        if names.time_col in of_index:
            frame = frame.reset_index(level=of_index)
        elif isinstance(frame.index, pd.DatetimeIndex):
            frame = frame.rename_axis(names.time_col).reset_index()
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


def _read_file(path: Path) -> pd.DataFrame:
    if path.is_dir():
        raise ForecastError(f"{path}: is a folder; fit alone reads folders, a file at a time")
    if not path.is_file():
        raise ForecastError(f"{path}: no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True)
    except ImportError as error:
        raise ForecastError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from error
    except UnicodeDecodeError as error:
        raise ForecastError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except (ValueError, OSError) as error:
        kind = "Parquet file" if path.suffix.lower() in (".parquet", ".pq") else "CSV table"
        raise ForecastError(f"{path}: not a {kind}: {' '.join(str(error).split())}") from error


def _kind(table: Any) -> str:
    return str(table.implementation).lower()


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(shown(name) for name in list(names)[:8]) + (", ..." if len(names) > 8 else "")


def _column(table: Any, name: str, option: str) -> Any:
    if name not in table.columns:
        raise ForecastError(f"expected a column {name!r} ({option}=), got {_listed(table.columns)}")
    return table[name]


def _numbers(column: Any, name: str) -> FloatArray:
    """``[R]``, NaN where blank."""
    if column.dtype.is_numeric() or column.dtype == nw.Boolean:
        values = np.array(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
        wrong = np.isinf(values)
    else:
        cells = pd.Series(column.to_list(), dtype=object)
        values = np.array(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)
        blank = cells.isna() | cells.astype(str).str.strip().eq("")
        wrong = np.isnan(values) & ~blank.to_numpy() | np.isinf(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ForecastError(f"row {row} of the frame: {name} is {shown(column[row])}; expected a number")
    return values


def _static(column: Any) -> Any:
    """``[R]`` numbers, or text."""
    if column.dtype.is_numeric() or column.dtype == nw.Boolean:
        return np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
    return np.asarray(column.to_list(), dtype=object)


def _ids(column: Any, name: str) -> tuple[tuple[Any, ...], IntArray]:
    whole = column.dtype.is_integer()
    cells = column.to_list()
    codes, found = pd.factorize(np.asarray(cells, dtype=object))
    wrong = codes < 0
    if not whole and not wrong.any():
        wrong = ~np.array([isinstance(one, str) for one in found])[codes]
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ForecastError(
            f"row {row} of the frame: {name} is {shown(cells[row])}; expected text, or whole numbers"
        )
    ids = [int(one) for one in found] if whole else [str(one) for one in found]
    order = sorted(range(len(ids)), key=lambda at: ids[at])
    number = np.empty(len(ids), dtype=np.int64)
    number[order] = np.arange(len(ids))
    return tuple(ids[at] for at in order), number[codes]


def _stamps(column: Any, name: str, kind: str) -> tuple[pd.DatetimeIndex, Style]:
    def where(row: int) -> str:
        return f"row {row} of the frame"

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
