"""A load file as a table of text, and which of its columns are which."""

import os
import zlib
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from gatedcells.forecast.csv_text import CSV, check_header, header_of, not_utf8, without_blank_end
from gatedcells.forecast.errors import ForecastError

LONGEST = 60  # characters of a cell that an error shows
_UNIT = "_MW"


def is_load_file(path: Path) -> bool:
    """Whether a path is called as a CSV file, packed by gzip or not, and is one; hidden files are none (a Mac
    leaves a ``._X.csv`` beside the copy of ``X.csv``).

    Raises:
        ForecastError: it is a link that leads nowhere: its region would be missing.
    """
    if path.name.startswith(".") or not path.name.lower().endswith((".csv", ".csv.gz")):
        return False
    if path.is_symlink() and not path.exists():
        raise ForecastError(f"{path}: is a link to {os.readlink(path)}, where nothing is; expected a file")
    return path.is_file()


def read_table(path: Path, rows: int | None = None) -> pd.DataFrame:
    """The cells of a CSV file, packed by gzip or not; of its first ``rows``, or of all.

    Raises:
        ForecastError: the file is missing, empty, not text, not packed whole, or no table.
    """
    if not path.is_file():
        raise ForecastError(f"{path}: no such file")
    try:
        frame = pd.read_csv(path, dtype=object, nrows=rows, **CSV)
        check_header(frame)
        frame.columns = pd.Index(header_of(path))
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except pd.errors.EmptyDataError as error:
        raise ForecastError(f"{path}: the file is empty; expected a header Datetime,<REGION>_MW") from error
    except (pd.errors.ParserError, ValueError) as error:
        raise ForecastError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ForecastError(f"{path}: cannot be read ({error})") from error
    frame = without_blank_end(frame)
    if frame.empty:
        raise ForecastError(f"{path}: no rows below the header")
    return frame


def columns_of(path: Path, frame: pd.DataFrame) -> tuple[str, str]:
    """The columns with the stamps and with the load.

    Raises:
        ForecastError: there is not one of each.
    """
    names = [str(name).strip() for name in frame.columns]
    frame.columns = pd.Index(names)
    stamps = [name for name in names if name.lower() == "datetime"]
    loads = [name for name in names if name.upper().endswith(_UNIT) and len(name) > len(_UNIT)]
    if len(stamps) != 1 or len(loads) != 1 or not loads[0].isprintable():
        raise ForecastError(
            f"{path}: expected the columns Datetime and one <REGION>_MW, got"
            f" {', '.join(_printable(name) for name in names[:6])}" + (", ..." if len(names) > 6 else "")
        )
    return stamps[0], loads[0]


def region_of(column: str) -> str:
    """The region whose load a column has."""
    return column[: -len(_UNIT)]


def named_as_before(region: str, known: Collection[str]) -> str:
    """The name of a region in a folder that knows the regions ``known``: before, the column "aep_mw" was that
    of a region "aep_mw"."""
    small = (name for name in known if name.upper().endswith(_UNIT) and not name.endswith(_UNIT))
    return region if region in known else next((name for name in small if region_of(name) == region), region)


def _printable(name: str) -> str:
    return name if name.isprintable() and len(name) <= LONGEST else repr(name[:LONGEST])
