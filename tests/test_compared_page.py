"""docs/compared.md: every cell about a library has a source, and ours are files of this repository."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "compared.md").read_text(encoding="utf-8")
ROWS = [re.split(r" \| ", line.strip("| ")) for line in TEXT.splitlines() if line.startswith("| ")]
SOURCES = dict(re.findall(r"^(\d+)\. (.*(?:\n   +.*)*)", TEXT, re.MULTILINE))


def cited(cell):
    found = re.search(r"\[([\d, ]+)\]$", cell)
    return found[1].split(", ") if found else []


def test_every_cell_has_a_source_or_says_that_none_was_found():
    libraries = ROWS[0]
    for name, *cells in ROWS[1:]:
        assert len(cells) == len(libraries), name
        for cell in cells:
            assert cited(cell) or cell == "not stated" or name == "licence", (name, cell)


def test_every_source_is_cited_and_every_citation_has_one():
    used = {number for row in ROWS[1:] for cell in row for number in cited(cell)}
    assert used == set(SOURCES)


def test_our_own_cells_are_tests_of_this_repository():
    for _, ours, *_ in ROWS[1:-1]:
        for number in cited(ours):
            files = re.findall(r"`(tests/[\w/]+\.py)`", SOURCES[number])
            assert files, number
            assert all((ROOT / file).exists() for file in files), number
