"""What the embedded backend has beyond the contract, see test_contract.py."""

import numpy as np

from examples.carla_td3.env import SCENARIOS, DrivingEnv


def test_scenarios_have_the_vehicles_that_they_name():
    assert SCENARIOS == {0: 20, 1: 50, 2: 100}
    for count in SCENARIOS.values():
        env = DrivingEnv(count)
        env.reset(seed=0)
        assert len(env._others()) == count


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
