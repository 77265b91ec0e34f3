"""A trace as a self-contained page: the recorded values, and the equations implemented in JavaScript."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from gatedcells._files import written_beside
from gatedcells.trace.equations import check_index, check_plain

if TYPE_CHECKING:
    from gatedcells.trace.record import Trace

SCRIPTS = ("cells.js", "diagram.js", "words.js", "page.js", "panels.js", "keys.js")
_LARGEST_IN_A_NOTEBOOK = 5_000_000  # bytes; beyond it a notebook would be slow to save


def page(trace: Trace, title: str) -> str:
    """The page's text; see `Trace.to_html`."""
    check_plain(trace[0], "to_html")
    check_index("row", 0, trace[0].x.shape[1])
    content = json.loads(trace.to_json()) | {"dtype": str(trace[0].x.dtype).removeprefix("torch.")}
    written = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return _source("page.html") % {
        "title": html.escape(title),
        "css": _source("page.css"),
        "js": "\n".join(_source(name) for name in SCRIPTS),
        # nothing in the data may end the element that holds it
        "data": written.replace("<", "\\u003c").replace(">", "\\u003e"),
    }


def write(trace: Trace, path: str | Path | None, title: str) -> str:
    """See `Trace.to_html`."""
    text = page(trace, title)
    if path is not None:
        with written_beside(Path(path)) as beside:
            beside.write_text(text, encoding="utf-8")
    return text


def in_a_notebook(trace: Trace) -> str:
    """See `Trace._repr_html_`."""
    if trace[0].beyond:
        return f"<p>The page shows the plain GRU and LSTM only, not {html.escape(trace[0].beyond)}.</p>"
    if trace[0].x.shape[1] == 0:
        return "<p>The batch is empty: there is nothing to show.</p>"
    text = page(trace, "Step by step")
    if len(text) > _LARGEST_IN_A_NOTEBOOK:
        return (
            f"<p>The page has {len(text) / 1e6:.0f} MB, too large for a notebook:"
            ' write it to a file with <code>trace.to_html("trace.html")</code>.</p>'
        )
    return (
        '<iframe style="width:100%;height:900px;border:0" title="Step by step"'
        f' sandbox="allow-scripts" srcdoc="{html.escape(text)}"></iframe>'
    )


def _source(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
