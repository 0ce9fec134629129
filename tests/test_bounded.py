"""What a whole watch keeps stays bounded: records, rules, diagnoses, what is followed, and the sinks' own state."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from tests.reachable import reachable_bytes

# Multiples of the forty steps of a life, so that the records kept are of the same kind.
EARLY, LATE, HISTORY = 240, 1040, 32


def ills(step: int, loss: Tensor) -> Tensor | None:
    """A life of forty steps: the loss is lost, explodes, is not finite and is forgotten, and is well in between."""
    phase = step % 40
    if phase < 4:
        return loss * 0.0
    if phase in (12, 13, 14):
        return loss * 1e4
    if phase in (22, 23):
        return loss * float("nan")
    return None if phase == 30 else loss


class Learner:
    """A net and its optimizer; nothing of it grows."""

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-5)
        self.batch = torch.randn(4, 3)

    def learn(self, step: int) -> None:
        loss = ills(step, self.net(self.batch).square().mean())
        if loss is not None:
            self.optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()


def train(watch: gradwatch.Watch, learners: list[Learner], steps: range) -> int:
    """Bytes that are kept after these steps: by the watch, by gradwatch's own modules, and with the nets as hooks."""
    for step in steps:
        for shift, learner in enumerate(learners):
            learner.learn(step + 7 * shift)
    watch.flush()
    # All alerts so far are kept, and their incidents, as the documentation says.
    watch._verdicts.alerts.clear()
    watch._verdicts.incidents._past.clear()
    modules = [vars(module) for name, module in sys.modules.items() if name.split(".")[0] == "gradwatch"]
    return reachable_bytes(watch, modules, learners)


@pytest.fixture
def sinks(tmp_path: Path) -> list[Any]:
    return [
        gradwatch.sinks.Console(),
        gradwatch.sinks.Jsonl(tmp_path / "run.jsonl"),
        gradwatch.sinks.TensorBoard(tmp_path),
        gradwatch.sinks.Prometheus(port=0),
    ]


def test_a_watch_does_not_grow_while_alerts_come_and_go(sinks: list[Any]) -> None:
    torch.manual_seed(1)
    actor, critic = Learner(), Learner()
    told: Counter[tuple[str, str]] = Counter()
    watch = gradwatch.track(
        {"actor": actor.optimizer, "critic": critic.optimizer},
        {"actor_net": actor.net, "critic_first": critic.net[0], "critic_last": critic.net[2]},
        sinks=sinks,
        on_alert=lambda alert: told.update([(alert.rule, alert.state)]),
        guard="skip",
        history=HISTORY,
    )
    with watch:
        # From one place in the program: a loss is known by where its passes are called, and kept.
        spans = range(1, EARLY), range(EARLY, LATE)
        early, late = (train(watch, [actor, critic], steps) for steps in spans)
        assert len(watch.history) == HISTORY
    for rule in ("explosion", "nonfinite", "stale"):
        assert told[rule, "firing"] > 40, told
    assert told["nonfinite", "explained"] > 40, told
    assert watch.health() == replace(watch.health(), internal_errors=0, dropped_records=0)
    assert early > 20_000
    # The blocks of a deque come and go, and so do those of the steps remembered, which end in time. Four such spans in a
    # row held 10, 17, 21 and 19 kB more than the first: it fills up, and does not grow. 30 bytes a step are a fault.
    assert late < early + 24_000
