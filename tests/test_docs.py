"""The examples of README and docs run and print what they say."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

from benchmarks import tables
from gatedcells_kernels.triton import library
from tests.support.triton_device import without_interpreter as without_interpreter

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", re.DOTALL)
EXAMPLES = [
    pytest.param(page.name, code, printed, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (code, printed) in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8")))
]


SITE = ROOT / "docs" / "mkdocs" / "mkdocs.yml"
INTERPRETED = ("kernels.md",)


@pytest.mark.parametrize(("page", "code", "printed"), EXAMPLES)
def test_an_example_prints_what_the_page_says(page, code, printed, request):
    if page == "exchange.md" and sys.version_info < (3, 11):
        pytest.skip("Keras and JAX are tested from Python 3.11 on")
    if page not in INTERPRETED:
        request.getfixturevalue("without_interpreter")
    elif (why_not := library.why_not() or "").startswith("needs Triton"):
        pytest.skip(why_not)  # torch 2.6 to 2.9 bring an older one
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    assert output.getvalue().splitlines() == printed.splitlines()


def test_there_are_examples():
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_navigation():
    navigation = SITE.read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in navigation


def test_the_site_is_made_of_the_pages_by_a_configuration_that_mkdocs_takes():
    (pages,) = re.findall(r"^docs_dir: (.+)$", SITE.read_text(encoding="utf-8"), re.M)
    assert (SITE.parent / pages).resolve() == ROOT / "docs"
    assert SITE.parent != ROOT / "docs"  # the pages' own folder may not hold it
    assert str(SITE.relative_to(ROOT).as_posix()) in (ROOT / "docs" / "contributing.md").read_text("utf-8")


def test_no_placeholder_is_left():
    for page in PAGES:
        assert not re.search(r"@@|{{|TODO|FIXME", page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_measurements_are_made_from_the_rows(page):
    text = page.read_text(encoding="utf-8")
    assert tables.fill(text) == text, "run: python -m benchmarks.tables"


def test_every_kind_of_row_but_the_import_time_has_its_table():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(tables.TABLES) == {match[2] for match in tables.PLACE.finditer(text)}
