"""A look ends: after so many calls, passes and seconds; where no graph is recorded it sees next to nothing; nor in a fork."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.diagnose import Diagnosis
from gradwatch.diagnose.look import budget, calls, engine
from gradwatch.diagnose.look.budget import Budget
from gradwatch.diagnose.look.dispatch import module_calls
from tests.reachable import reachable_bytes

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.unused, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calls_without_a_graph_are_bounded_and_hardly_read(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = calls.extent
    monkeypatch.setattr(calls, "extent", lambda thing: read.append(1) or original(thing))
    net, sizes = Net().eval(), []
    with Diagnosis(net) as diagnosis:
        for steps in (50, 1000):
            with mode():
                for _ in range(steps):
                    net(X)
            sizes.append(reachable_bytes(diagnosis._calls, but=(nn.Module,)))
        assert len(diagnosis._calls.all) == 3 * calls.Calls.MOST_MADE
        assert len(read) == 3 * calls.Calls.MOST_MADE
        net(X).sum().backward()
    assert sizes[1] < sizes[0] + 200
    # What there was of a graph is seen as ever.
    assert diagnosis.causes["unused"].kind == "unused"
    assert not diagnosis._budget.spent


def test_an_evaluation_between_two_steps_leaves_the_cause_of_a_call_without_a_graph() -> None:
    net = Net()
    with Diagnosis(net) as diagnosis:
        for _ in range(20):
            with torch.no_grad():
                hidden = torch.tanh(net.body(X))
            net.head(hidden).sum().backward()
    assert diagnosis.causes["body"].kind == "no-grad"


def test_a_part_without_a_graph_ends_no_call_that_it_is_a_part_of() -> None:
    class Partly(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                for _ in range(10):
                    x = self.body(x)
            return self.head(torch.tanh(x))

    net = Partly()
    with Diagnosis(net) as diagnosis:
        net(X).sum().backward()
    assert [call.path for call in diagnosis._calls.all] == ["body"] * 4 + ["head", "(root)"]
    assert diagnosis.causes["body"].kind == "no-grad"


def test_a_look_ends_after_so_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Budget.MOST, "calls", 30)
    net = Net()
    with Diagnosis(net) as diagnosis:
        net(X).sum().backward()
        for _ in range(100):
            net(X)
        assert len(diagnosis._calls.all) <= 30
        assert module_calls.listeners == ()
    # What was never seen by then may still have come: nothing is claimed of it.
    found = diagnosis.causes["unused.weight"]
    assert (found.kind, found.evidence["reason"]) == (
        "unknown",
        "the look for it ended before the step, after 30 calls",
    )


def test_a_look_ends_after_so_many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Budget.MOST, "passes", 5)
    net = Net()
    with Diagnosis(net) as diagnosis:
        for _ in range(20):
            net(X).sum().backward()
        assert engine.runs.listeners == ()
        assert module_calls.listeners == ()
    assert diagnosis.passes == 5
    assert diagnosis.causes["unused.weight"].evidence["reason"].endswith("after 5 passes")


def test_a_look_ends_after_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    net = Net()
    with Diagnosis(net) as diagnosis:
        now[0] = Budget.SECONDS - 1.0
        net(X)
        assert len(diagnosis._calls.all) == 3
        now[0] = Budget.SECONDS + 1.0
        net(X).sum().backward()
        assert len(diagnosis._calls.all) == 3
    assert diagnosis.passes == 0


def test_a_watch_that_never_steps_again_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Budget.MOST, "passes", 3)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(4):
            optimizer.zero_grad()
            (net(X).sum() * 0.0).backward()
            optimizer.step()
            if module_calls.listeners:
                break
        assert module_calls.listeners
        for _ in range(10):
            net(X).sum().backward()
        assert module_calls.listeners == ()
    assert watch.health().internal_errors == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_stands_aside_while_a_look_is_armed() -> None:
    net = Net()
    with Diagnosis(net) as diagnosis:
        net(X)
        before = len(diagnosis._calls.all)
        # Whatever another thread held when it was forked is held for ever in the child.
        diagnosis._lock.acquire()
        engine.runs._turn._lock.acquire()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                net(X).sum().backward()
                fine = len(diagnosis._calls.all) == before and diagnosis.passes == 0 and not diagnosis._open
                engine.runs.listen(diagnosis)
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        engine.runs._turn._lock.release()
        diagnosis._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        net(X).sum().backward()
    assert diagnosis.passes == 1
