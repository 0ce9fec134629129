"""A state that was damaged is refused in one sentence and changes nothing; what is taken can be gone on with."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.errors import ArgumentError
from gradwatch.judge.rule import Remembering, shape_of
from gradwatch.rules import default_rules

REMEMBERING = [rule.id for rule in default_rules() if isinstance(rule, Remembering)]
AT_LEAST, MOST = 85, 400


class Odd:
    """Cannot even tell what it is."""

    def __repr__(self) -> str:
        raise ValueError("of the test")


class Deceiving(Mapping[str, Any]):
    """A mapping that is none."""

    def __getitem__(self, name: str) -> Any:
        raise OSError("of the test")

    def __iter__(self) -> Iterator[str]:
        raise OSError("of the test")

    def __len__(self) -> int:
        return 1


def nested(levels: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    return deep


STRANGE: list[Any] = [
    None, True, 0, -1, -1.5, 1.5, 10**20, 10**400, 10**5000, 1e308, -1e308, math.nan, math.inf, -math.inf, "", "x",
    "NaN", "\n\ud800", b"x", [], [[]], [None] * 3, ["x"] * 7, {}, {"x": 1}, {1: 2}, {"x": {"x": {}}}, set(), object(),
    Odd(), Deceiving(), nested(50), nested(100_000), torch.zeros(2), complex(1, 1), print,
    np.float32(1.5), np.int64(-1), np.zeros(3), "1", "-1", (1,), [1, 2, 3], bytearray(3), frozenset("x"), range(3),
    Path(), ..., ValueError("x"), False,
]  # fmt: skip


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.dead, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.drawn = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        faint = 1e-12 if step > 30 else 1.0
        return self.head(torch.tanh(self.body(x)) + self.dead(x) * (step < 20) + self.drawn[step % 2](x) * faint)


class Life:
    """A loop in which everything goes wrong that rules remember."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Net()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.0)
        self.step = 0
        self.watch = gradwatch.track(self.optimizer, self.net, guard="skip").start()

    def live(self, steps: int) -> Life:
        for _ in range(steps):
            self.step += 1
            self.optimizer.zero_grad()
            for turn in range(2):
                if turn and 36 < self.step < 39:
                    self.optimizer.zero_grad()
                loss = self.net(torch.ones(2, 3), self.step).sum() * 1.2**self.step
                if self.step % 25 == 24 or self.step in (39, 40):
                    loss = loss * math.nan
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1e-3)
            self.optimizer.step()
        return self


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    life = Life().live(40)
    state = life.watch.state_dict()
    life.watch.close()
    assert life.watch.health().internal_errors == 0
    # Beside modules that are drawn, a silent one is not dead before long.
    state["judge"]["rules"]["zero"]["optimizer"]["dead"] = ["dead"]
    # What was counted on from counts as steps that were seen, and one that has seen steps takes no other state.
    return {**state, "steps": {"optimizer": 0}}


def malformed(value: Any) -> Iterator[Any]:
    """A value, damaged in one place each."""
    yield from STRANGE
    if isinstance(value, dict):
        yield {**value, "more": 1}
        yield {**value, 3: 1}
        yield list(value.items())
        for name, entry in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            yield from ({**value, name: damaged} for damaged in malformed(entry))
    elif isinstance(value, list) and value:
        yield value[:-1]
        yield [*value, "more"]
        yield [*value, value]
        yield dict(enumerate(value))
        # One entry is like another.
        for place in sorted({0, len(value) - 1}):
            yield from ([*value[:place], damaged, *value[place + 1 :]] for damaged in malformed(value[place]))
    elif isinstance(value, str):
        yield f"{value}x"
        yield [value]
    else:
        yield str(value)
        yield [value]


@pytest.fixture(scope="module")
def taking() -> Iterator[Any]:
    """Loads into a tracker that has not begun and has seen no step."""
    life = Life()

    def take(state: Any) -> bool:
        """Whether it is taken."""
        before = life.watch.state_dict()
        try:
            life.watch.load_state_dict(state)
        except ArgumentError as error:
            said = str(error)
            assert "\n" not in said
            assert len(said) < 500
            assert said.endswith(("load what Watch.state_dict() gave.", "the names that they had."))
            assert life.watch.state_dict() == before
            return False
        json.dumps(life.watch.state_dict(), allow_nan=False)
        return True

    yield take
    life.watch.close()


def test_the_life_fills_every_memory(real: dict[str, Any]) -> None:
    remembered = real["judge"]["rules"]
    assert set(remembered) == set(REMEMBERING)
    assert all(remembered[rule] for rule in REMEMBERING), remembered
    zero = remembered["zero"]["optimizer"]
    assert all(zero[what] for what in ("presences", "names", "zeros", "dead", "level"))
    assert {episode["key"][0] for episode in real["judge"]["episodes"]} >= {"zero", "lost"}
    assert any(episode["alert"] for episode in real["judge"]["episodes"])


def test_a_real_state_goes_through_json_and_back_unchanged(real: dict[str, Any], taking: Any) -> None:
    through = json.loads(json.dumps(real, allow_nan=False))
    assert through == real
    life = Life()
    life.watch.load_state_dict(through)
    assert life.watch.state_dict() == real
    # It replaces what was there, and the rules go on with a copy.
    life.watch.load_state_dict(through)
    assert life.watch.state_dict() == real
    assert len(life.watch.incidents) == len({tuple(e["key"]) for e in real["judge"]["episodes"] if e["alert"]})
    life.live(3)
    assert through == real
    life.watch.close()
    assert life.watch.health().internal_errors == 0


@pytest.mark.parametrize("rule", REMEMBERING)
def test_a_damaged_memory_of_a_rule_is_refused_or_can_be_gone_on_with(
    rule: str, real: dict[str, Any], taking: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    remembered = real["judge"]["rules"][rule]
    refused, taken = 0, []
    several = list(malformed(remembered))
    for damaged in several[:: max(len(several) // MOST, 1)]:
        rules = {**real["judge"]["rules"], rule: damaged}
        state = {**real, "judge": {**real["judge"], "rules": rules}}
        if taking(state):
            taken.append(state)
        else:
            refused += 1
    assert refused >= AT_LEAST
    for state in taken[:: max(len(taken) // 6, 1)]:
        life = Life()
        life.watch.load_state_dict(state)
        life.live(6).watch.close()
        assert life.watch.health().internal_errors == 0, state["judge"]["rules"][rule]


def test_what_is_damaged_around_the_memories_is_refused(real: dict[str, Any], taking: Any) -> None:
    bare = {**real, "judge": {**real["judge"], "rules": {}}}
    shorter = {
        **bare,
        "judge": {"rules": {}, "episodes": [e for e in real["judge"]["episodes"] if e["alert"]][-1:]},
    }
    outcomes = [taking(damaged) for damaged in malformed(shorter)]
    assert outcomes.count(False) >= AT_LEAST
    assert not any(taking(strange) for strange in STRANGE)


def test_a_state_of_another_version_goes_on_counting_and_rules_begin_anew(
    real: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    life = Life()
    life.watch.load_state_dict({"version": 99, "steps": {"optimizer": 7}, "whatever": Odd()})
    assert "saved by another version" in caplog.text
    assert life.watch.state_dict()["steps"] == {"optimizer": 7}
    assert life.watch.active == []
    life.watch.close()


def test_every_rule_with_a_memory_says_what_it_is_like() -> None:
    assert all(shape_of(rule) is not None for rule in default_rules() if isinstance(rule, Remembering))


class Own:
    """A rule of a user's, with a memory."""

    id, severity, fires_after, clears_after = "own", "warning", 1, 1

    def __init__(self) -> None:
        self.memory: Any = {"count": 1}

    def look(self, record: Any) -> list[Any]:
        return []

    def state_dict(self) -> Any:
        return self.memory

    def load_state_dict(self, state: Any) -> None:
        self.memory = None
        if state["count"] == 3:
            raise LookupError("of the user's")
        self.memory = state


def test_a_rule_of_a_users_that_refuses_leaves_all_as_they_were(real: dict[str, Any]) -> None:
    own, net = Own(), Net()
    watch = gradwatch.track(torch.optim.SGD(net.parameters(), lr=0.0), net, rules=[*default_rules(), own])
    before = copy.deepcopy(watch.state_dict())
    rules = {**real["judge"]["rules"], "own": {"count": 3}}
    with pytest.raises(ArgumentError, match="The rule 'own' does not take what is saved of it"):
        watch.load_state_dict({**real, "judge": {**real["judge"], "rules": rules}})
    assert watch.state_dict() == before
    watch.load_state_dict({**real, "judge": {**real["judge"], "rules": {**rules, "own": {"count": 2}}}})
    assert own.memory == {"count": 2}
    assert watch.state_dict()["judge"]["rules"]["zero"] == real["judge"]["rules"]["zero"]
    watch.close()


@pytest.mark.parametrize("memory", [{1, 2}, {"x": object()}, nested(100), math.sin])
def test_a_memory_that_cannot_be_saved_is_left_out_and_counted(
    memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own, net = Own(), Net()
    own.memory = memory
    watch = gradwatch.track(torch.optim.SGD(net.parameters(), lr=0.0), net, rules=[own])
    assert watch.state_dict()["judge"]["rules"] == {}
    assert watch.health().internal_errors == 1
    assert "cannot say what it remembers" in caplog.text
    watch.close()
