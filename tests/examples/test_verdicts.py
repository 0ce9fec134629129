"""What the default rules say of the three presets: the short form of the runs in examples/carla_td3/README.md."""

import pytest

from tests.examples.test_td3 import drive

EXPLORED, BATCH = 100, 8


def alerts_of(folder, preset, updates):
    steps = EXPLORED + updates
    sizes = {"max_timesteps": steps, "learning_starts": EXPLORED, "batch_size": BATCH, "buffer_size": steps}
    return drive(folder, preset, **sizes)[1].memory.alerts


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    # 55 of the actor.
    return alerts_of(tmp_path_factory.mktemp("legacy"), "legacy", updates=110)


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


def test_a_policy_that_dies_without_a_zero_is_told_of_before_200_updates(tmp_path):
    told = [alert for alert in alerts_of(tmp_path, "unbalanced", updates=120) if alert.cause]
    assert told
    assert (told[0].rule, told[0].optimizer) == ("vanishing", "actor")
    assert (told[0].cause.kind, told[0].cause.where) == ("saturated-tanh", "actor_mlp")
    assert 2 * told[0].step < 200


def test_the_agent_that_learns_is_not_called_ill(tmp_path):
    assert [str(alert) for alert in alerts_of(tmp_path, "fixed", updates=60) if alert.severity == "critical"] == []
