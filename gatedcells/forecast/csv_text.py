"""What the readers of CSV files have in common: what is no such file, what a spreadsheet adds, and lines."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gatedcells.forecast.errors import ForecastError

_OTHERS = {
    b"PK\x03\x04": "an Excel workbook or a zip archive; save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of before 2007; save the sheet as CSV (UTF-8)",
    b"\x1f\x8b": "packed by gzip; let its name end in .csv.gz",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
_PACKED = (".gz", ".bz2", ".zip", ".xz", ".zst", ".tar")
_ROWS_ALONE = (".zst", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")  # pandas unpacks them, `_opened` does not
_OPENS = re.compile(r'(?:^|,)[ \t]*"')  # a cell in quotes
_CLOSES = re.compile(r'(?:""|[^"])*"(?!")')


def not_utf8(path: Path, error: UnicodeDecodeError) -> ForecastError:
    """What to say of a file that is no UTF-8 text: what it is, as far as its first bytes tell."""
    with path.open("rb") as file:
        first = file.read(8)
    packed = path.suffix.lower() in _PACKED
    kinds = (f", but {kind}" for begins, kind in _OTHERS.items() if first.startswith(begins) and not packed)
    is_what = next(kinds, "; save it as UTF-8")
    byte = error.object[error.start]
    return ForecastError(f"{path}: not UTF-8 text (byte 0x{byte:02x} at {error.start}){is_what}")


PANDAS_2 = pd.__version__.startswith("2.")  # whose numbers of text are off by some last bits
CSV: dict[str, Any] = {"encoding": "utf-8-sig", "skipinitialspace": True}  # how pandas reads our files
if PANDAS_2:
    CSV["float_precision"] = "round_trip"


def header_of(path: Path) -> list[str]:
    """What the columns of a CSV file are called, as written: pandas renames the second of two alike."""
    first = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **CSV)
    return [str(name) for name in first.iloc[0]]


def check_header(table: pd.DataFrame) -> None:
    """Raise ValueError if cells of a CSV table are not separated by commas, or if rows have more of them than
    the header: pandas then takes every name for the column beside it."""
    other = [mark for mark in (";", "\t", "|") if len(table.columns) == 1 and mark in str(table.columns[0])]
    if other:
        raise ValueError(
            f"its cells are separated by {other[0]!r}; expected commas, and points before decimals"
            " (pandas.read_csv with sep= and decimal= reads it, to_csv writes it so)"
        )
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("rows have more cells than the header; expected a name for each")


def without_blank_end(table: pd.DataFrame, blank: str = "") -> pd.DataFrame:
    """The table without the rows at its end in which no cell holds anything, as spreadsheets write them;
    ``blank`` is what may stand for nothing."""

    def empty(rows: pd.DataFrame) -> Any:
        return (rows.isna() | rows.eq(blank)).all(axis=1).to_numpy()

    if not empty(table.tail(1)).any():
        return table
    filled = np.flatnonzero(~empty(table))
    return table.iloc[: int(filled[-1]) + 1 if len(filled) else 0]


def line_of(path: Path, row: int) -> str:
    """On which line a row, from 0, of a CSV file with a header begins; blank lines are lines, and no rows; a
    cell in quotes may go on over several."""
    if path.name.lower().endswith(_ROWS_ALONE):
        return f"row {row + 1} below the header"
    with _opened(path) as file:
        return f"line {next(islice(_first_lines(file), row + 1, None), row + 2)}"


def _first_lines(file: Iterable[str]) -> Generator[int]:
    """The number of the line on which each row begins, the header's first."""
    inside = False  # of a cell in quotes
    for number, line in enumerate(file, 1):
        if not inside and line.strip():
            yield number
        at = 0
        while found := (_CLOSES.match if inside else _OPENS.search)(line, at):
            inside, at = not inside, found.end()


@contextmanager
def _opened(path: Path) -> Generator[Iterable[str]]:
    """The lines of a text file; pandas has read it, and so it is packed as its name says."""
    with ExitStack() as closing:
        suffix = path.suffix.lower()
        if suffix == ".zip":
            archive = closing.enter_context(zipfile.ZipFile(path))
            file: Any = archive.open(archive.namelist()[0])
        else:
            file = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(suffix, open)(path, "rb")
        yield closing.enter_context(io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace"))


def place(path: Path, row: int) -> str:
    """What a message calls a row."""
    return f"{path}, {line_of(path, row)}"


@contextmanager
def named(frame: Any) -> Generator[None]:
    """Within the block a message says the file that ``frame`` is, if it is one."""
    try:
        yield
    except ForecastError as error:
        if not isinstance(frame, (str, Path)) or str(error).startswith(str(Path(frame))):
            raise
        raise ForecastError(f"{Path(frame)}: {error}") from error
