"""Daily prices from a CSV file as it is published: any order, months by name, separators in the thousands."""

import csv
import hashlib
import re
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from gatedcells.forecast.csv_text import not_utf8
from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.errors import ForecastError

_FORMATS = ("%b %d, %Y", "%Y-%m-%d", "%B %d, %Y", "%d %b %Y")
# separators in the thousands, also as in India; a comma before the decimals is none
_NUMBER = re.compile(r"\+?(\d{1,3}(,\d{2,3})*,\d{3}|\d+)?(\.\d*)?([eE][+-]?\d+)?")
_MISSING = ("", "-", "–", "n/a", "N/A", "#N/A", "NA", "nan", "NaN", "null")  # null as Yahoo writes it


@dataclass(frozen=True)
class Prices:
    """A series of daily closes, oldest first.

    Attributes:
        source: the file's name; sha256: of its bytes.
        days: ``[n]`` dates.
        close: ``[n]`` in the file's currency.
        out_of_order: rows that were earlier than the row above, and were sorted.
        missing_closes: rows without a close, which were left out.
        missing_days: days between the first and the last that no row is of.
    """

    source: str
    sha256: str
    days: tuple[date, ...]
    close: FloatArray
    out_of_order: int
    missing_closes: int
    missing_days: int


def read_prices(path: Path) -> Prices:
    """Read ``Date`` and ``Close`` of a CSV file, whatever other columns it has.

    Dates are like "Jul 31, 2017" or "2017-07-31"; numbers may have separators in the thousands, as in
    "2,875.34"; "-" is a missing number.

    Raises:
        ForecastError: not such a file; with the line, and what was expected.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ForecastError(f"{path}: cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    table = csv.reader(text.splitlines(), strict=True)
    found: dict[date, float] = {}
    order: list[date] = []
    missing = 0
    try:
        header = [name.strip().lower() for name in next(table, [])]
        for name in ("date", "close"):
            if header.count(name) > 1:
                raise ForecastError(f"{path}, line 1: two columns are called {name!r}; expected one")
        if "date" not in header or "close" not in header:
            raise ForecastError(
                f"{path}, line 1: expected columns Date and Close, found {', '.join(header)[:80]}"
            )
        day_column, close_column = header.index("date"), header.index("close")
        for row in table:
            line = table.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise ForecastError(f"{path}, line {line}: expected {len(header)} cells, found {len(row)}")
            day = _day(path, line, row[day_column].strip())
            close = _number(path, line, row[close_column].strip())
            order.append(day)
            if close is None:
                missing += 1
            elif found.setdefault(day, close) != close:
                raise ForecastError(f"{path}, line {line}: another close of {day} than a line before it has")
    except csv.Error as error:
        raise ForecastError(f"{path}, line {table.line_num}: not CSV ({error})") from error
    if not found:
        raise ForecastError(f"{path}: has no close")
    days = sorted(found)
    return Prices(
        source=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        days=tuple(days),
        close=np.array([found[day] for day in days]),
        out_of_order=sum(later < earlier for earlier, later in pairwise(order)),
        missing_closes=missing,
        missing_days=(days[-1] - days[0]).days + 1 - len(days),
    )


def _day(path: Path, line: int, cell: str) -> date:
    for form in _FORMATS:
        try:
            return datetime.strptime(cell, form).date()
        except ValueError:
            continue
    raise ForecastError(
        f"{path}, line {line}: Date is {cell[:40]!r}; expected one like 'Jul 31, 2017' or '2017-07-31'"
    )


def _number(path: Path, line: int, cell: str) -> float | None:
    if cell in _MISSING:
        return None
    try:
        value = float(cell.replace(",", "")) if _NUMBER.fullmatch(cell) else float("nan")
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ForecastError(
            f"{path}, line {line}: Close is {cell[:40]!r}; expected a number greater than 0, as 2875.34 or"
            " 2,875.34"
        )
    return value
