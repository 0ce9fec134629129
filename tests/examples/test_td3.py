"""The networks, the agent's update and the loop."""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradwatch
from examples.carla_td3.checkpoint import Checkpoints
from examples.carla_td3.options import parse
from examples.carla_td3.replay import Batch
from examples.carla_td3.reporting import Report
from examples.carla_td3.td3 import TD3, Driver, Heads, Policy, make_cnn, train

CPU = torch.device("cpu")


def options(preset="fixed", **changes):
    plain = parse(["--preset", preset, "--prometheus-port", "0", "--device", "cpu", "--num-eval-episodes", "1"])
    return replace(plain, **changes)


def make(preset="fixed", seed=42, **changes):
    torch.manual_seed(seed)
    return TD3(options(preset, **changes), CPU)


def random_batch(size=4, seed=0):
    random = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.rand(shape, generator=random) * 2 - 1

    def images():
        return torch.randint(0, 256, (size, 4, 84, 84), generator=random, dtype=torch.uint8)

    return Batch(
        image=images(),
        next_image=images(),
        vector=numbers(size, 53),
        next_vector=numbers(size, 53),
        action=numbers(size, 2),
        reward=numbers(size, 1),
        not_done=torch.ones(size, 1),
    )


class Listener(Report):
    """Keeps what the loop tells."""

    def __init__(self, asked, folder):
        super().__init__(asked, folder, start=0)
        self.memory = gradwatch.sinks.Memory()
        self.sinks = [self.memory, self.checklist]
        self.told = []

    def updated(self, step, said):
        self.told.append((step, {name: float(value) for name, value in said.items()}))
        super().updated(step, said)


def drive(folder, preset="fixed", **changes):
    changes = {"max_timesteps": 16, "learning_starts": 6, "batch_size": 2, "buffer_size": 100, **changes}
    asked = options(preset, **changes)
    listener = Listener(asked, folder)
    agent = train(asked, Checkpoints(folder), listener)
    listener.close()
    return agent, listener


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("layer_norm", "parameters"), [(True, 1_727_392), (False, 1_684_128)])
def test_the_cnn_has_its_parameters_and_its_shape(layer_norm, parameters):
    cnn = make_cnn(layer_norm)
    assert count(cnn) == parameters
    assert cnn(torch.zeros(2, 4, 84, 84)).shape == (2, 512)


def test_the_policy_has_its_parameters_and_stays_in_its_range():
    policy = Policy(None)
    assert count(policy) == 211_202
    action, before = policy(100 * torch.randn(5, 512), torch.randn(5, 53))
    assert torch.equal(action, torch.tanh(before))
    assert action.shape == (5, 2)


def test_the_last_layer_starts_as_small_as_asked():
    last = Policy(1e-3).layers[-1]
    assert 0 < last.weight.abs().max() <= 1e-3
    assert last.bias.abs().max() <= 1e-3
    assert Policy(None).layers[-1].weight.abs().max() > 1e-2


def test_each_q_head_has_its_parameters_and_they_differ():
    heads = Heads()
    assert count(heads.q1) == count(heads.q2) == 211_457
    q1, q2 = heads(torch.randn(3, 512), torch.randn(3, 53), torch.randn(3, 2))
    assert q1.shape == q2.shape == (3, 1)
    assert (q1 != q2).all()


def test_both_inputs_weigh_the_same_once_the_vector_is_levelled():
    agent = make()
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(500, 53)) * np.linspace(0.05, 3.0, 53) + 1.0).astype(np.float32)
    agent.balance(vectors)
    level = agent._level(torch.from_numpy(vectors))
    assert level.mean(0).abs().max() < 1e-3
    assert level.std(0).min() > 0.7
    assert level.std(0).max() <= 1.0


def test_the_actor_is_trained_every_second_time(tmp_path):
    agent, listener = drive(tmp_path)
    assert agent.updates == 10
    assert [step for step, _ in listener.told] == list(range(7, 17))
    assert ["train/actor_loss" in said for _, said in listener.told] == [False, True] * 5
    assert [record.optimizer for record in listener.memory.records].count("critic") == 10
    assert [record.optimizer for record in listener.memory.records].count("actor") == 5


def test_500_steps_make_400_updates(tmp_path, monkeypatch):
    monkeypatch.setattr(TD3, "update", lambda self, batch: setattr(self, "updates", self.updates + 1) or {})
    agent, listener = drive(tmp_path, max_timesteps=500, learning_starts=100, buffer_size=500, action_repeat=1)
    assert agent.updates == 400
    assert [step for step, _ in listener.told] == list(range(101, 501))


def test_updates_can_come_more_seldom_than_decisions(tmp_path):
    _, listener = drive(tmp_path, update_every=4)
    assert [step for step, _ in listener.told] == [8, 12, 16]


def test_each_side_is_clipped_jointly_and_by_its_own_limit(tmp_path):
    _, listener = drive(tmp_path, actor_clip=0.5, critic_clip=2.0)
    for record in listener.memory.records:
        side = record.optimizer
        assert record.max_norm == {"actor": 0.5, "critic": 2.0}[side]
        assert set(record.modules) == {f"{side}_cnn", f"{side}_mlp"}
        whole = sum(norms.norm_before**2 for norms in record.modules.values()) ** 0.5
        assert whole == pytest.approx(record.norm_before, rel=1e-9)


def test_without_a_limit_nothing_is_clipped(tmp_path):
    _, listener = drive(tmp_path, actor_clip=0.0, critic_clip=0.0)
    assert all(record.clips == () for record in listener.memory.records)


def test_the_same_seed_gives_the_same_training(tmp_path):
    told, drawn = [], []
    for name, seed in (("a", 42), ("b", 42), ("c", 1)):
        (tmp_path / name).mkdir()
        told.append(drive(tmp_path / name, seed=seed)[1].told)
        drawn.append((random.random(), float(np.random.random()), float(torch.rand(()))))
    assert told[0] == told[1] != told[2]
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


@pytest.mark.parametrize("preset", ["fixed", "legacy"])
def test_training_is_the_same_bit_for_bit_without_gradwatch(preset, tmp_path, monkeypatch):
    watched, _ = drive(tmp_path / "a" if (tmp_path / "a").mkdir() is None else None, preset)
    monkeypatch.setattr("gradwatch.track", lambda *given, **named: Unwatched())
    (tmp_path / "b").mkdir()
    plain, _ = drive(tmp_path / "b", preset)
    for one, other in ((watched.actor, plain.actor), (watched.critic, plain.critic)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


class Unwatched:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def state_dict(self):
        return {}


def saturate(agent):
    with torch.no_grad():
        agent.actor.mlp.layers[-1].bias.fill_(50.0)


def test_fixed_trains_the_policy_only_through_its_own_action():
    agent = make(policy_delay=1, action_penalty=0.0)
    saturate(agent)
    agent.critic.zero_grad()
    agent.update(random_batch())
    # With tanh saturated nothing is left: there is no other way for the loss to the actor's side.
    assert gradwatch.global_norm(agent.actor) == 0


def test_the_penalty_brings_a_saturated_policy_back():
    agent = make(policy_delay=1)
    saturate(agent)
    agent.update(random_batch())
    assert gradwatch.global_norm(agent.actor.mlp) > 0.1


def test_legacy_reaches_the_actors_cnn_around_the_policy():
    agent = make("legacy", policy_delay=1)
    saturate(agent)
    agent.update(random_batch())
    assert gradwatch.global_norm(agent.actor.mlp) == 0
    assert gradwatch.global_norm(agent.actor.cnn) > 0


@pytest.mark.parametrize(("preset", "own"), [("fixed", True), ("legacy", False)])
def test_the_targets_follow_slowly(preset, own):
    agent = make(preset, tau=0.005)
    before = copy.deepcopy(agent.target_critic)
    agent.update(random_batch())
    agent.update(random_batch(seed=1))
    assert (agent.target_critic.cnn is agent.critic.cnn) is not own
    for part in ("cnn", "mlp") if own else ("mlp",):
        pairs = zip(
            getattr(before, part).parameters(),
            getattr(agent.target_critic, part).parameters(),
            getattr(agent.critic, part).parameters(),
            strict=True,
        )
        for old, new, fast in pairs:
            torch.testing.assert_close(new, 0.995 * old + 0.005 * fast)


def loss_where_q_is(agent, batch, q1, q2):
    """The critic's loss with targets of ``q1`` and ``q2`` everywhere, and its own heads at 0."""
    with torch.no_grad():
        for heads, values in ((agent.target_critic.mlp, (q1, q2)), (agent.critic.mlp, (0.0, 0.0))):
            for head, value in zip((heads.q1, heads.q2), values, strict=True):
                head[-1].weight.zero_()
                head[-1].bias.fill_(value)
    return float(agent.update(batch)["train/critic_loss"])


def test_the_target_is_the_reward_where_the_episode_ended_and_the_lower_head_where_it_goes_on():
    batch = random_batch()
    scale = options().reward_scale
    ended = batch._replace(not_done=torch.zeros(4, 1))
    assert loss_where_q_is(make(), ended, 7.0, 3.0) == pytest.approx(
        2 * float((scale * batch.reward).square().mean()), rel=1e-5
    )
    wanted = scale * batch.reward + options().gamma * 3.0
    assert loss_where_q_is(make(), batch, 7.0, 3.0) == pytest.approx(2 * float(wanted.square().mean()), rel=1e-5)


def test_the_warm_up_goes_forward_and_holds_its_course():
    chance = np.random.default_rng(0)
    driver = Driver(options(), chance)
    actions = np.array([driver.action(None, 1, None) for _ in range(2000)])
    assert actions[:, 1].mean() == pytest.approx(0.5, abs=0.1)
    assert abs(actions[:, 0].mean()) < 0.05
    assert np.corrcoef(actions[:-1, 0], actions[1:, 0])[0, 1] > 0.7
    even = Driver(options("legacy"), chance)
    assert abs(np.array([even.action(None, 1, None) for _ in range(2000)]).mean()) < 0.05


def test_a_saved_agent_goes_on_as_it_was():
    agent = make()
    agent.balance(np.random.default_rng(0).normal(size=(9, 53)).astype(np.float32))
    agent.update(random_batch())
    other = make(seed=7)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    results = []
    for each in (agent, other):
        torch.manual_seed(3)
        results.append(each.update(random_batch(seed=5)))
    assert results[0] == results[1]
    assert "train/actor_loss" in results[0]


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("legacy")
    return drive(folder, "legacy", max_timesteps=144, learning_starts=100, batch_size=16, buffer_size=200)[1]


def test_the_legacy_policy_goes_silent_while_the_whole_side_looks_busy(legacy):
    actor = [record for record in legacy.memory.records if record.optimizer == "actor"]
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


@pytest.mark.parametrize("side", ["actor", "critic"])
def test_the_wrong_metric_stands_beside_the_right_one(legacy, side):
    own = [record for record in legacy.memory.records if record.optimizer == side]
    tag = f"debug/{side}_cnn_grad_norm_AFTER_clip_SUM_OF_NORMS"
    wrong = [said[tag] for _, said in legacy.told if tag in said]
    for record, summed in zip(own, wrong, strict=True):
        right = record.modules[f"{side}_cnn"].norm_after
        # It is the sum over 8 tensors: never below their norm, at most sqrt(8) times it.
        assert right < summed <= 8**0.5 * right * (1 + 1e-5)
    if side == "actor":
        assert max(wrong) > 1.2
        assert max(record.norm_after for record in own) < 1.001
