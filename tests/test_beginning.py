"""A tracker that is begun without a ``with``, and one that is never begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.errors import TrackerStateError


def simple() -> tuple[nn.Linear, torch.optim.SGD]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss: Tensor = model(torch.ones(2, 3)).square().sum()
    loss.backward()
    optimizer.step()


def hooks(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def test_start_and_close_do_what_a_with_does() -> None:
    model, optimizer = simple()
    watch = gradwatch.track(optimizer, model).start()
    step(model, optimizer)
    watch.close()
    step(model, optimizer)
    watch.close()
    assert [record.step for record in watch.history] == [1]
    assert hooks(optimizer) == 0
    with pytest.raises(TrackerStateError, match="closed already"):
        watch.start()


def test_one_that_is_never_begun_says_so_once_at_the_first_step(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = simple()
    gradwatch.track(optimizer, model)
    for _ in range(3):
        step(model, optimizer)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "A gradwatch tracker was made and never begun, so that nothing is watched"
    ]
    assert hooks(optimizer) == 0


def test_two_that_are_never_begun_leave_no_hook_behind(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = simple()
    gradwatch.track(optimizer, model)
    gradwatch.track(optimizer, model)
    for _ in range(3):
        step(model, optimizer)
    assert len(caplog.records) == 2
    assert hooks(optimizer) == 0


def test_one_that_is_begun_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model):
        step(model, optimizer)
    assert not caplog.records


def test_one_that_is_closed_before_it_began_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = simple()
    gradwatch.track(optimizer, model).close()
    step(model, optimizer)
    assert not caplog.records
    assert hooks(optimizer) == 0


LEFT_OPEN = """
import sys, torch, gradwatch
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
watch = gradwatch.track(optimizer, model, sinks=[gradwatch.sinks.Jsonl(sys.argv[1])]).start()
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
"""


def test_the_end_of_the_interpreter_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    subprocess.run([sys.executable, "-c", LEFT_OPEN, str(path)], check=True, timeout=120)
    assert path.read_text(encoding="utf-8").count('"kind": "step"') == 3
