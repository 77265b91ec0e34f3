"""Elements of a page. What they hold is text, whatever it looks like: the standard library escapes it."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

Element = ET.Element
Content = Element | str | None
_NAMES = {"class_": "class", "for_": "for", "viewbox": "viewBox"}


def element(tag: str, *content: Content, **attributes: str | int | float) -> Element:
    """``element("p", "a ", element("b", "word"), class_="hint")``; None is nothing, ``data_x`` ``data-x``."""
    made = ET.Element(tag)
    for name, value in attributes.items():
        made.set(_NAMES.get(name, name.replace("_", "-")), str(value))
    return fill(made, content)


def fill(made: Element, content: Sequence[Content]) -> Element:
    """Put text and elements at the end of an element."""
    for one in content:
        if isinstance(one, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + one
            else:
                made.text = (made.text or "") + one
        elif one is not None:
            made.append(one)
    return made


def as_html(made: Element) -> str:
    """Its HTML; every element is closed, so none may be one of those that HTML does not close."""
    return ET.tostring(made, encoding="unicode", short_empty_elements=False)


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[Content]],
    *,
    marked: Sequence[int] = (),
    words: bool = False,
) -> Element:
    """A table whose first column names its rows; it scrolls sideways where it has no room.

    Args:
        caption: what it holds.
        heads: of the columns, the first of the row names.
        rows: each as long as ``heads``.
        marked: numbers of the rows that stand out.
        words: whether the cells are words, not numbers.
    """
    body = element("tbody")
    for number, (name, *cells) in enumerate(rows):
        row = element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))
        if number in marked:
            row.set("class", "best")
        body.append(row)
    head = element("thead", element("tr", *(element("th", text, scope="col") for text in heads)))
    inside = element("table", element("caption", caption), head, body, class_="words" if words else "numbers")
    return element("div", inside, class_="scroll", tabindex=0, role="region", aria_label=caption)


def folded(summary: str, *content: Content) -> Element:
    """Something to unfold."""
    return element("details", element("summary", summary), *content)


def section(name: str, heading: str, *content: Content) -> Element:
    """A part of the page under its heading."""
    head = element("h2", heading, id=f"{name}-heading")
    return element("section", head, *content, id=name, aria_labelledby=f"{name}-heading")


def panel(*content: Content, **choices: int) -> Element:
    """What is shown for some choices, see `chooser`."""
    return element("div", *content, data_panel="", **{f"data_{name}": n for name, n in choices.items()})


def chooser(label: str, name: str, options: Sequence[str], start: int = 0) -> Element:
    """A choice among panels: those whose ``data-<name>`` is the option's number, from ``start`` on."""
    chosen = [element("option", text, value=number) for number, text in enumerate(options, start)]
    return element("label", f"{label} ", element("select", *chosen, name=name))


def choice(*choosers: Element) -> Element:
    """Choosers side by side; without a script all panels are shown and nothing is chosen."""
    return element("p", *choosers, class_="controls", hidden="")
