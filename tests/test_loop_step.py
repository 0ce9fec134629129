"""The loop's own step: in records and files, and the axis of what is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import gradwatch
from gradwatch.blocks import Facts, StepRow, Steps
from gradwatch.blocks.rows import in_common
from gradwatch.errors import ArgumentError
from gradwatch.sinks.points import points


class Writer:
    """What a loop draws with, beside gradwatch."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, int]] = []
        self.texts: list[tuple[str, int]] = []

    def add_scalar(self, tag: str, value: float, step: int, walltime: float) -> None:
        self.scalars.append((tag, step))

    def add_text(self, tag: str, text: str, step: int) -> None:
        self.texts.append((tag, step))


def run(sinks: list[gradwatch.sinks.Sink], first: int = 3, dead_from: int = 99) -> gradwatch.Watch:
    """Six steps; those from ``first`` on are told the loop's step, ten times their own."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model, sinks=sinks) as watch:
        for step in range(1, 7):
            if step >= first:
                watch.loop_step = np.int64(10 * step)
            optimizer.zero_grad()
            (model(torch.ones(1, 2)).sum() * (step < dead_from)).backward()
            optimizer.step()
    return watch


def test_a_record_bears_what_the_loop_gave_last_before_its_step() -> None:
    watch = run([])
    assert [record.loop_step for record in watch.history] == [None, None, 30, 40, 50, 60]
    assert [record.step for record in watch.history] == [1, 2, 3, 4, 5, 6]
    assert type(watch.history[-1].loop_step) is int


@pytest.mark.parametrize("parameters", [False, True])
def test_a_file_has_it_in_both_forms(tmp_path: Path, parameters: bool) -> None:
    pytest.importorskip("pandas")
    path = tmp_path / "run.jsonl"
    watch = run([gradwatch.sinks.Jsonl(path, parameters=parameters)])
    for frame in (gradwatch.read(path), watch.to_frame()):
        assert frame["loop_step"].isna().tolist() == [True, True, False, False, False, False]
        assert frame["loop_step"].tolist()[2:] == [30, 40, 50, 60]


def test_curves_and_words_stand_at_the_loops_step() -> None:
    writer = Writer()
    run([gradwatch.sinks.TensorBoard(writer)], first=1, dead_from=3)
    drawn = [step for tag, step in writer.scalars if tag == "gradwatch/optimizer/norm_before"]
    assert drawn == [10, 20, 30, 40, 50, 60]
    # The third silent step is the fifth: that is when it fires.
    assert writer.texts[0][1] == 50
    assert {step for _, step in writer.texts} <= {50, 60}


def test_loggers_that_take_points_get_it_too() -> None:
    drawn = list(points(Steps.of(run([]).history)))
    assert [point.at for point in drawn] == [1, 2, 30, 40, 50, 60]
    assert [point.step for point in drawn] == [1, 2, 3, 4, 5, 6]


def test_trackio_has_an_alert_where_its_step_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[int] = []
    alerts: list[int] = []
    one = SimpleNamespace(
        log=lambda values, step=None: logged.append(step),
        alert=lambda title, text, level, step: alerts.append(step),
        finish=lambda: None,
    )
    levels = SimpleNamespace(ERROR=1, WARN=2, INFO=3)
    library = SimpleNamespace(init=lambda *_, **__: one, AlertLevel=levels)
    monkeypatch.setitem(sys.modules, "trackio", library)
    monkeypatch.setitem(
        sys.modules, "trackio.context_vars", SimpleNamespace(current_run=SimpleNamespace(get=lambda: None))
    )
    monkeypatch.setattr(gradwatch.sinks.Trackio, "REMEMBERED", 4)
    sink = gradwatch.sinks.Trackio("p")
    run([sink], first=1, dead_from=3)
    assert logged == [10, 20, 30, 40, 50, 60]
    assert alerts[0] == 50
    assert set(alerts) <= {50, 60}
    assert list(sink._drawn) == [("optimizer", step) for step in (3, 4, 5, 6)]


def test_a_step_that_bears_one_is_judged_with_its_block_as_before() -> None:
    rows = [StepRow(step, 0.0, Facts.usual(1), loop_step=10 * step) for step in (1, 2)]
    assert not in_common(rows).unusual


def test_what_is_no_whole_number_is_refused_where_it_is_set() -> None:
    model = torch.nn.Linear(2, 1)
    watch = gradwatch.track(torch.optim.SGD(model.parameters()), model)
    with pytest.raises(ArgumentError, match="whole number"):
        watch.loop_step = 1.5  # type: ignore[assignment]
    assert watch.loop_step is None
    watch.close()
