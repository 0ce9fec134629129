"""A run that is resumed goes on counting, and its rules remember."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.errors import ArgumentError, TrackerStateError
from gradwatch.rules import Explosion, NonFinite
from gradwatch.saved import VERSION


def setup() -> tuple[nn.Parameter, torch.optim.SGD]:
    weight = nn.Parameter(torch.zeros(1))
    return weight, torch.optim.SGD([weight], lr=0.0)


def step(weight: nn.Parameter, optimizer: torch.optim.Optimizer, norm: float = 1.0) -> None:
    optimizer.zero_grad()
    (weight * norm).sum().backward()
    optimizer.step()


def state_after(*norms: float, **arguments: Any) -> dict[str, Any]:
    weight, optimizer = setup()
    with gradwatch.track(optimizer, **arguments) as watch:
        for norm in norms:
            step(weight, optimizer, norm)
        return watch.state_dict()


@pytest.mark.parametrize("inside", [False, True])
def test_steps_go_on_counting(inside: bool) -> None:
    state = state_after(1.0, 1.0, 1.0)
    weight, optimizer = setup()
    watch = gradwatch.track(optimizer)
    if not inside:
        watch.load_state_dict(state)
    with watch:
        if inside:
            watch.load_state_dict(state)
        for _ in range(2):
            step(weight, optimizer)
    assert [record.step for record in watch.history] == [4, 5]
    assert watch.state_dict()["steps"] == {"optimizer": 5}


def test_every_third_step_is_still_every_third() -> None:
    state = state_after(1.0, 1.0, every=3)
    weight, optimizer = setup()
    with gradwatch.track(optimizer, every=3) as watch:
        watch.load_state_dict(state)
        for _ in range(4):
            step(weight, optimizer)
    assert [record.step for record in watch.history] == [3, 6]


def test_a_baseline_is_remembered() -> None:
    state = state_after(*[1.0] * 30)
    weight, optimizer = setup()
    with gradwatch.track(optimizer) as watch:
        watch.load_state_dict(state)
        step(weight, optimizer, 500.0)
    (alert,) = watch.alerts
    assert (alert.rule, alert.step) == ("explosion", 31)
    # Without it, the first step of a run is no explosion, however large.
    weight, optimizer = setup()
    with gradwatch.track(optimizer) as fresh:
        step(weight, optimizer, 500.0)
    assert fresh.alerts == []


def test_an_open_episode_fires_no_second_time_and_is_resolved() -> None:
    state = state_after(math.nan)
    weight, optimizer = setup()
    with gradwatch.track(optimizer) as watch:
        watch.load_state_dict(state)
        assert [(alert.rule, alert.step) for alert in watch.active] == [("nonfinite", 1)]
        step(weight, optimizer, math.nan)
        for _ in range(10):
            step(weight, optimizer)
    assert [(alert.rule, alert.state) for alert in watch.alerts] == [("nonfinite", "resolved")]


def test_an_open_incident_goes_on_from_where_it_began() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)

    def step(scale: float) -> None:
        optimizer.zero_grad()
        (net(torch.ones(2, 3)).sum() * scale).backward()
        optimizer.step()

    with gradwatch.track(optimizer, net) as watch:
        for scale in (1.0, 0.0, 0.0, 0.0, 0.0):
            step(scale)
        state, since = json.loads(json.dumps(watch.state_dict())), watch.incidents[0].since
    with gradwatch.track(optimizer, net) as resumed:
        resumed.load_state_dict(state)
        assert [(one.since, one.over) for one in resumed.incidents] == [(since, None)]
        for _ in range(8):
            step(1.0)
        assert [one.since for one in resumed.incidents] == [since]
        assert resumed.incidents[0].over is not None
        assert [alert.state for alert in resumed.alerts] == ["resolved"] * len(resumed.alerts)


def test_the_state_is_plain_and_is_saved_as_torch_and_json_save() -> None:
    state = state_after(*[1.0] * 3, math.nan)
    assert json.loads(json.dumps(state)) == state


def test_a_state_of_other_rules_is_taken_as_far_as_it_goes() -> None:
    state = state_after(*[1.0] * 30, rules=[Explosion()])
    weight, optimizer = setup()
    with gradwatch.track(optimizer, rules=[NonFinite()]) as watch:
        watch.load_state_dict(state)
        step(weight, optimizer)
    assert watch["optimizer"].step == 31


EMPTY = {"version": VERSION, "steps": {"optimizer": 1}, "judge": {"episodes": [], "rules": {}}}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (3, "The state is 3"),
        ({}, "The state is {}"),
        ({**EMPTY, "judge": {}}, r"The state\['judge'\] is {}"),
        (
            {**EMPTY, "steps": {"optimizer": -1}},
            r"\['steps'\]\['optimizer'\] is -1, .*: load what Watch.state_dict\(\) gave",
        ),
        ({**EMPTY, "steps": {"actor": 1}}, r"of the optimizers \['actor'\]"),
    ],
)
def test_what_is_no_state_of_this_run_is_refused_in_a_sentence(state: Any, says: str) -> None:
    watch = gradwatch.track(setup()[1])
    with pytest.raises(ArgumentError, match=says):
        watch.load_state_dict(state)


def test_a_state_is_refused_after_the_first_step_and_after_the_end() -> None:
    state = state_after(1.0)
    weight, optimizer = setup()
    with gradwatch.track(optimizer) as watch:
        step(weight, optimizer)
        with pytest.raises(TrackerStateError, match="before the first one"):
            watch.load_state_dict(state)
    with pytest.raises(TrackerStateError, match="closed and cannot be loaded into"):
        watch.load_state_dict(state)
