"""Files that hold a frame: CSV and Parquet."""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from lzma import LZMAError
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd

from gatedcells.forecast.csv_text import CSV, check_header, header_of, not_utf8, without_blank_end
from gatedcells.forecast.errors import ForecastError

PARQUET = (".parquet", ".pq")  # in capitals too
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MARKED = "={}"


def read_frame_file(
    path: Path, id_col: str, text_ids: bool = False, text: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a file.

    Args:
        path: CSV, or Parquet by its suffix.
        id_col: the column that names series: of a CSV file it is read as it is written, so that 001 is not 1
            and NA is a name; where every name is a whole number written plainly, they are whole numbers.
        text_ids: whether they are text nevertheless, as in a file before that had others too; text: other
            columns that are.

    Raises:
        ForecastError: it is missing, no such file, or has two columns of one name.
    """
    if path.is_dir():
        raise ForecastError(f"{path}: is a folder; only fit reads folders, one file at a time")
    if not path.is_file():
        raise ForecastError(f"{path}: no such file")
    try:
        if path.suffix.lower() in PARQUET:
            return pd.read_parquet(path)
        return _read_csv(path, id_col, text_ids, text)
    except ImportError as error:
        raise ForecastError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except (ValueError, OSError, EOFError, zlib.error, BadZipFile, LZMAError) as error:
        kind = "Parquet file" if path.suffix.lower() in PARQUET else "CSV table"
        raise ForecastError(f"{path}: not a {kind}: {' '.join(str(error).split())}") from error


def _read_csv(path: Path, id_col: str, text_ids: bool, text: Sequence[str]) -> pd.DataFrame:
    header = header_of(path)
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise ForecastError(f"{path}: two columns are called {twice[0]!r}; expected every name once")
    # marked, or pandas would take some names for blanks
    table = pd.read_csv(path, converters=dict.fromkeys([id_col, *text], _MARKED.format), **CSV)
    check_header(table)
    table = without_blank_end(table, _MARKED.format(""))
    # spreadsheets end rows with columns that hold nothing
    nameless = [name for name, cell in zip(table.columns, header, strict=True) if not cell]
    table = table.drop(columns=[name for name in nameless if table[name].isna().all()])
    if id_col in table.columns:
        table[id_col] = _as_written(table[id_col], text_ids)
    for name in table.columns.intersection(list(text)):
        table[name] = _as_written(table[name], True)
    return table


def _as_written(cells: Any, text_ids: bool) -> Any:
    """Names of series, or other text, from marked cells: whole numbers, or text; an empty cell is blank."""
    found = {one: one.removeprefix(_MARKED.format("")) for one in cells.unique()}
    if not text_ids and all(_WHOLE.fullmatch(name) for name in found.values()):
        numbers = cells.map({one: int(name) for one, name in found.items()})
        if pd.api.types.is_integer_dtype(numbers.dtype):
            return numbers
    return cells.map({one: name or None for one, name in found.items()})
