"""Columns of a frame: numbers, names of series, and what says something of them."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from gatedcells.forecast.data import FloatArray, IntArray, nearest_numbers, shown
from gatedcells.forecast.errors import ForecastError

Where = Callable[[int], str]  # what a message calls a row, from 0


def numbers_of(column: Any, name: str, where: Where) -> FloatArray:
    """``[R]``, NaN where blank.

    Raises:
        ForecastError: a cell is no number.
    """
    if column.dtype.is_numeric() or column.dtype == nw.Boolean:
        values = np.array(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
        wrong = np.isinf(values)
    else:
        cells = pd.Series(column.to_list(), dtype=object)
        values = nearest_numbers(cells)
        blank = cells.isna() | cells.astype(str).str.strip().eq("")
        wrong = np.isnan(values) & ~blank.to_numpy() | np.isinf(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ForecastError(f"{where(row)}: {name} is {shown(column[row])}; expected a number")
    return values


def static_of(column: Any, name: str, where: Where, text: bool | None) -> Any:
    """``[R]`` numbers, or text where any cell is.

    Args:
        column: without blanks; name: its name; where: of a row, for a message.
        text: whether it was text when it was fitted on; None before.

    Raises:
        ForecastError: a cell is blank, or none of what was fitted on.
    """
    cells = column.to_list()
    numbers = text is not True and (text is False or column.dtype.is_numeric() or column.dtype == nw.Boolean)
    values: Any = numbers_of(column, name, where) if numbers else np.array([None, *cells], dtype=object)[1:]
    blank = np.asarray(pd.isna(values))
    if blank.any():
        raise ForecastError(
            f"{where(int(np.argmax(blank)))}: the static covariate {name} is blank; expected one of"
            " every series, in each of its rows"
        )
    return values if numbers else np.array([None, *map(str, cells)], dtype=object)[1:]


def ids_of(column: Any, name: str, where: Where) -> tuple[tuple[Any, ...], IntArray]:
    """Names of series, sorted, and ``[R]`` the number of each row's.

    Raises:
        ForecastError: a cell is neither text nor a whole number.
    """
    cells = column.to_list()
    codes, found = pd.factorize(np.asarray(cells, dtype=object))
    wrong, whole = codes < 0, False
    if not wrong.any():
        # numbers may lie among other objects, as the names of columns that were melted
        numbers = [not isinstance(one, bool) and isinstance(one, Integral) for one in found]
        whole = all(numbers)
        wrong = ~np.array([whole or isinstance(one, str) for one in found])[codes]
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ForecastError(
            f"{where(row)}: {name} is {shown(cells[row])}; expected text in all rows, or whole numbers in all"
        )
    ids = [int(one) for one in found] if whole else [str(one) for one in found]
    order = sorted(range(len(ids)), key=lambda at: ids[at])
    number = np.empty(len(ids), dtype=np.int64)
    number[order] = np.arange(len(ids))
    return tuple(ids[at] for at in order), number[codes]
