"""The page in headless Chromium: that it draws, by mouse, keyboard and on a phone, and does nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradwatch.report import newest_run, page
from tests.browser import Browser
from tests.made_up import record
from tests.report.files import eventful, written
from tests.report.test_page import HOSTILE

# How many points of each chart's canvas are painted.
PAINTED = """[...document.querySelectorAll(".u-wrap > canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let painted = 0;
  for (let i = 3; i < data.length; i += 4) painted += data[i] > 0;
  return painted;
})"""
SAID = "document.querySelector('output').textContent"


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Browser:
    return show(browser, tmp_path)


def show(browser: Browser, folder: Path, names: tuple[str, ...] = ("mlp", "head"), **how: object) -> Browser:
    path = folder / "page.html"
    path.write_text(page(newest_run(eventful(folder / "run.jsonl", names))), encoding="utf-8")
    browser.open(path, **how)  # type: ignore[arg-type]
    return browser


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 375])
def test_it_draws_and_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, width: int, dark: bool, tmp_path: Path
) -> None:
    show(browser, tmp_path, HOSTILE, width=width, dark=dark)
    painted = browser.evaluate(PAINTED)
    assert len(painted) == 4
    assert min(painted) > 1000
    assert browser.complaints == []
    assert browser.asked == [(tmp_path / "page.html").as_uri()]
    # Nothing is wider than the screen: tables scroll by themselves.
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.images.length + document.querySelectorAll('svg').length") == 0


def test_the_step_is_chosen_by_keyboard_and_told_in_words(shown: Browser) -> None:
    shown.evaluate("document.querySelector('.controls input').focus()")
    shown.press("Home")
    assert shown.evaluate(SAID).startswith("Step 1 (1 s): norm 3.841 before, 1 after, limit 1, ratio 0.2603")
    assert "mlp: 3.841, head: 3.841" in shown.evaluate(SAID)
    shown.press("ArrowRight")
    assert shown.evaluate(SAID).startswith("Step 2 ")
    assert shown.evaluate("document.querySelector('.controls input').ariaValueText") != "step 1"
    shown.evaluate("document.querySelector('.controls input').value = 149")
    shown.evaluate("document.querySelector('.controls input').dispatchEvent(new Event('input'))")
    assert "Step 150 (2 min 30 s): norm not finite" in shown.evaluate(SAID)
    assert "not finite here, skipped here" in shown.evaluate(SAID)


def test_every_control_is_reached_by_tab_and_seen_there(shown: Browser) -> None:
    reached = []
    here = "document.activeElement"
    while True:
        shown.press("Tab")
        if shown.evaluate(f"{here} === document.body") or len(reached) > 50:
            break
        reached.append(shown.evaluate(f"{here}.id || {here}.dataset.zoom || {here}.type || {here}.tagName"))
        assert shown.evaluate(f"getComputedStyle({here}).outlineStyle") == "solid"
    assert {"A", "theme", "button", "range", "in", "out", "whole", "SUMMARY"} <= set(reached)


def test_an_incident_is_shown_in_the_charts(shown: Browser) -> None:
    before = shown.evaluate(PAINTED)
    shown.evaluate("document.querySelector('[data-incident]').focus()")
    shown.press("Enter")
    shown.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert shown.evaluate("document.activeElement.type") == "range"
    assert shown.evaluate(SAID).startswith("Step 200 ")
    assert shown.evaluate(PAINTED) != before
    shown.evaluate("document.querySelector('[data-zoom=whole]').click()")
    shown.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert shown.evaluate(PAINTED) == before


def test_colours_are_the_systems_until_they_are_chosen(browser: Browser, tmp_path: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    show(browser, tmp_path, dark=True)
    assert browser.evaluate(paper) == "rgb(15, 19, 24)"
    for chosen, expected in (
        ("light", "rgb(244, 246, 248)"),
        ("dark", "rgb(15, 19, 24)"),
        ("", "rgb(15, 19, 24)"),
    ):
        browser.evaluate(f"theme.value = {chosen!r}; theme.dispatchEvent(new Event('change'))")
        assert browser.evaluate(paper) == expected


def test_norms_over_many_decades_have_their_scale(browser: Browser, tmp_path: Path) -> None:
    run = written(tmp_path / "run.jsonl", [record(1, 1e3, 1.0), record(2, 1e36, 1.0), record(3, 1e300, 1.0)])
    path = run.with_suffix(".html")
    path.write_text(page(newest_run(run)), encoding="utf-8")
    browser.open(path)
    browser.evaluate("""CanvasRenderingContext2D.prototype.fillText = ((write) => function (text, ...where) {
      document.title += ` ${text}`;
      return write.call(this, text, ...where);
    })(CanvasRenderingContext2D.prototype.fillText), null""")
    browser.evaluate("theme.dispatchEvent(new Event('change'))")
    browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert {"1e38", "1e114", "1e266"} <= set(browser.evaluate("document.title").split())


def test_pages_of_next_to_nothing_are_drawn(browser: Browser, tmp_path: Path) -> None:
    for steps in ([], [record(1)], [record(1, modules={}, max_norm=None), record(2, modules={}, max_norm=None)]):
        run = written(tmp_path / f"{len(steps)}.jsonl", steps)
        path = run.with_suffix(".html")
        path.write_text(page(newest_run(run)), encoding="utf-8")
        browser.open(path)
        assert browser.evaluate("document.documentElement.dataset.drawn") == str(min(len(steps), 1))
        assert browser.complaints == []
