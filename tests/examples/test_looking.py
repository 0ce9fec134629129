"""Whether a driver looks."""

import numpy as np
import pytest
import torch

from examples.carla_td3.env import DrivingEnv
from examples.carla_td3.evaluation import straight_on
from examples.carla_td3.looking import drive, looked, without_camera
from examples.carla_td3.options import parse
from examples.carla_td3.td3 import TD3


@pytest.fixture
def agent():
    torch.manual_seed(3)
    asked = parse(["--prometheus-port", "0", "--device", "cpu", "--image-weight", "1"])
    return TD3(asked, torch.device("cpu"))


@pytest.fixture(scope="module")
def seen():
    return drive(straight_on, DrivingEnv(20, max_steps=80, action_repeat=4))


def test_without_its_camera_a_driver_sees_the_vector_alone():
    seen = []
    without_camera(lambda observation: seen.append(observation))(
        {"image": np.zeros((4, 84, 84), np.uint8), "vector": np.ones(53, np.float32)}
    )
    assert (seen[0]["image"] == 127).all()
    assert seen[0]["image"].dtype == np.uint8
    assert (seen[0]["vector"] == 1).all()


def test_a_driver_that_sees_answers_to_the_picture(agent, seen):
    look = looked(agent, seen)
    assert look.states == 20
    assert 0 < look.features < 1
    assert look.features == pytest.approx(look.fresh, rel=0.5)
    assert min(look.steering, look.pedal) > 1e-4


def test_a_driver_whose_cnn_is_dead_does_not(agent, seen):
    with torch.no_grad():
        agent.actor.cnn[0].weight.zero_()
    look = looked(agent, seen)
    assert look.features == pytest.approx(0.0, abs=1e-6)
    assert (look.steering, look.pedal) == (0.0, 0.0)
    assert look.fresh > 0.01
    assert "over 20 states" in str(look)
