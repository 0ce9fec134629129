"""What both backends promise: one suite for the embedded environment and for CARLA's, on a stand-in of its client."""

import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from examples.carla_td3.env import DrivingEnv
from tests.examples.carla_fixtures import carla_env


@pytest.fixture(params=["embedded", "carla"])
def make(request, monkeypatch):
    """A factory of environments, which are closed at the end."""
    made = []

    def make(**options):
        made.append(DrivingEnv(**options) if request.param == "embedded" else carla_env(monkeypatch, **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


def towards_the_road(observation, target=6.0):
    vector = observation["vector"]
    steer = np.clip(3 * math.atan2(vector[10], vector[9]), -1, 1)
    return np.array([steer, 0.5 if vector[0] * 30 < target else -0.2], dtype=np.float32)


def always(steering, pedal):
    return lambda observation: np.array([steering, pedal], dtype=np.float32)


def run(env, driver, seed=0):
    observation, _ = env.reset(seed=seed)
    seen = [(observation, 0.0, False, False, {})]
    while not seen[-1][2] and not seen[-1][3]:
        seen.append(env.step(driver(seen[-1][0])))
    return seen[1:]


def test_gymnasiums_own_check_finds_nothing(make):
    # Alternative render modes can be checked only of a registered environment.
    check_env(make(render_mode="rgb_array"), skip_render_check=True)


def test_an_episode_begins_in_the_middle_of_a_lane_that_lies_ahead(make):
    observation, _ = make().reset(seed=3)
    assert (observation["image"].shape, observation["image"].dtype) == ((4, 84, 84), np.uint8)
    assert (observation["vector"].shape, observation["vector"].dtype) == ((53,), np.float32)
    assert observation["vector"][:3] == pytest.approx([0.0, 0.0, 0.0], abs=2e-3)
    waypoints = observation["vector"][3:].reshape(25, 2) * 50
    assert waypoints[0] == pytest.approx([2.0, 0.0], abs=0.15)
    assert np.linalg.norm(np.diff(waypoints, axis=0), axis=1) == pytest.approx(2.0, abs=0.1)


def test_the_vector_tells_speed_and_side(make):
    env = make(vehicles=0)
    seen = [step for step, _ in zip(run(env, always(0.3, 1.0), seed=3), range(15), strict=False)]
    observation, *_, info = seen[-1]
    vector = observation["vector"]
    assert vector[0] * 30 == pytest.approx(info["speed"])
    assert info["speed"] > 1.0
    # Steering to the right leads to the right of the lane, and the road then lies to the left.
    assert vector[1] > 0
    assert vector[2] > 0
    assert vector[4] < 0


def test_the_throttle_drives_and_the_brake_stops(make):
    env = make(vehicles=0, action_repeat=8)
    env.reset(seed=3)
    moved = env.step(np.array([0.0, 1.0], dtype=np.float32))[4]["speed"]
    stopped = env.step(np.array([0.0, -1.0], dtype=np.float32))[4]["speed"]
    assert moved > 1.0 > 0.1 > stopped


def test_a_seed_decides_everything(make):
    actions = np.random.default_rng(0).uniform(-0.2, 1.0, size=(30, 2)).astype(np.float32)

    def driven(env, seed):
        env.reset(seed=seed)
        steps = [env.step(action) for action in actions]
        return [step[1] for step in steps], steps[-1][0]

    env = make(vehicles=50)
    first, last = driven(env, 7)
    other, _ = driven(env, 8)
    again, last_again = driven(env, 7)
    assert first == again != other
    assert (last["image"] == last_again["image"]).all()
    assert (last["vector"] == last_again["vector"]).all()


def test_the_newest_frame_is_last_and_old_observations_stay_as_they_were(make):
    env = make()
    before, _ = env.reset(seed=1)
    copy = before["image"].copy()
    for _ in range(20):
        middle, *_ = env.step(np.array([0.0, 1.0], dtype=np.float32))
    after, *_ = env.step(np.array([0.0, 1.0], dtype=np.float32))
    assert (after["image"][:3] == middle["image"][1:]).all()
    assert (after["image"][3] != middle["image"][3]).any()
    assert (before["image"] == copy).all()
    assert (env.observation()["image"] == after["image"]).all()
    assert (env.render()[:, :, 1] == after["image"][3]).all()


def test_the_route_can_be_finished_and_pays(make):
    env = make(vehicles=0, route=30.0, action_repeat=4)
    *_, (_, reward, terminated, truncated, info) = run(env, towards_the_road)
    assert (terminated, truncated) == (True, False)
    assert info["finished"]
    assert info["route"] == 1.0
    # Not a quarter of it: what ends an episode counts in full.
    assert info["reward_terms"]["goal"] == 100.0
    assert reward == pytest.approx(sum(info["reward_terms"].values()))
    assert reward > 100


def test_leaving_the_lane_ends_the_episode(make):
    *_, (observation, reward, terminated, _, info) = run(make(vehicles=0), always(1.0, 1.0))
    assert terminated
    assert info["off_road"]
    assert reward < -10
    assert abs(observation["vector"][1] * 3.5) > 2.5


def test_running_into_the_vehicle_ahead_ends_the_episode_and_is_paid_by_speed(make):
    env = make(vehicles=60, route=1e3, action_repeat=4)
    seen = run(env, lambda observation: towards_the_road(observation, target=20.0), seed=2)
    _, reward, terminated, _, info = seen[-1]
    assert terminated
    assert info["collided"]
    assert info["reward_terms"]["collision"] == (-100.0 if info["speed"] >= 6.0 else -25.0)
    assert seen[0][4]["reward_terms"]["safety"] == 0
    assert seen[-1][4]["reward_terms"]["safety"] < 0
    assert reward < -5


def test_an_action_holds_for_some_ticks_and_time_runs_out(make):
    seen = run(make(vehicles=0, max_steps=7, action_repeat=4), always(0.0, 0.1))
    assert [step[2:4] for step in seen] == [(False, False), (False, True)]
    fine = run(make(vehicles=0, max_steps=7), always(0.0, 0.1))
    assert len(fine) == 7
    assert [fine[3][4]["speed"], fine[6][4]["speed"]] == [step[4]["speed"] for step in seen]
    assert seen[0][1] == pytest.approx(sum(step[1] for step in fine[:4]) / 4)


def test_actions_beyond_the_limits_are_cut(make):
    ends = []
    for scale in (1.0, 50.0):
        env = make(vehicles=0)
        env.reset(seed=0)
        ends.append(env.step(np.array([0.0, 1.0], dtype=np.float32) * scale)[4]["speed"])
    assert ends[0] == ends[1] > 0


def test_the_source_of_chance_goes_on_from_its_state(make):
    one, other = make(), make()
    one.reset(seed=5)
    state = one.state_dict()
    first = one.reset()[0]
    other.reset(seed=6)
    other.load_state_dict(state)
    assert (other.reset()[0]["vector"] == first["vector"]).all()
