"""What the default rules say of the two agents: the short form of the runs in examples/carla_td3/README.md."""

import pytest
import torch

import gradwatch
from examples.carla_td3.agent import TD3
from examples.carla_td3.env import DrivingEnv
from examples.carla_td3.loop import Schedule, train
from examples.carla_td3.presets import PRESETS
from examples.carla_td3.replay import Replay
from tests.examples.test_agent import CPU, Listener

EXPLORED, BATCH = 100, 8


def alerts_of(preset, updates, seed=42):
    torch.manual_seed(seed)
    agent = TD3(PRESETS[preset], CPU)
    steps = EXPLORED + updates
    with gradwatch.track(agent.optimizers, agent.modules) as watch:
        train(agent, DrivingEnv(), Replay(steps, seed), Schedule(0, steps, EXPLORED, BATCH, seed), Listener())
    return watch.alerts


@pytest.fixture(scope="module")
def legacy():
    # 55 of the actor.
    return alerts_of("legacy", updates=110)


def test_the_silent_policy_is_named_with_its_cause(legacy):
    (fired,) = [alert for alert in legacy if alert.rule == "zero" and alert.state == "firing"]
    assert (fired.optimizer, fired.module, fired.severity) == ("actor", "actor_mlp", "critical")
    assert fired.step <= 20
    (told,) = [alert for alert in legacy if alert.rule == "zero" and alert.state == "explained"]
    assert (told.cause.kind, told.cause.where) == ("saturated-tanh", "actor_mlp")
    assert told.cause.evidence["share_beyond_9"] > 0.99


@pytest.mark.parametrize("rule", ["growth", "clip-saturated"])
def test_the_way_around_the_policy_is_named(legacy, rule):
    fired = [alert for alert in legacy if (alert.rule, alert.optimizer) == (rule, "actor")]
    assert fired[0].state == "firing"
    last = [alert for alert in fired if alert.cause][-1]
    assert (last.cause.kind, last.cause.where) == ("shortcut", "actor_cnn")
    assert last.cause.evidence["silent"] == "actor_mlp"


def test_the_right_wiring_is_silent():
    assert alerts_of("fixed", updates=60) == []
