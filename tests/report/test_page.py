"""The page as text: what is in it, and what a browser could be made to do by it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gradwatch.report import newest_run, page
from tests.made_up import alert, record
from tests.report.files import eventful, named, written

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\" onload='alert(1)' x=\"",
    "]]><!-- ${name} $name &lt;b&gt;",
    "</title></style>\ud800\x1b[2J",
)


class Parsed(HTMLParser):
    """Elements with their attributes, the text outside of scripts and styles, and what is in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", [""]
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self.text += data


def numbers_of(text: str) -> list[dict]:  # type: ignore[type-arg]
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def shape(text: str) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attributes)) for tag, attributes in Parsed(text).elements]


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    """A page with hostile names has the same elements and attributes as one with names that are plain."""
    plain, hostile = (
        page(newest_run(eventful(tmp_path / str(place), names)))
        for place, names in enumerate((("a", "b", "c", "d", "e"), HOSTILE))
    )
    assert shape(plain) == shape(hostile)
    assert len(shape(plain)) > 100
    for name in HOSTILE[:4]:
        assert name in Parsed(hostile).text
    hostile.encode()
    assert [one["heat"]["lines"] for one in numbers_of(hostile)] == [list(HOSTILE)]


def test_no_name_of_a_run_or_an_optimizer_becomes_markup(tmp_path: Path) -> None:
    def made(name: str) -> str:
        return page(newest_run(written(tmp_path / name[:1], [record(1, optimizer=name)], run=named(name))))

    for name in HOSTILE[:4]:
        assert shape(made(name)) == shape(made("plain"))
        (tmp_path / name[:1]).unlink()


def test_it_asks_nothing_of_the_network_and_runs_its_own_scripts_alone(tmp_path: Path) -> None:
    text = page(newest_run(eventful(tmp_path / "x")))
    parsed = Parsed(text)
    assert not [
        a for tag, a in parsed.elements if "src" in a or tag in ("link", "iframe", "object", "embed", "base")
    ]
    policy = next(a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    run = [script for script in parsed.scripts if script and not script.startswith("[")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run]
    assert re.findall(r"'sha256-([^']*)'", policy) == hashes
    assert len(hashes) == 3


def test_the_licence_of_the_charts_is_with_them(tmp_path: Path) -> None:
    assert "Permission is hereby granted, free of charge" in page(newest_run(written(tmp_path / "x", [record(1)])))


def test_what_is_drawn_is_there_in_words_and_tables(tmp_path: Path) -> None:
    said = Parsed(page(newest_run(eventful(tmp_path / "x")))).text
    for words in (
        "dead-relu at mlp",
        "Lower the learning rate.",
        "since step 200 of actor",
        "the gradient is NaN",
    ):
        assert words in said
    assert "4e+05" in said


def test_ten_thousand_steps_are_light_and_lose_no_spike(tmp_path: Path) -> None:
    names = tuple(f"transformer.h.{place}" for place in range(15))
    text = page(newest_run(eventful(tmp_path / "x", names, steps=10_000)))
    assert len(text) < 600_000
    (drawn,) = numbers_of(text)
    assert drawn["whole"] == 10_000
    assert drawn["before"][drawn["steps"].index(100)] == 4e5
    assert drawn["marks"]["not finite"] == [[150, 151, 2]]
    column = max(place for place, begin in enumerate(drawn["heat"]["begins"]) if begin <= 100)
    assert [line[column] for line in drawn["heat"]["cells"]] == [4e5] * 15
    assert 0.0 in drawn["heat"]["cells"][0]
    # Around an incident no step is left out.
    assert set(range(101, 300)) <= set(drawn["steps"])
    assert f"{len(drawn['steps'])} of 10000 steps are drawn" in text


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_of_next_to_no_steps_has_a_page(steps: int, tmp_path: Path) -> None:
    made = page(newest_run(written(tmp_path / "x", [record(step + 1) for step in range(steps)])))
    assert "No incident" in made
    assert len(numbers_of(made)) == min(steps, 1)


def test_a_flood_of_incidents_is_counted(tmp_path: Path) -> None:
    events = [
        alert(state, step, module=f"m{place}")
        for place in range(120)
        for state, step in (("firing", 2 * place + 1), ("resolved", 2 * place + 2))
    ]
    text = page(newest_run(written(tmp_path / "x", [record(step) for step in range(1, 241)], events)))
    assert "And 20 more incidents" in text
    assert text.count("<article") == 100
