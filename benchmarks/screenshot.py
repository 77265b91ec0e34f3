"""The figure of docs/forecasting.md: ``python -m benchmarks.screenshot RUN/report.html``.

Opens the report of a run in a headless Chromium and keeps what it shows of errors, forecasts and intervals.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.plot import FIGURES

WIDTH = 1100


def main(report: Path) -> Path:
    """Write docs/figures/report.png."""
    path = FIGURES / "report.png"
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        top, bottom = (page.locator(f"#{name}").bounding_box() for name in ("errors", "intervals"))
        if top is None or bottom is None:
            raise SystemExit(f"{report}: is no report of a run")
        height = bottom["y"] + bottom["height"] - top["y"]
        page.screenshot(
            path=path, full_page=True, clip={"x": 0, "y": top["y"], "width": WIDTH, "height": height}
        )
        browser.close()
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="the report.html of a run")
    print(main(parser.parse_args().report))
