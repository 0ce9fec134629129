"""Take the pictures of a report in headless Chromium: ``python -m docs.report_picture RUN.jsonl FOLDER``.

The run is that of the reference workload with its old faults, see ``docs/report.md``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from gradwatch.report import newest_run, page
from tests.browser import Browser

# Name, size, dark, and what stands at the top of the picture.
PICTURES = (
    ("report-incidents.png", (1200, 860), False, "incidents"),
    ("report-charts.png", (1200, 1080), False, "optimizer-0"),
    ("report-dark.png", (1200, 1080), True, "optimizer-0"),
    ("report-phone.png", (375, 812), False, "optimizer-0"),
)


def main(run: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as made, Browser() as browser:
        path = Path(made) / "report.html"
        path.write_text(page(newest_run(run)), encoding="utf-8")
        for name, (width, height), dark, top in PICTURES:
            browser.open(path, width, height, dark)
            # The page scrolls smoothly for people; a picture is of where it has come to.
            browser.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
            browser.evaluate(f"document.getElementById({top!r}).scrollIntoView()")
            browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            browser.screenshot(Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:3])
