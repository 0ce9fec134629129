"""The driving environment: embedded in numpy, with no server, and on a CARLA server (``carla/``)."""

from examples.carla_td3.env.driving import DrivingBase, Observation
from examples.carla_td3.env.environment import SCENARIOS, DrivingEnv

__all__ = ["SCENARIOS", "DrivingBase", "DrivingEnv", "Observation"]
