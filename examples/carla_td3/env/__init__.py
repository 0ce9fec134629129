"""The embedded driving environment: a road, traffic, a camera and a reward in numpy, with no server."""

from examples.carla_td3.env.environment import SCENARIOS, DrivingEnv, Observation

__all__ = ["SCENARIOS", "DrivingEnv", "Observation"]
