import io

import pytest
import rich
from rich.console import Console as RichConsole

from gradwatch.records import GroupNorms, Health
from gradwatch.sinks import Console
from gradwatch.sinks.console import table
from tests.made_up import alert, record, run_info


@pytest.fixture
def screen(monkeypatch):
    def make(terminal):
        console = RichConsole(file=io.StringIO(), width=120, force_terminal=terminal)
        monkeypatch.setattr(rich, "get_console", lambda: console)
        return console

    return make


def shown(console, records, alerts):
    sink = Console()
    sink.open(run_info(), Health)
    sink.write(records, alerts)
    sink.close()
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal(screen):
    text = shown(screen(False), [record(4, 5.0, 1.0)], [alert()])
    assert "! CRITICAL zero at actor/mlp, step 1: the gradient of mlp is exactly 0." in text
    assert "actor step 4: norm 5 before, 1 after clipping (mlp 1)" in text
    assert "\x1b" not in text


def test_a_table_in_a_terminal(screen):
    text = shown(screen(True), [record(4, 5.0, 1.0, clipped=True)], [alert()])
    for word in ("actor", "mlp", "before", "after", "clipped", "CRITICAL zero"):
        assert word in text


def test_zero_and_missing_are_said_in_words_not_by_colour_alone():
    console = RichConsole(file=io.StringIO(), width=120)
    modules = {"dead": GroupNorms(0.0, 0.0), "gone": GroupNorms(float("nan"), float("nan"))}
    console.print(table({"actor": record(modules=modules, missing_modules=("gone",))}, []))
    text = console.file.getvalue()
    assert "ZERO" in text
    assert "no gradient" in text
    assert "no alerts" in text
