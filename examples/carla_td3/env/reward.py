"""The reward: five weighted terms, each in [-1, 1], and what the end of an episode adds."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LATERAL_LIMIT", "TARGET_SPEED", "WEIGHTS", "Moment", "collision_penalty", "reward_terms"]

WEIGHTS = {"efficiency": 2.0, "lane_keeping": 2.0, "comfort": 1.0, "safety": 1.0, "progress": 3.0}
TARGET_SPEED = 8.33
LATERAL_LIMIT = 2.5
OFF_ROAD = -20.0
GOAL = 100.0

# Time to collision in seconds below which safety is lost, jerk in m/s^3 at which comfort is.
SAFE_TIME = 4.0
HARSH_JERK = 100.0


@dataclass(frozen=True)
class Moment:
    """What one step of driving looked like, in SI units and radians.

    Attributes:
        speed: of the car.
        lateral: deviation from the centre of its lane.
        heading_error: between the car and its lane.
        jerk: change of acceleration over the step.
        progress: metres made along the route.
        gap: metres to the vehicle ahead.
        closing: speed at which that gap shrinks.
        seconds: length of the step.
        collided: the car touched another.
        finished: the route is done.
    """

    speed: float
    lateral: float
    heading_error: float
    jerk: float
    progress: float
    gap: float
    closing: float
    seconds: float
    collided: bool = False
    finished: bool = False

    @property
    def off_road(self) -> bool:
        return abs(self.lateral) > LATERAL_LIMIT


def reward_terms(moment: Moment) -> dict[str, float]:
    """The weighted terms by name; the reward is their sum.

    What is paid for driving needs speed: who stands pays for it, and who creeps earns little by keeping the lane.
    """
    pace = min(1.0, moment.speed / TARGET_SPEED)
    rates = {
        "efficiency": _within(1.0 - 2.0 * abs(moment.speed - TARGET_SPEED) / TARGET_SPEED),
        "lane_keeping": pace * _lane_keeping(moment),
        "comfort": -min(1.0, abs(moment.jerk) / HARSH_JERK),
        "safety": -_danger(moment),
        "progress": _within(moment.progress / (TARGET_SPEED * moment.seconds)),
    }
    terms = {name: WEIGHTS[name] * rate for name, rate in rates.items()}
    terms["collision"] = collision_penalty(moment.speed) if moment.collided else 0.0
    terms["off_road"] = OFF_ROAD if moment.off_road else 0.0
    terms["goal"] = GOAL if moment.finished else 0.0
    return terms


def collision_penalty(speed: float) -> float:
    """A touch while rolling, a crash in town, a crash at speed: by m/s."""
    if speed < 2.0:
        return -5.0
    return -25.0 if speed < 6.0 else -100.0


def _lane_keeping(moment: Moment) -> float:
    """1 in the middle and straight, 0 at half the limits, -1 at both."""
    aside = min(1.0, abs(moment.lateral) / LATERAL_LIMIT)
    askew = min(1.0, abs(moment.heading_error) / (math.pi / 2))
    return 1.0 - aside - askew


def _danger(moment: Moment) -> float:
    """0 with no vehicle to run into within ``SAFE_TIME`` seconds, 1 on touching it."""
    if moment.closing <= 0.0:
        return 0.0
    return _within(1.0 - max(0.0, moment.gap) / moment.closing / SAFE_TIME, low=0.0)


def _within(value: float, low: float = -1.0) -> float:
    return min(1.0, max(low, value))
