import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from examples.carla_td3.env import SCENARIOS, DrivingEnv

STRAIGHT = np.array([0.0, 0.0], dtype=np.float32)


def towards_the_road(observation, target=6.0):
    """A plain driver: steer at the fourth waypoint, hold a speed."""
    vector = observation["vector"]
    steer = np.clip(3 * math.atan2(vector[10], vector[9]), -1, 1)
    return np.array([steer, 0.5 if vector[0] * 30 < target else -0.2], dtype=np.float32)


def run(env, driver, seed=0, steps=2000):
    observation, _ = env.reset(seed=seed)
    seen = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(driver(observation))
        seen.append((observation, reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return seen


def test_gymnasiums_own_check_finds_nothing():
    # Alternative render modes can be checked only of a registered environment.
    check_env(DrivingEnv(render_mode="rgb_array"), skip_render_check=True)


def test_scenarios_have_the_vehicles_that_they_name():
    assert SCENARIOS == {0: 20, 1: 50, 2: 100}
    for count in SCENARIOS.values():
        env = DrivingEnv(count)
        env.reset(seed=0)
        assert len(env._others()) == count


def test_the_observation_has_the_shapes_types_and_units_of_the_contract():
    env = DrivingEnv()
    observation, _ = env.reset(seed=3)
    assert observation["image"].shape == (4, 84, 84)
    assert observation["image"].dtype == np.uint8
    assert observation["vector"].shape == (53,)
    assert observation["vector"].dtype == np.float32
    # At the start the car stands in the middle of its lane and looks along it.
    assert observation["vector"][:3] == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)
    waypoints = observation["vector"][3:].reshape(25, 2) * 50
    assert waypoints[0] == pytest.approx([2.0, 0.0], abs=0.15)
    assert np.linalg.norm(np.diff(waypoints, axis=0), axis=1) == pytest.approx(2.0, abs=0.1)


def test_the_vector_tells_speed_and_side():
    env = DrivingEnv(0)
    env.reset(seed=3)
    right = np.array([0.3, 1.0], dtype=np.float32)
    for _ in range(15):
        observation, *_, info = env.step(right)
    vector = observation["vector"]
    assert vector[0] * 30 == pytest.approx(info["speed"])
    assert info["speed"] == pytest.approx(3.0 * 0.05 * 15, rel=0.1)
    # Steering to the right leads to the right of the lane, and the road then lies to the left.
    assert vector[1] > 0
    assert vector[2] > 0
    assert vector[4] < 0


def test_the_newest_frame_is_last_and_old_observations_stay_as_they_were():
    env = DrivingEnv()
    before, _ = env.reset(seed=1)
    copy = before["image"].copy()
    after, *_ = env.step(np.array([0.5, 1.0], dtype=np.float32))
    assert (after["image"][:3] == copy[1:]).all()
    assert (before["image"] == copy).all()


def test_a_seed_decides_everything():
    actions = np.random.default_rng(0).uniform(-0.2, 1.0, size=(60, 2)).astype(np.float32)

    def rewards(seed):
        env = DrivingEnv(50)
        env.reset(seed=seed)
        steps = [env.step(action) for action in actions]
        return [step[1] for step in steps], steps[-1][0]

    first, last = rewards(7)
    again, last_again = rewards(7)
    other, _ = rewards(8)
    assert first == again
    assert (last["image"] == last_again["image"]).all()
    assert (last["vector"] == last_again["vector"]).all()
    assert first != other


def test_the_reward_is_the_sum_of_its_terms():
    for _, reward, _, _, info in run(DrivingEnv(), towards_the_road, steps=100):
        assert reward == pytest.approx(sum(info["reward_terms"].values()))


def test_the_route_can_be_finished_and_pays():
    *_, (_, reward, terminated, truncated, info) = run(DrivingEnv(0, route=60.0), towards_the_road)
    assert terminated
    assert not truncated
    assert info["finished"]
    assert reward > 100


def test_leaving_the_lane_ends_the_episode():
    sideways = np.array([1.0, 1.0], dtype=np.float32)
    *_, (observation, reward, terminated, _, info) = run(DrivingEnv(0), lambda _: sideways)
    assert terminated
    assert info["off_road"]
    assert reward < -10
    assert abs(observation["vector"][1] * 3.5) > 2.5


def test_running_into_the_vehicle_ahead_ends_the_episode():
    *_, (_, reward, terminated, _, info) = run(
        DrivingEnv(100, route=1e6), lambda observation: towards_the_road(observation, target=20.0)
    )
    assert terminated
    assert info["collided"]
    assert reward < -50


def test_an_action_holds_for_some_ticks_and_its_reward_is_the_mean_of_them():
    action = np.array([0.02, 0.8], dtype=np.float32)
    fine, coarse = DrivingEnv(), DrivingEnv(action_repeat=4)
    fine.reset(seed=5)
    coarse.reset(seed=5)
    for _ in range(6):
        ticks = [fine.step(action) for _ in range(4)]
        observation, reward, *_ = coarse.step(action)
        assert reward == pytest.approx(sum(tick[1] for tick in ticks) / 4)
        assert (observation["vector"] == ticks[-1][0]["vector"]).all()
    assert (observation["image"][-1] == ticks[-1][0]["image"][-1]).all()


def test_what_ends_an_episode_counts_in_full_and_ends_it_at_once():
    seen = run(DrivingEnv(0, route=60.0, action_repeat=4), towards_the_road)
    assert seen[-1][4]["reward_terms"]["goal"] == 100.0
    assert seen[-1][4]["route"] == 1.0
    env = DrivingEnv(0, max_steps=7, action_repeat=4)
    assert len(run(env, lambda _: STRAIGHT)) == 2
    assert env._steps == 7


def test_an_episode_goes_on_from_its_state():
    one, other = DrivingEnv(50), DrivingEnv(50)
    one.reset(seed=5)
    other.reset(seed=6)
    action = np.array([0.01, 0.8], dtype=np.float32)
    for _ in range(40):
        one.step(action)
    other.load_state_dict(one.state_dict())
    for env in (one, other):
        assert (env.observation()["image"] == one.observation()["image"]).all()
    for _ in range(40):
        first, second = one.step(action), other.step(action)
        assert first[1:4] == second[1:4]
        assert (first[0]["image"] == second[0]["image"]).all()
    assert (one.reset()[0]["image"] == other.reset()[0]["image"]).all()


def test_time_runs_out():
    seen = run(DrivingEnv(0, max_steps=7), lambda _: STRAIGHT)
    assert len(seen) == 7
    assert seen[-1][2:4] == (False, True)
    assert not any(truncated for *_, truncated, _ in seen[:-1])


def test_actions_beyond_the_limits_are_cut():
    ends = []
    for scale in (1.0, 50.0):
        env = DrivingEnv(0)
        env.reset(seed=0)
        ends.append(env.step(np.array([0.0, 1.0], dtype=np.float32) * scale)[4]["speed"])
    assert ends[0] == ends[1]


def test_a_picture_can_be_rendered():
    env = DrivingEnv(render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    assert (env.render()[:, :, 1] == observation["image"][-1]).all()
