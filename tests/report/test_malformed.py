"""Whatever a line holds: each run is told, in words and as a page, or refused in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradwatch.errors import ArgumentError
from gradwatch.records import Health
from gradwatch.report import newest_run, page, told
from gradwatch.sinks.flight import FlightRecorder
from tests.made_up import alert, record, run_info
from tests.report.files import eventful
from tests.report.test_page import numbers_of

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([[], {}, [[1, 2]], {"a": 1}]),
    st.sampled_from(["NaN", "Infinity", "-Infinity", -1, 1.7976931348623157e308, 1 << 70, -1e300, "\ud800"]),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a line, at whatever depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, one in inner for place in places(one, (*path, name)))]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("good")
    recorder = FlightRecorder(folder / "run.jsonl")
    recorder.open(run_info(), Health)
    recorder.write([record(1), record(2)], [alert("firing", 2)])
    files = [folder / "run.flight-1.jsonl", eventful(folder / "brief.jsonl", ("mlp", "head"), steps=3)]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_line_stops_a_report(data: st.DataObject, lines: list[Any], tmp_path: Path) -> None:
    lines = json.loads(json.dumps(lines))
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        *way, last = data.draw(st.sampled_from([place for place in places(lines[number]) if place] or [(None,)]))
        if last is not None:
            at = lines[number]
            for name in way:
                at = at[name]
            at[last] = data.draw(ODD)
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    try:
        run = newest_run(path)
    except ArgumentError:
        return
    assert all(line.isprintable() for line in told(run))
    text = page(run)
    text.encode()
    assert not [one for one in _numbers(numbers_of(text)) if not math.isfinite(one)]


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, (int, float)) else []
