"""A rule or a reader that hangs costs a training loop records, counted, and no memory without end."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.measure.queue import StepQueue
from gradwatch.records import StepRecord
from gradwatch.rules import Finding


class Hangs:
    """A rule that does not come to an end before it may."""

    id, severity, fires_after, clears_after = "hangs", "warning", 1, 1

    def __init__(self) -> None:
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self.steps: list[int] = []

    def look(self, record: StepRecord) -> list[Finding]:
        self.steps.append(record.step)
        self.entered.set()
        assert self.may_go_on.wait(60)
        return []


def test_steps_that_wait_for_a_reader_are_bounded_and_those_without_a_record_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    monkeypatch.setattr(StepQueue, "BYTES", 50 * StepQueue.A_STEP)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(2)).sum().backward()
        optimizer.step()

    rule = Hangs()
    with gradwatch.track(optimizer, model, rules=[rule]) as watch:
        step()
        reader = threading.Thread(target=lambda: watch.alerts)
        reader.start()
        assert rule.entered.wait(60)
        for _ in range(200):
            step()
        assert len(watch._reporting._queue._steps) < 60
        dropped = watch.health().dropped_records
        rule.may_go_on.set()
        reader.join()
    assert dropped > 140
    assert rule.steps == list(range(1, 202 - dropped))
    assert len(watch.history) == 201 - dropped
