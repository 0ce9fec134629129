"""A run on one screen."""

from __future__ import annotations

import math
from pathlib import Path

from gradwatch.records import GroupNorms
from gradwatch.report import newest_run, told
from tests.made_up import record, run_info
from tests.report.files import eventful, named, written


def test_what_is_wrong_and_what_to_do_fit_on_one_screen(tmp_path: Path) -> None:
    lines = list(told(newest_run(eventful(tmp_path / "x"))))
    screen = lines[: lines.index("Lines of actor, norms before clipping")]
    assert len(screen) <= 24
    assert max(map(len, screen)) <= 80
    assert any(line.startswith("CRITICAL since step 200 of actor") for line in screen)
    assert any("To do: Lower the learning rate." in line for line in screen)
    assert "not finite" in "\n".join(lines[lines.index("Norms before and after clipping, in the median") :])


def test_a_quiet_run_is_told_so(tmp_path: Path) -> None:
    lines = list(told(newest_run(written(tmp_path / "x", [record(1)]))))
    assert f"No incident, {len(run_info().rules)} rules watched." in lines
    assert "actor: median norm 5 before clipping, 1 after; never above the limit 1." in lines


def test_nearly_all_is_told_in_plain_digits(tmp_path: Path) -> None:
    steps = [record(step, clipped=step > 1) for step in range(1, 501)]
    lines = list(told(newest_run(written(tmp_path / "x", steps))))
    assert sum("499 (>99%)" in line for line in lines) == 2


def test_a_run_without_a_step_is_told(tmp_path: Path) -> None:
    assert "no step" in next(told(newest_run(written(tmp_path / "x", []))))


def test_no_name_moves_the_cursor(tmp_path: Path) -> None:
    names = ("a\x1b[2J", "b\nc", "d" * 200)
    path = eventful(tmp_path / "x", names)
    written(path, [], run=named("r\x1b]0;title\x07"))
    for one in (eventful(tmp_path / "y", names), path):
        assert all(line.isprintable() for line in told(newest_run(one)))


def test_no_line_is_wider_than_asked_for_and_long_names_still_differ(tmp_path: Path) -> None:
    parts = ("self_attention_with_rotary_embedding", "feed_forward")
    names = tuple(f"transformer_encoder_layers.{n}.{part}" for n in range(12) for part in parts)
    lines = list(told(newest_run(eventful(tmp_path / "x", names))))
    assert max(map(len, lines)) <= 80
    rows = lines[lines.index("Lines of actor, norms before clipping") + 2 :][: len(names)]
    assert [row.split()[0].split(".")[0] for row in rows] == [f"…{n // 2}" for n in range(len(names))]
    assert len({row.split()[0] for row in rows}) == len(names)


def test_what_is_missing_is_none_and_what_is_not_a_number_is_nan(tmp_path: Path) -> None:
    gone, ill = GroupNorms(math.nan, math.nan), GroupNorms(math.nan, math.nan)
    modules = {"gone": gone, "ill": ill, "well": GroupNorms(2.0, 2.0)}
    steps = [
        record(n, math.nan, math.nan, modules=modules, missing_modules=("gone",), nonfinite=("ill.w",))
        for n in (1, 2)
    ]
    rows = {line.split()[0]: line.split()[1:] for line in told(newest_run(written(tmp_path / "x", steps))) if line}
    assert rows["gone"] == ["none"] * 6 + ["all"]
    assert rows["ill"] == ["nan"] * 4 + ["none", "all", "none"]
    assert rows["2"][:2] == ["nan", "nan"]
    skipped = [record(1, 3.0, math.nan, modules={}, skipped=True), record(2, math.nan, math.nan, modules={})]
    rows = {
        line.split()[0]: line.split()[1:] for line in told(newest_run(written(tmp_path / "y", skipped))) if line
    }
    assert (rows["1"][:2], rows["2"][:2]) == (["3", "none"], ["none", "none"])
