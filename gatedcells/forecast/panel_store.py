"""Where training gets its series from: a panel in memory, or a folder of Parquet files, one at a time.

A folder may hold more than memory does. Every file has whole series, as many as fit in memory together;
training goes through the files in an order drawn anew for each pass, and draws its chunks from the one at
hand.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gatedcells.forecast.csv_text import named
from gatedcells.forecast.data import shown
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.frame_files import PARQUET
from gatedcells.forecast.frames import Names, Style, read_frame
from gatedcells.forecast.grid import Grid
from gatedcells.forecast.panel import Panel, build_panel, offsets_of
from gatedcells.forecast.panel_inputs import PanelInputs
from gatedcells.forecast.panel_report import FramePolicy, FrameReport, FrameWarning
from gatedcells.forecast.placement import placed, positions_of


class Store(Protocol):
    """Series in parts."""

    def __len__(self) -> int:
        """How many parts."""
        ...

    def panel(self, part: int) -> Panel:
        """The series of one."""
        ...


class InMemory:
    """One part, a panel."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def __len__(self) -> int:
        return 1

    def panel(self, part: int) -> Panel:
        """It."""
        return self._panel


class ParquetFolder:
    """The Parquet files of a folder, each a part with whole series.

    Args:
        folder: of Parquet files (``*.parquet``, ``*.pq``), each a frame, long or wide; of others, but not
            of marks such as ``_SUCCESS`` or ``.crc``, a warning tells.
        names, policy: of their columns and for their flaws.
        freq, tz, stamp: as of `gatedcells.forecast.placement.placed`; without ``freq`` that
            of the first file.

    Attributes:
        grid, style: of the first file, and so of all.

    Raises:
        ForecastError: there is none, or the first one cannot be used.
    """

    def __init__(
        self, folder: Path, names: Names, policy: FramePolicy, *, freq: str | None, tz: str | None, stamp: str
    ) -> None:
        every = sorted(folder.iterdir())
        self.paths = [path for path in every if path.suffix.lower() in PARQUET]
        if not self.paths:
            raise ForecastError(f"{folder}: no Parquet files ({', '.join(f'*{one}' for one in PARQUET)})")
        others = (path.name for path in every if path.suffix.lower() not in PARQUET)
        left_out = [name for name in others if name[0] not in "_."]
        if left_out:
            warnings.warn(
                f"{folder}: {len(left_out):,} file(s) left out that are not named as Parquet files are,"
                f" the first {shown(left_out[0])}",
                FrameWarning,
                stacklevel=3,
            )
        self._names, self._policy = names, policy
        self._reports: dict[int, FrameReport] = {}
        rows = self._rows(0)
        with named(self.paths[0]):
            self.grid: Grid = placed(rows, freq=freq, tz=tz, stamp=stamp)[0]
        self.style: Style = rows.style
        self._of_text = isinstance(rows.ids[0], str)
        self._names = replace(names, zoned=None if tz else rows.style.tz is not None)

    def __len__(self) -> int:
        return len(self.paths)

    def panel(self, part: int) -> Panel:
        """Read a file.

        Raises:
            ForecastError: it cannot be used; the message names it.
        """
        rows = self._rows(part)
        if isinstance(rows.ids[0], str) != self._of_text:
            kinds = ("whole numbers", "text") if self._of_text else ("text", "whole numbers")
            raise ForecastError(
                f"{self.paths[part]}: its series are called by {kinds[0]}, those of {self.paths[0].name} by"
                f" {kinds[1]}; expected one kind in all files"
            )
        with named(self.paths[part]):
            positions = positions_of(rows, self.grid)
            panel, self._reports[part] = build_panel(rows, self._names, self.grid, positions, self._policy)
        return panel

    @property
    def report(self) -> FrameReport:
        """Of all files read so far."""
        reports = list(self._reports.values())
        return sum(reports[1:], reports[0])

    def _rows(self, part: int) -> Any:
        names = self._names
        with named(self.paths[part]):
            return read_frame(self.paths[part], names, covariates=(*names.known, *names.past))


class StoreChunks:
    """What training draws from: one part of a store at a time.

    Args:
        store: of series.
        inputs: makes of a part what the network reads of it, up to where training may look.
        windows: places to forecast from, in all.
        windows_a_step: that one training step supervises; steps: of the whole training.
        seed: of the order of parts.
    """

    def __init__(
        self, store: Store, inputs: Callable[[int], PanelInputs], windows: int, windows_a_step: int,
        steps: int, seed: int,
    ) -> None:  # fmt: skip
        self.windows = windows
        self._parts, self._inputs, self._seed = len(store), inputs, seed
        # a pass over all windows visits every part once; a training shorter than a pass still sees each
        a_pass = -(-windows // (windows_a_step * self._parts))
        self._visit = max(min(a_pass, steps // self._parts), 1)
        self._at_hand: tuple[int, PanelInputs] | None = None

    def at(self, step: int) -> PanelInputs:
        """The part of a training step; the same for the same step."""
        visit = step // self._visit
        order = np.random.default_rng((self._seed, visit // self._parts)).permutation(self._parts)
        part = int(order[visit % self._parts])
        if self._at_hand is None or self._at_hand[0] != part:
            self._at_hand = None  # the part before goes before the next one comes
            self._at_hand = (part, self._inputs(part))
        return self._at_hand[1]


def joined(panels: list[Panel]) -> Panel:
    """Panels of one grid behind one another.

    Raises:
        ForecastError: a series is in two of them.
    """
    if len(panels) == 1:
        return panels[0]
    ids = tuple(one for panel in panels for one in panel.ids)
    if len(set(ids)) < len(ids):
        seen: set[Any] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))
        raise ForecastError(f"{shown(twice)} is in two files; expected whole series, each in one file")
    return Panel(
        grid=panels[0].grid,
        ids=ids,
        first=np.concatenate([panel.first for panel in panels]),
        offsets=offsets_of(np.concatenate([panel.sizes for panel in panels])),
        y=np.concatenate([panel.y for panel in panels]),
        known=np.concatenate([panel.known for panel in panels]),
        ahead=0,
        past=np.concatenate([panel.past for panel in panels]),
        static={name: np.concatenate([panel.static[name] for panel in panels]) for name in panels[0].static},
        filled={
            log: np.concatenate([panel.filled[log] for panel in panels])
            for log in (False, True)
            if all(log in panel.filled for panel in panels)
        },
    )
