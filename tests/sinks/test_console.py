import io
import math
import sys

import numpy as np
import pytest
import rich
from rich.console import Console as RichConsole
from rich.progress import Progress

from gradwatch.blocks import Block, Facts, Layout, StepRow, Steps
from gradwatch.records import Cause, GroupNorms, Health
from gradwatch.sinks import Console
from gradwatch.sinks.table import render
from tests.made_up import alert, record, run_info

NAN = GroupNorms(math.nan, math.nan)


@pytest.fixture
def screen(monkeypatch):
    def make(terminal):
        console = RichConsole(file=io.StringIO(), width=120, force_terminal=terminal, _environ={"TERM": "xterm"})
        monkeypatch.setattr(rich, "get_console", lambda: console)
        return console

    return make


def shown(console, records, alerts):
    sink = Console()
    sink.open(run_info(), Health)
    sink.write(records, alerts)
    sink.close()
    return console.file.getvalue()


def drawn(records, alerts=()):
    console = RichConsole(file=io.StringIO(), width=120)
    console.print(render(records, alerts))
    return console.file.getvalue()


def row(text, name):
    (line,) = (line for line in text.splitlines() if f" {name} " in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_plain_lines_where_there_is_no_terminal(screen):
    text = shown(screen(False), [record(4, 5.0, 1.0)], [alert()])
    assert text == (
        "! CRITICAL zero at mlp, step 1 of actor: the gradient of mlp is exactly 0.\n"
        "actor step 4: norm 5 before, 1 after clipping (mlp 1)\n"
        "gradwatch: 1 alert fired, in 1 incident, 1 not over at the end.\n"
        "CRITICAL since step 1 of actor: zero at mlp\n"
        "  zero at mlp, step 1 of actor: the gradient of mlp is exactly 0.\n"
    )


def test_a_status_line_comes_every_ten_seconds_and_not_at_every_step(screen, monkeypatch):
    seconds = 0.0
    monkeypatch.setattr("gradwatch.sinks.console.time.monotonic", lambda: seconds)
    console = screen(False)
    sink = Console()
    sink.open(run_info(), Health)
    for step in range(1, 26):
        seconds = float(step)
        sink.write([record(step)], [])
    lines = console.file.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["actor step 10", "actor step 20"]
    sink.close()
    assert console.file.getvalue().splitlines()[-1] == "gradwatch: no alert fired."


def test_a_table_in_a_terminal(screen):
    text = shown(screen(True), [record(4, 5.0, 1.0, clipped=True)], [alert()])
    for word in ("actor", "mlp", "before", "after", "clipped", "CRITICAL zero"):
        assert word in text


def test_the_table_is_drawn_four_times_a_second_at_most(screen, monkeypatch):
    seconds = 0.0
    monkeypatch.setattr("gradwatch.sinks.console.time.monotonic", lambda: seconds)
    drawings = []
    monkeypatch.setattr("gradwatch.sinks.console.render", lambda *_: drawings.append(seconds) or "")
    screen(True)
    sink = Console()
    sink.open(run_info(), Health)
    for step in range(1, 201):
        seconds = step / 100
        sink.write([record(step)], [])
    assert len(drawings) == 8
    sink.close()


def test_it_shares_the_screen_with_a_progress_bar_opened_before_or_after_it(screen):
    console = screen(True)
    sink = Console()
    with Progress(console=console, auto_refresh=False) as outer:
        outer.add_task("outer-bar", total=1)
        sink.open(run_info(), Health)
        sink.write([record(1)], [alert()])
        with Progress(console=console, auto_refresh=False) as inner:
            inner.add_task("inner-bar", total=1)
            inner.refresh()
        sink.close()
    text = console.file.getvalue()
    for word in ("outer-bar", "inner-bar", "CRITICAL zero", "mlp"):
        assert word in text


def test_what_fires_stays_beneath_the_table_and_what_is_over_leaves(screen):
    screen(True)
    sink = Console()
    sink.open(run_info(), Health)
    sink.write([record(1)], [alert(), alert(rule="explosion", module=None, message="large")])
    cause = Cause("frozen", "mlp", {}, "Set requires_grad.")
    sink.write(
        [record(2)], [alert("explained", step=2, cause=cause), alert("resolved", 2, rule="explosion", module=None)]
    )
    (lasting,) = sink._incidents.active()
    assert (lasting.title, lasting.root, {a.rule for a in lasting.alerts}) == ("frozen at mlp", cause, {"zero"})
    sink.write([], [alert("resolved", 3)])
    assert not sink._incidents.active()
    sink.close()


def test_zero_and_missing_are_said_in_words_not_by_colour_alone():
    modules = {"dead": GroupNorms(0.0, 0.0), "gone": NAN, "ill": GroupNorms(math.inf, math.nan)}
    text = drawn([record(modules=modules, missing_modules=("gone",))])
    assert row(text, "dead") == ["dead", "", "0", "0", "1", "", "ZERO"]
    assert row(text, "gone")[-1] == "no gradient"
    assert row(text, "ill")[-1] == "not finite"
    assert "no alerts" in text


def test_a_skipped_step_is_not_said_to_be_a_fault_of_the_modules_that_were_finite():
    modules = {"good": GroupNorms(2.0, math.nan), "bad": NAN}
    text = drawn([record(1, math.nan, math.nan, skipped=True, nonfinite=("bad.weight",), modules=modules)])
    assert row(text, "actor")[-1] == "not finite, skipped"
    assert row(text, "good")[-1] == ""
    assert row(text, "bad")[-1] == "not finite"


def test_names_are_no_markup():
    text = drawn([record(optimizer="a[b]", modules={"x[red]y": GroupNorms(1.0, 1.0)})], [alert(module="[/]")])
    for name in ("a[b]", "x[red]y", "zero at [/]"):
        assert name in text


def test_names_are_no_markup_in_plain_lines_either(screen):
    assert "zero at [red]x, step 1" in shown(screen(False), [], [alert(module="[red]x")])


def test_it_gives_the_terminal_back(screen):
    before = sys.stdout
    text = shown(screen(True), [record()], [])
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert sys.stdout is before


def test_the_last_screen_tells_each_incident_and_what_to_do(screen):
    cause = Cause("saturated-tanh", "mlp", {"share": 1.0}, "Make it smaller.")
    other = Cause("shortcut", "cnn", {"silent": "mlp"}, "Cut the path.")
    fired = [
        alert(step=2),
        alert("explained", 3, cause=cause),
        alert(step=9, rule="growth", module=None, cause=other),
    ]
    text = shown(screen(False), [record(9)], fired)
    assert text[text.index("gradwatch: ") :] == (
        "gradwatch: 2 alerts fired, in 1 incident, 1 not over at the end.\n"
        "CRITICAL since step 2 of actor: saturated-tanh at mlp\n"
        "  zero at mlp, step 2 of actor: the gradient of mlp is exactly 0. Cause: saturated-tanh at mlp (share 1).\n"
        "  growth, step 9 of actor: the gradient of mlp is exactly 0. Cause: shortcut at cnn (silent mlp).\n"
        "  To do: Make it smaller.\n"
        "  Then: Cut the path.\n"
    )


def test_at_the_end_a_terminal_shows_a_story_once_beneath_the_table(screen):
    sink, console = Console(), screen(True)
    sink.open(run_info(), Health)
    sink.write([record(4)], [alert()])
    before = len(console.file.getvalue())
    sink.close()
    end = console.file.getvalue()[before:]
    assert end.count("CRITICAL since step 1 of actor") == 1
    assert end.index("actor") < end.index("gradwatch: 1 alert fired")


def test_of_many_incidents_the_newest_are_told_at_the_end_and_the_others_counted(screen):
    several = [alert(state, step, rule="stale") for step in range(1, 9) for state in ("firing", "resolved")]
    text = shown(screen(False), [record(9)], several)
    assert "gradwatch: 8 alerts fired, in 8 incidents, 0 not over at the end.\nThe last 5:\n" in text
    assert [n for n in range(1, 9) if f"CRITICAL since step {n} of" in text] == [4, 5, 6, 7, 8]


def test_of_many_alerts_the_newest_are_shown_and_the_others_counted():
    text = drawn([record()], [alert(step=step) for step in range(1, 9)])
    assert [step for step in range(1, 9) if f"step {step} of" in text] == [4, 5, 6, 7, 8]
    assert "and 3 older" in text


def test_of_many_steps_only_those_shown_become_records(screen, monkeypatch):
    made = []
    monkeypatch.setattr(Block, "_record", lambda self, index: made.append(index) or record(index + 1))
    layout = Layout("actor", ("w",), {}, {}, np.zeros(1))
    rows = [StepRow(step, float(step), Facts.usual(1)) for step in range(1, 17)]
    sink = Console()
    console = screen(False)
    sink.open(run_info(), Health)
    sink.write(Steps.of(Block(layout, rows, np.ones((16, 1)), np.ones((16, 1)))), [])
    assert made == []
    sink.close()
    assert made == [15]
    assert "actor step 16: norm 5" in console.file.getvalue()
