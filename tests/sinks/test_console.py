"""What the console says, and when; how it looks in a terminal is in ``test_screens.py``."""

import io
import math
import sys

import numpy as np
import pytest
from rich.console import Console as RichConsole

from gradwatch.blocks import Block, Facts, Layout, StepRow, Steps
from gradwatch.records import Cause, GroupNorms, Health
from gradwatch.sinks import Console
from gradwatch.sinks.names import fitted, shortened
from gradwatch.sinks.table import Picture
from tests.made_up import alert, record, run_info

NAN = GroupNorms(math.nan, math.nan)


def shown(capsys, records, alerts):
    sink = Console()
    sink.open(run_info(), Health)
    sink.write(records, alerts)
    sink.close()
    return capsys.readouterr().out


def drawn(records, alerts=(), width=120, **options):
    console = RichConsole(file=io.StringIO(), width=width)
    console.print(Picture(records, alerts, **options))
    return console.file.getvalue()


def row(text, name):
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{name} "))
    return line.split()


def test_plain_lines_where_there_is_no_terminal(capsys):
    assert shown(capsys, [record(4, 5.0, 1.0)], [alert()]) == (
        "! CRITICAL zero at mlp, step 1 of actor: the gradient of mlp is exactly 0.\n"
        "actor step 4: norm 5 before, 1 after clipping (mlp: 1)\n"
        "gradwatch: 1 alert fired, in 1 incident, 1 not over at the end.\n"
        "CRITICAL since step 1 of actor: zero at mlp\n"
        "  zero at mlp, step 1 of actor: the gradient of mlp is exactly 0.\n"
    )


def test_a_norm_that_nothing_clips_is_told_once(capsys):
    assert "actor step 4: norm 5, not clipped (mlp: 5)\n" in shown(
        capsys, [record(4, 5.0, 5.0, max_norm=None)], []
    )
    assert ": norm 5 before, 4 after clipping" in shown(capsys, [record(4, 5.0, 4.0, max_norm=None)], [])
    assert ": norm 5 before, 5 after clipping" in shown(capsys, [record(4, 5.0, 5.0, max_norm=9.0)], [])


def test_a_gradient_that_is_missing_is_none_and_only_one_that_is_not_a_number_is_nan(capsys):
    modules = {"gone": NAN, "ill": NAN, "good": GroupNorms(2.0, 2.0)}
    ill = record(4, math.nan, math.nan, modules=modules, missing_modules=("gone",), nonfinite=("ill.weight",))
    assert "norm nan before, nan after clipping (gone: none, ill: nan, good: 2)" in shown(capsys, [ill], [])
    nothing = record(5, math.nan, math.nan, modules={"gone": NAN}, missing_modules=("gone",))
    assert "norm none before, none after clipping (gone: none)" in shown(capsys, [nothing], [])


@pytest.mark.parametrize(("interval", "expected"), [(None, [10, 20]), (5.0, [5, 10, 15, 20, 25])])
def test_a_status_line_comes_every_ten_seconds_and_not_at_every_step(capsys, monkeypatch, interval, expected):
    seconds = 0.0
    monkeypatch.setattr("gradwatch.sinks.console.time.monotonic", lambda: seconds)
    sink = Console(interval=interval)
    sink.open(run_info(), Health)
    for step in range(1, 26):
        seconds = float(step)
        sink.write([record(step)], [])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"actor step {step}" for step in expected]
    sink.close()
    assert capsys.readouterr().out.splitlines()[-1] == "gradwatch: no alert fired."


def test_it_is_closed_twice_and_opened_again(capsys):
    sink = Console()
    for _ in range(2):
        sink.open(run_info(), Health)
        sink.write([], [alert()])
        sink.close()
        sink.close()
    assert capsys.readouterr().out.count("gradwatch: 1 alert fired") == 2


def test_without_any_output_it_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    sink = Console()
    sink.open(run_info(), Health)
    sink.write([record()], [alert()])
    sink.close()


def test_what_fires_is_told_above_the_table_and_what_is_over_is_not(capsys):
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
    assert row(text, "dead") == ["dead", "0", "0", "none", "ZERO"]
    assert row(text, "gone") == ["gone", "none", "none", "none", "no", "gradient"]
    assert row(text, "ill")[-2:] == ["not", "finite"]
    assert "nothing fires" in text


def test_before_the_first_step_it_is_not_said_that_all_is_well():
    text = drawn([])
    assert "gradwatch: no step yet" in text
    assert "nothing fires" not in text


def test_a_skipped_step_is_not_said_to_be_a_fault_of_the_modules_that_were_finite():
    modules = {"good": GroupNorms(2.0, math.nan), "bad": NAN}
    text = drawn([record(1, math.nan, math.nan, skipped=True, nonfinite=("bad.weight",), modules=modules)])
    assert row(text, "actor,")[-1] == "skipped"
    assert row(text, "good")[-3:] == ["2", "none", "none"]
    assert row(text, "bad") == ["bad", "nan", "none", "none", "not", "finite"]


def test_names_are_no_markup():
    text = drawn([record(optimizer="a[b]", modules={"x[red]y": GroupNorms(1.0, 1.0)})], [alert(module="[/]")])
    for name in ("a[b]", "x[red]y", "zero at [/]"):
        assert name in text


def test_names_are_no_markup_in_plain_lines_either(capsys):
    assert "zero at [red]x, step 1" in shown(capsys, [], [alert(module="[red]x")])


def test_the_worst_module_comes_first_and_stays_when_lines_are_cut():
    modules = {f"m{place}": GroupNorms(1.0, 0.0 if place == 33 else 1.0) for place in range(40)}
    lines = drawn([record(modules=modules), record(optimizer="critic")], rows=6).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["norm", "actor,", "m33", "critic,", "…"]
    assert lines[-1] == "… and 40 more lines"


def test_what_happened_gets_half_of_the_rows_and_critical_comes_first():
    told = [alert(step=step, severity="critical" if step == 3 else "warning") for step in range(1, 9)]
    modules = {f"m{place}": GroupNorms(1.0, 1.0) for place in range(40)}
    lines = drawn([record(modules=modules)], told, rows=12).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("── gradwatch: 8 alerts not over")
    assert [line[:10] for line in lines[1:6]] == ["! CRITICAL", *["! WARNING "] * 3, "… and 4 mo"]


@pytest.mark.parametrize("width", [20, 40, 66, 80, 140])
def test_no_line_is_wider_than_there_is_room_for(width):
    modules = {f"層.{'long' * 9}.{place}": GroupNorms(1e300, math.inf) for place in range(3)}
    text = drawn([record(before=1e300, modules=modules)], [alert(module="x" * 200)], width=width)
    from rich.cells import cell_len

    assert max(map(cell_len, text.splitlines())) <= width
    assert len(text.splitlines()) == 7


def test_of_a_long_name_the_end_is_kept():
    assert shortened("transformer.layers.17.attention.out_proj", 20) == "transf…tion.out_proj"
    assert shortened("short", 20) == "short"
    assert shortened("層層層層層層", 7) in ("層…層層", "層…層層 ")


def test_names_that_begin_and_end_alike_show_where_they_differ():
    modules = {f"model.layers.{n}.mlp.down_projection": GroupNorms(1.0, 1.0) for n in range(3)}
    text = drawn([record(modules=modules)], width=80)
    assert [line.split()[0] for line in text.splitlines()[3:]] == ["…0…", "…1…", "…2…"]


@pytest.mark.parametrize("width", [50, 66, 80])
def test_names_that_are_too_long_still_differ(width):
    parts = ("self_attention_with_rotary_embedding", "feed_forward")
    names = [f"transformer_encoder_layers.{n}.{part}" for n in range(12) for part in parts] + ["head"]
    rows = drawn([record(modules=dict.fromkeys(names, GroupNorms(1.0, 1.0)))], width=width).splitlines()[3:]
    told = [line.split()[0] for line in rows]
    assert len(set(told)) == len(names)
    assert all(name.startswith(f"…{n // 2}.") for n, name in enumerate(told[:-1]))
    assert told[-1] == "head"


def test_names_that_differ_nowhere_that_is_shown_are_numbered():
    names = tuple(f"{'a' * 30}{n}{'b' * 60}" for n in range(11))
    assert len(set(fitted(names, 20).values())) == 11
    assert max(map(len, fitted(names, 20).values())) == 20


def test_the_share_of_the_time_that_it_takes_is_told():
    assert "takes 1.5% of the time" in drawn([record()], cost=0.015)


def test_the_last_screen_tells_each_incident_and_what_to_do(capsys):
    cause = Cause("saturated-tanh", "mlp", {"share": 1.0}, "Make it smaller.")
    other = Cause("shortcut", "cnn", {"silent": "mlp"}, "Cut the path.")
    fired = [
        alert(step=2),
        alert("explained", 3, cause=cause),
        alert(step=9, rule="growth", module=None, cause=other),
    ]
    text = shown(capsys, [record(9)], fired)
    assert text[text.index("gradwatch: ") :] == (
        "gradwatch: 2 alerts fired, in 1 incident, 1 not over at the end.\n"
        "CRITICAL since step 2 of actor: saturated-tanh at mlp\n"
        "  zero at mlp, step 2 of actor: the gradient of mlp is exactly 0. Cause: saturated-tanh at mlp (share 100 %).\n"
        "  growth, step 9 of actor: the gradient of mlp is exactly 0. Cause: shortcut at cnn (silent mlp).\n"
        "  To do: Make it smaller.\n"
        "  Then: Cut the path.\n"
    )


def test_of_many_incidents_the_newest_are_told_at_the_end_and_the_others_counted(capsys):
    several = [alert(state, step, rule="stale") for step in range(1, 9) for state in ("firing", "resolved")]
    text = shown(capsys, [record(9)], several)
    assert "gradwatch: 8 alerts fired, in 8 incidents, 0 not over at the end.\nThe last 5:\n" in text
    assert [n for n in range(1, 9) if f"CRITICAL since step {n} of" in text] == [4, 5, 6, 7, 8]


def test_of_many_steps_only_those_shown_become_records(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(Block, "_record", lambda self, index: made.append(index) or record(index + 1))
    layout = Layout("actor", ("w",), {}, {}, np.zeros(1))
    rows = [StepRow(step, float(step), Facts.usual(1)) for step in range(1, 17)]
    sink = Console()
    sink.open(run_info(), Health)
    sink.write(Steps.of(Block(layout, rows, np.ones((16, 1)), np.ones((16, 1)))), [])
    assert made == []
    sink.close()
    assert made == [15]
    assert "actor step 16: norm 5" in capsys.readouterr().out
