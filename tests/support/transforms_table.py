"""The table of docs/transforms.md, made from what happens: ``python -m tests.support.transforms_table``."""

from __future__ import annotations

import re
import tempfile
import warnings
from pathlib import Path

import torch

from tests.support import two_processes
from tests.support.outcomes import COLUMNS, holds, outcome
from tests.support.transforms import TRANSFORMS
from tests.support.whole_modules import WHOLE_MODULES

PAGE = Path(__file__).parent.parent.parent / "docs" / "transforms.md"
PLACE = re.compile(r"(<!-- transforms -->\n\n).*?(<!-- end of transforms -->)", re.DOTALL)
WAYS = (*TRANSFORMS, *WHOLE_MODULES, *two_processes.TWO_PROCESSES)


def cells() -> dict[str, dict[str, str]]:
    """The page's cells, by the name of the way and by column.

    Raises:
        ValueError: the page has no table, or a row that belongs to no way, or a way has no row.
    """
    table = PLACE.search(PAGE.read_text(encoding="utf-8"))
    if table is None:
        raise ValueError(f"{PAGE} has lost the place of its table")
    head, _, *rows = [line.strip("| ").split(" | ") for line in table[0].splitlines() if line.startswith("|")]
    names = {way.__doc__: way.__name__ for way in WAYS}
    found = {row[0]: dict(zip(head[-len(COLUMNS) :], row[1:], strict=True)) for row in rows}
    if found.keys() != names.keys():
        raise ValueError(f"rows and ways differ: {sorted(found.keys() ^ names.keys())}")
    return {names[text]: row for text, row in found.items()}


def agrees(cell: str, way, cls) -> None:
    """Raise the library's own error where it cannot do what ``cell`` says it can, AssertionError where what
    happens is not what ``cell`` says."""
    if cell == "yes":
        holds(way, cls)
    else:
        found = outcome(way, cls)
        assert found == cell, f"{way.__name__}: the page says {cell!r}, but {found!r}"


def main() -> None:
    """Go through every way with every class, and write the page's table anew."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = two_processes.outcomes(Path(folder))
    for way in (*TRANSFORMS, *WHOLE_MODULES):
        found[way.__name__] = {column: outcome(way, cls) for column, cls in COLUMNS.items()}
        print(way.__name__, *found[way.__name__].values(), flush=True)
    lines = ["|  | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    lines += [f"| {way.__doc__} | " + " | ".join(found[way.__name__].values()) + " |" for way in WAYS]
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(PLACE.sub(lambda m: m[1] + "\n".join(lines) + "\n\n" + m[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
