"""A run as one page that needs no network: scores, errors, intervals, flaws, gates, settings."""

import html
from importlib.resources import files
from pathlib import Path

from gatedcells.forecast.files import written_beside
from gatedcells.forecast.page import closing, sections
from gatedcells.forecast.page.findings import Findings
from gatedcells.forecast.page.markup import as_html

NAME = "report.html"


def page(findings: Findings) -> str:
    """The page's text."""
    title = f"Forecasting the next hour: {findings.config.recipe_name} recipe"
    found = [
        sections.in_short(findings),
        sections.scores(findings),
        sections.errors(findings),
        sections.against_actual(findings),
        sections.coverage(findings),
        sections.misses(findings),
        closing.flaws(findings),
        closing.gates(findings),
        closing.settings(findings),
    ]
    return _source("page.html") % {
        "title": html.escape(title),
        "css": _source("page.css"),
        "js": _source("page.js"),
        "contents": as_html(sections.contents(found)),
        "sections": "\n".join(as_html(one) for one in found),
    }


def write(path: Path, findings: Findings) -> None:
    """Write the page.

    Raises:
        ForecastError: it cannot be written.
    """
    with written_beside(path) as beside:
        # a path may hold what no text may
        beside.write_bytes(page(findings).encode("utf-8", "backslashreplace"))


def _source(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
