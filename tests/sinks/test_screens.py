"""Screens of a made-up run, compared as text; ``GRADWATCH_DRAW=1`` draws those that are expected anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.sinks.screens import redirected, run

EXPECTED = Path(__file__).parent / "expected"

# A model with more lines than any screen has, of which two are ill.
RUN = """
import math, os, sys, time
from gradwatch.records import Cause, GroupNorms, Health
from gradwatch.sinks import Console
from tests.made_up import alert, record, run_info
NAMES = [f"model.layers.{n}.mlp.feed_forward.down_projection" for n in range(32)]
def step(n, optimizer="actor"):
    modules = {name: GroupNorms(place + 1.5 ** (n % 7), 0.1) for place, name in enumerate(NAMES)}
    if n > 20:
        modules[NAMES[17]] = GroupNorms(0.0, 0.0)
        modules[NAMES[3]] = GroupNorms(math.nan, math.nan)
    return record(n, 2.0**n, 1.0, modules=modules, clipped=True, optimizer=optimizer)
def fired(n):
    if n == 21:
        cause = Cause("saturated-tanh", NAMES[17], {"share": 1.0}, "Make what enters it smaller: normalise it, "
            "start the last layer small, or lower the rate.")
        return [alert(step=n, module=NAMES[17], cause=cause, time=1_700_000_009.0)]
    return [alert(step=n, rule="growth", severity="warning", module=None)] if n == 11 else []
def sink(**options):
    return Console(interval=0.0, **options)
console = sink()
console.open(run_info(tuple(NAMES)), Health)
print("a line of the program", flush=True)
for n in range(1, 41):
    console.write([step(n)], fired(n))
    if n % 10 == 0:
        print(f"at {n}", flush=True)
"""
KILLED = "os._exit(0)\n"
ENDED = "console.close()\nprint('behind it')\n"


def compared(name: str, text: str) -> None:
    path = EXPECTED / f"{name}.txt"
    if os.environ.get("GRADWATCH_DRAW"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    assert text.splitlines() == path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=str)
@pytest.mark.parametrize("how", ["live", "ended"])
def test_what_a_person_sees(how: str, size: tuple[int, int]) -> None:
    shown = run(RUN + (KILLED if how == "live" else ENDED), *size)
    assert shown.status == 0, shown.text
    compared(f"{how}-{size[0]}x{size[1]}", shown.text.rstrip())


def test_the_live_screen_takes_half_of_the_terminal_and_never_scrolls() -> None:
    shown = run(RUN + KILLED, 80, 24)
    assert shown.above == []
    panel = shown.screen[12:]
    assert panel[0].startswith("── gradwatch: 2 incidents not over")
    assert panel[1].startswith("CRITICAL since step 21 of ")
    assert shown.screen[:5] == ["a line of the program", "at 10", "at 20", "at 30", "at 40"]
    assert not any(shown.screen[5:12])


def test_the_lines_of_a_full_screen_move_up_and_stay_whole() -> None:
    full = "for n in range(30): print('earlier', n)\nprint('half of a', end=' ', flush=True)\n" + RUN
    shown = run(full + KILLED, 80, 24)
    expected = [*(f"earlier {n}" for n in range(30)), "half of a a line of the program"]
    assert shown.lines[: len(expected) + 4] == [*expected, "at 10", "at 20", "at 30", "at 40"]
    assert shown.screen[12].startswith("── gradwatch")


def test_rows_and_width_are_options() -> None:
    shown = run(RUN.replace("console = sink()", "console = sink(rows=7, width=70)") + KILLED, 80, 24)
    assert not any(shown.screen[5:17])
    assert all(shown.screen[17:])
    assert max(map(len, shown.screen[17:])) == 70


def test_without_colour_where_none_is_wanted() -> None:
    codes = re.compile(r"\x1b\[[0-9;]*m")
    bare = run(RUN + ENDED, 80, 24, {"NO_COLOR": "1"})
    # Bold is no colour.
    assert set(codes.findall(bare.written)) <= {"\x1b[1m", "\x1b[2m", "\x1b[0m"}
    assert {"\x1b[1;31m"} <= set(codes.findall(run(RUN + ENDED, 80, 24).written))


@pytest.mark.parametrize("how", ["TERM=dumb", "pipe"])
def test_plain_lines_where_the_output_is_no_screen(how: str) -> None:
    if how == "pipe":
        status, text, _ = redirected(RUN + ENDED)
    else:
        shown = run(RUN + ENDED, 140, 400, {"TERM": "dumb"})
        status, text = shown.status, shown.written
    assert (status, "\x1b" in text) == (0, False)
    lines = text.splitlines()
    assert lines[0] == "a line of the program"
    assert sum(line.startswith("actor step ") for line in lines) == 41
    assert [line[:11] for line in lines if line[0] in "!+"] == ["! WARNING g", "! CRITICAL "]
    assert lines[-1] == "behind it"


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_a_code_page_gets_what_it_has(encoding: str) -> None:
    shown = run(RUN + ENDED, 80, 24, encoding=encoding)
    assert shown.status == 0, shown.text
    assert shown.written.isascii()
    assert "-- gradwatch: 2 incidents not over" in shown.text
    status, _, err = redirected(RUN.replace("model.layers", "mödel.läyers") + ENDED, encoding)
    assert status == 0, err


def test_two_at_once_share_the_screen() -> None:
    both = RUN.replace(
        "console.open(", "other = sink(); other.open(run_info(tuple(NAMES)), Health); console.open("
    ).replace("console.write([step(n)]", "other.write([step(n, 'critic')], []); console.write([step(n)]")
    shown = run(both + KILLED, 80, 24)
    assert sum("norm (L2)" in line for line in shown.screen) == 2
    assert [line.split(",")[0] for line in shown.screen if ", step 40" in line] == ["critic", "actor"]
    ended = run(both + "console.close()\nother.close()\nprint('behind it')\n", 80, 24)
    assert ended.margins is None
    assert ended.lines.count("behind it") == 1
    # Each has its last words; nothing of the panels is left.
    assert sum("norm (L2)" in line for line in ended.lines) == 2


@pytest.mark.parametrize("size", [(100, 40), (60, 16)], ids=str)
def test_a_terminal_that_changes_its_size(size: tuple[int, int]) -> None:
    resizing = RUN.replace(
        "if n % 10", "if n == 15:\n        print('RESIZE', flush=True); time.sleep(1)\n    if n % 10"
    )
    shown = run(resizing + KILLED, 80, 24, resized=size)
    rows = shown.screen
    assert sum("norm (L2)" in row for row in rows) == 1
    assert rows[size[1] // 2].startswith("── gradwatch")
    for line in ("at 20", "at 30", "at 40"):
        assert rows.count(line) == 1


def test_it_shows_where_the_output_is_a_file_and_the_errors_a_terminal() -> None:
    shown = run("import sys\nsys.stdout = open('/dev/null', 'w')\n" + RUN + KILLED, 80, 24)
    assert sum("norm (L2)" in row for row in shown.screen) == 1
    ended = run("import sys\nsys.stdout = open('/dev/null', 'w')\n" + RUN + ENDED, 80, 24)
    assert "gradwatch: 2 alerts fired" in ended.text


def test_another_rank_shows_no_panel() -> None:
    other = RUN.replace(
        "console.open(run_info(tuple(NAMES))",
        "from dataclasses import replace; console.open(replace(run_info(tuple(NAMES)), rank=1)",
    )
    shown = run(other + ENDED, 140, 40)
    assert "norm (L2)" not in shown.text
    assert "! CRITICAL" in shown.text
