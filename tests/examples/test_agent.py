import copy

import numpy as np
import pytest
import torch

import gradwatch
from examples.carla_td3.agent import ACTOR_LIMIT, CRITIC_LIMIT, TD3
from examples.carla_td3.env import DrivingEnv
from examples.carla_td3.loop import Schedule, train
from examples.carla_td3.presets import PRESETS
from examples.carla_td3.replay import Batch, Replay

CPU = torch.device("cpu")


class Listener:
    def __init__(self):
        self.updates = []
        self.steps = []

    def stepped(self, step, info):
        self.steps.append(step)

    def updated(self, step, update):
        self.updates.append((step, update))

    def episode_ended(self, step, episode):
        pass


def make(preset, seed=42):
    torch.manual_seed(seed)
    return TD3(PRESETS[preset], CPU)


def random_batch(size=4, seed=0):
    random = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.rand(shape, generator=random) * 2 - 1

    return Batch(
        image=torch.randint(0, 256, (size, 4, 84, 84), generator=random, dtype=torch.uint8),
        vector=numbers(size, 53),
        action=numbers(size, 2),
        reward=numbers(size, 1),
        next_image=torch.randint(0, 256, (size, 4, 84, 84), generator=random, dtype=torch.uint8),
        next_vector=numbers(size, 53),
        not_done=torch.ones(size, 1),
    )


def drive(preset, steps, learning_starts, batch_size, seed=42):
    torch.manual_seed(seed)
    agent = TD3(PRESETS[preset], CPU)
    listener = Listener()
    with gradwatch.track(agent.optimizers, agent.modules, history=10_000, rules=()) as watch:
        schedule = Schedule(0, steps, learning_starts, batch_size, seed)
        train(agent, DrivingEnv(), Replay(steps, seed), schedule, listener)
    return agent, watch.history, [update for _, update in listener.updates]


class Counter:
    """Stands in for the agent: counts the updates that the loop asks for."""

    device = CPU

    def __init__(self):
        self.updates = 0
        self.acted = 0

    def act(self, observation):
        self.acted += 1
        return np.zeros(2, dtype=np.float32)

    def update(self, batch):
        self.updates += 1
        return self.updates


def test_500_steps_with_100_of_random_driving_make_400_updates():
    agent, listener = Counter(), Listener()
    train(agent, DrivingEnv(), Replay(500, 0), Schedule(0, 500, 100, 2, 0), listener)
    assert agent.updates == 400
    assert agent.acted == 400
    assert [step for step, _ in listener.updates] == list(range(101, 501))
    assert listener.steps == list(range(1, 501))


def test_a_run_that_goes_on_refills_its_buffer_first():
    agent, listener = Counter(), Listener()
    train(agent, DrivingEnv(), Replay(500, 0), Schedule(200, 250, 20, 2, 0), listener)
    assert [step for step, _ in listener.updates] == list(range(221, 251))
    assert agent.acted == 50


def test_a_buffer_smaller_than_the_random_driving_does_not_stop_the_updates():
    agent = Counter()
    train(agent, DrivingEnv(), Replay(10, 0), Schedule(0, 40, 30, 2, 0), Listener())
    assert agent.updates == 10


def test_the_actor_is_trained_every_second_time():
    agent, history, updates = drive("fixed", steps=16, learning_starts=6, batch_size=2)
    assert (agent.critic_updates, agent.actor_updates) == (10, 5)
    assert [update.actor_loss is None for update in updates] == [True, False] * 5
    assert [record.optimizer for record in history].count("critic") == 10
    assert [record.optimizer for record in history].count("actor") == 5
    assert not any(update.wrong_norms for update in updates)


def test_each_side_is_clipped_jointly_and_by_its_own_limit():
    _, history, _ = drive("fixed", steps=8, learning_starts=6, batch_size=2)
    for record in history:
        limit = {"actor": ACTOR_LIMIT, "critic": CRITIC_LIMIT}[record.optimizer]
        side = record.optimizer
        assert record.max_norm == limit
        assert set(record.modules) == {f"{side}_cnn", f"{side}_mlp"}
        whole = sum(norms.norm_before**2 for norms in record.modules.values()) ** 0.5
        assert whole == pytest.approx(record.norm_before, rel=1e-9)


def test_the_same_seed_gives_the_same_training():
    first = drive("fixed", steps=12, learning_starts=6, batch_size=2)[2]
    assert drive("fixed", steps=12, learning_starts=6, batch_size=2)[2] == first
    assert drive("fixed", steps=12, learning_starts=6, batch_size=2, seed=1)[2] != first


@pytest.mark.parametrize("preset", ["fixed", "legacy"])
def test_training_is_the_same_bit_for_bit_without_gradwatch(preset):
    watched, _, _ = drive(preset, steps=10, learning_starts=6, batch_size=2)
    torch.manual_seed(42)
    plain = TD3(PRESETS[preset], CPU)
    train(plain, DrivingEnv(), Replay(10, 42), Schedule(0, 10, 6, 2, 42), Listener())
    for name, module in watched.modules.items():
        for one, other in zip(module.parameters(), plain.modules[name].parameters(), strict=True):
            assert torch.equal(one, other)


def test_fixed_trains_the_policy_only_through_its_own_action():
    agent = make("fixed")
    batch = random_batch()
    with torch.no_grad():
        agent.actor.last.bias.fill_(50.0)
    agent._train_actor(batch)
    # With tanh saturated nothing is left: there is no other way for the loss to the actor's side.
    assert gradwatch.global_norm(agent.actor) == 0
    assert gradwatch.global_norm(agent.actor_cnn) == 0
    assert all(parameter.grad is None for parameter in agent.critic_cnn.parameters())


def test_legacy_reaches_the_actors_cnn_around_the_policy():
    agent = make("legacy")
    with torch.no_grad():
        agent.actor.last.bias.fill_(50.0)
    agent._train_actor(random_batch())
    assert gradwatch.global_norm(agent.actor) == 0
    assert gradwatch.global_norm(agent.actor_cnn) > 0


@pytest.mark.parametrize(("preset", "targets"), [("fixed", 4), ("legacy", 2)])
def test_the_targets_follow_slowly(preset, targets):
    agent = make(preset)
    before = copy.deepcopy(agent._targets)
    assert len(before) == targets
    agent.update(random_batch())
    agent.update(random_batch(seed=1))
    for name, target in agent._targets.items():
        online = agent._online()[name]
        pairs = zip(before[name].parameters(), target.parameters(), online.parameters(), strict=True)
        for old, new, fast in pairs:
            assert not new.requires_grad
            torch.testing.assert_close(new, 0.995 * old + 0.005 * fast)
        assert any(not torch.equal(a, b) for a, b in zip(online.parameters(), target.parameters(), strict=True))


def test_the_bellman_target_is_the_reward_where_the_episode_ended():
    agent = make("fixed")
    batch = random_batch()._replace(not_done=torch.zeros(4, 1))
    torch.testing.assert_close(agent._bellman_target(batch), agent.preset.reward_scale * batch.reward)
    going_on = agent._bellman_target(batch._replace(not_done=torch.ones(4, 1)))
    assert (going_on != agent.preset.reward_scale * batch.reward).all()


def test_the_bellman_target_takes_the_lower_of_both_heads():
    agent = make("fixed")
    with torch.no_grad():
        for head, value in ((agent._targets["critic"].q1, 7.0), (agent._targets["critic"].q2, 3.0)):
            head[-1].weight.zero_()
            head[-1].bias.fill_(value)
    batch = random_batch()
    wanted = agent.preset.reward_scale * batch.reward + 0.99 * 3.0
    torch.testing.assert_close(agent._bellman_target(batch), wanted)


def test_a_saved_agent_goes_on_as_it_was():
    agent = make("fixed")
    agent.update(random_batch())
    other = make("fixed", seed=7)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    results = []
    for each in (agent, other):
        torch.manual_seed(3)
        results.append(each.update(random_batch(seed=5)))
    assert results[0] == results[1]
    assert results[0].actor_loss is not None


@pytest.fixture(scope="module")
def legacy():
    return drive("legacy", steps=144, learning_starts=100, batch_size=16)


def test_the_legacy_policy_goes_silent_while_the_whole_side_looks_busy(legacy):
    _, history, _ = legacy
    actor = [record for record in history if record.optimizer == "actor"]
    assert len(actor) == 22
    zero = [record.step for record in actor if record.modules["actor_mlp"].norm_after == 0.0]
    # Exactly zero, and from then on for good.
    assert zero
    assert zero[0] <= 20
    assert zero == list(range(zero[0], 23))
    last = actor[-1]
    assert last.norm_before > 100 * actor[0].norm_before
    assert last.norm_after == pytest.approx(1.0, abs=1e-3)
    assert last.modules["actor_cnn"].norm_after == pytest.approx(last.norm_after)
    assert last.missing == ()


def test_the_wrong_metric_stands_beside_the_right_one(legacy):
    _, history, updates = legacy
    # On updates with an actor step, the record before the actor's is the critic's of the same update.
    actor = [record for record in history if record.optimizer == "actor"]
    wrong = [update.wrong_norms for update in updates if update.actor_loss is not None]
    for record, sums in zip(actor, wrong, strict=True):
        right = record.modules["actor_cnn"].norm_after
        # It is the sum over 8 tensors: never below their norm, at most sqrt(8) times it.
        assert right < sums["actor_cnn"] <= 8**0.5 * right * (1 + 1e-5)
        assert sums["actor_mlp"] >= record.modules["actor_mlp"].norm_after
    assert max(sums["actor_cnn"] for sums in wrong) > 1.2 * ACTOR_LIMIT
    assert max(record.norm_after for record in actor) < 1.001 * ACTOR_LIMIT
    assert set(updates[0].wrong_norms) == {"critic_cnn", "critic_mlp"}
