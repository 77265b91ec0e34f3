"""Line charts as small SVG pictures: they follow the reader's light or dark scheme and weigh little."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.page.markup import Element, element

KINDS = 8  # of lines, told apart by colour and by dashes; see page.css
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 18, 22


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: in the legend.
        values: ``[n]``, NaN where there is none.
        kind: which colour and dashes, see `KINDS`.
    """

    name: str
    values: FloatArray
    kind: int


@dataclass(frozen=True)
class Band:
    """What lies between two curves, ``[n]`` each; of kind 0 (pale) or 1."""

    name: str
    lower: FloatArray
    upper: FloatArray
    kind: int


def chart(
    said: str,
    unit: str,
    lines: Sequence[Line],
    ticks: Sequence[tuple[int, str]],
    *,
    bands: Sequence[Band] = (),
    dots: npt.NDArray[np.bool_] | None = None,
    logarithmic: bool = False,
    size: tuple[int, int] = (360, 210),
) -> Element:
    """An SVG element with curves over positions 0..n-1.

    Args:
        said: what the picture shows, for those who do not see it.
        unit: of the vertical axis.
        lines, bands: what is drawn, bands below.
        ticks: positions with what stands below them.
        dots: ``[n]`` which points of the first line are marked.
        logarithmic: whether equal distances upwards are equal ratios; what is not above 0 is left out.
        size: in units of the picture.
    """
    width, height = size
    if logarithmic:  # zero is below any place on the axis
        lines = [Line(one.name, np.where(one.values > 0, one.values, np.nan), one.kind) for one in lines]
    curves = [line.values for line in lines] + [edge for band in bands for edge in (band.lower, band.upper)]
    marks = _marks(np.concatenate(curves), logarithmic)
    scaled = np.log if logarithmic else np.asarray
    low, high = (float(scaled(value)) for value in (marks[0], marks[-1]))
    n = len(curves[0])

    def across(position: float | FloatArray) -> FloatArray:
        share = np.asarray(position, dtype=np.float64) / max(n - 1, 1)
        return _LEFT + share * (width - _LEFT - _RIGHT)

    def up(value: float | FloatArray) -> FloatArray:
        share = (scaled(np.asarray(value, dtype=np.float64)) - low) / (high - low)
        return height - _BOTTOM - share * (height - _TOP - _BOTTOM)

    picture = element("svg", viewbox=f"0 0 {width} {height}", role="img", aria_label=said, class_="chart")
    picture.append(element("text", unit, x=2, y=11))
    for mark in marks:
        y = f"{float(up(mark)):.1f}"
        picture.append(element("line", x1=_LEFT, x2=width - _RIGHT, y1=y, y2=y, class_="grid"))
        picture.append(
            element("text", f"{mark:,g}", x=_LEFT - 4, y=f"{float(up(mark)) + 4:.1f}", class_="end")
        )
    for position, text in ticks:
        x = f"{float(across(position)):.1f}"
        picture.append(
            element("line", x1=x, x2=x, y1=height - _BOTTOM, y2=height - _BOTTOM + 4, class_="axis")
        )
        picture.append(element("text", text, x=x, y=height - 5, class_="mid"))
    at = across(np.arange(n, dtype=np.float64))
    for band in bands:
        for run in _runs(band.lower):
            edge = np.concatenate([band.lower[run], band.upper[run][::-1]])
            there = np.concatenate([at[run], at[run][::-1]])
            picture.append(element("path", d=f"{_path(there, up(edge))}Z", class_=f"band k{band.kind}"))
    for line in lines:
        parts = [_path(at[run], up(line.values[run])) for run in _runs(line.values)]
        picture.append(element("path", d="".join(parts), class_=f"line k{line.kind}"))
    for position in np.flatnonzero(dots) if dots is not None else ():
        x, y = across(float(position)), up(lines[0].values[position])
        picture.append(element("circle", cx=f"{float(x):.1f}", cy=f"{float(y):.1f}", r=2.6, class_="dot"))
    return picture


def legend(shown: Sequence[Line | Band], dots: str | None = None) -> Element:
    """What the colours and dashes of a chart mean."""
    items: list[Element] = []
    for one in shown:
        line = isinstance(one, Line)
        drawn = element(
            "path",
            d="M1 6H33" if line else "M1 1H33V11H1Z",
            class_=f"{'line' if line else 'band'} k{one.kind}",
        )
        items.append(element("li", _swatch(drawn), one.name))
    if dots is not None:
        items.append(element("li", _swatch(element("circle", cx=17, cy=6, r=2.6, class_="dot")), dots))
    return element("ul", *items, class_="legend")


def _swatch(drawn: Element) -> Element:
    return element("svg", drawn, viewbox="0 0 34 12", width=34, height=12, aria_hidden="true")


def _runs(values: FloatArray) -> list[npt.NDArray[np.int64]]:
    """Stretches without NaN."""
    there = np.flatnonzero(np.isfinite(values))
    return [run for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if len(run)]


def _path(x: FloatArray, y: FloatArray) -> str:
    # a stretch of one point is drawn by its round ends
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)]
    return f"M{points[0]}L{' '.join(points[1:] or points)}"


def _marks(values: FloatArray, logarithmic: bool) -> FloatArray:
    """Round numbers from below the least to above the largest."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (1.0, 2.0)
    if high <= low:
        low, high = (
            (low / 1.5, high * 1.5)
            if logarithmic
            else (low - abs(low) / 20 - 1e-9, high + abs(high) / 20 + 1e-9)
        )
    if not logarithmic:
        return np.asarray(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    every = np.asarray(LogLocator(subs=(1.0, 2.0, 5.0), numticks=99).tick_values(low / 10, high * 10))
    first = max(int(np.searchsorted(every, low, side="right")) - 1, 0)
    last = int(np.searchsorted(every, high, side="left"))
    return every[first : last + 1]
