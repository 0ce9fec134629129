"""The other vehicles: each follows the one ahead in its lane under the Intelligent Driver Model.

Source: Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and microscopic
simulations", Physical Review E 62 (2000). Nobody overtakes, so the order in a lane never changes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.car import CAR_LENGTH, CAR_WIDTH, Car
from examples.carla_td3.env.road import LANE_WIDTH, Lane, wrap_angle

__all__ = ["Column", "idm_acceleration"]

FloatArray = npt.NDArray[np.float64]

HEADWAY = 1.5
STANDSTILL_GAP = 2.0
ACCELERATION = 1.5
COMFORTABLE_BRAKING = 2.0
HARDEST_BRAKING = 8.0


def idm_acceleration(speed: FloatArray, desired: FloatArray, gap: FloatArray, closing: FloatArray) -> FloatArray:
    """The model's acceleration in m/s^2.

    Args:
        speed: (n,) m/s.
        desired: (n,) speed on a free road, m/s.
        gap: (n,) metres between the bumpers.
        closing: (n,) speed minus that of the vehicle ahead, m/s.
    """
    braking_term = speed * closing / (2.0 * math.sqrt(ACCELERATION * COMFORTABLE_BRAKING))
    wanted_gap = STANDSTILL_GAP + np.maximum(0.0, speed * HEADWAY + braking_term)
    free = 1.0 - (speed / desired) ** 4
    pull = ACCELERATION * (free - (wanted_gap / np.maximum(gap, 0.1)) ** 2)
    return np.maximum(pull, -HARDEST_BRAKING)


class Column:
    """The vehicles of one lane, in the order in which they drive.

    Args:
        lane: where they drive.
        count: how many.
        clear_s: arc length that is left free, where the driven car starts.
        random: where speeds and gaps come from.
    """

    def __init__(self, lane: Lane, count: int, clear_s: float, random: np.random.Generator) -> None:
        self.lane = lane
        slot = lane.length / (count + 1)
        if slot < CAR_LENGTH + 2 * STANDSTILL_GAP:
            raise ValueError(f"{count} vehicles do not fit into a lane of {lane.length:.0f} m: ask for fewer.")
        play = min(10.0, slot - CAR_LENGTH - STANDSTILL_GAP) / 2
        jitter = random.uniform(-play, play, size=count)
        self.s: FloatArray = (clear_s + slot * np.arange(1, count + 1) + jitter) % lane.length
        self.desired: FloatArray = random.uniform(6.0, 9.0, size=count)
        self.speed: FloatArray = self.desired * random.uniform(0.5, 1.0, size=count)

    def advance(self, car: Car, seconds: float) -> None:
        """Move every vehicle on by ``seconds``; the driven car is in the way where its body is in the lane."""
        if not len(self.s):
            return
        gap = (np.roll(self.s, -1) - self.s) % self.lane.length - CAR_LENGTH
        if len(self.s) == 1:
            gap[:] = self.lane.length - CAR_LENGTH
        ahead = np.roll(self.speed, -1)
        gap, ahead = self._with_car(gap, ahead, car)
        push = idm_acceleration(self.speed, self.desired, gap, self.speed - ahead)
        speed = np.maximum(0.0, self.speed + push * seconds)
        self.s = (self.s + 0.5 * (self.speed + speed) * seconds) % self.lane.length
        self.speed = speed

    def _with_car(self, gap: FloatArray, ahead: FloatArray, car: Car) -> tuple[FloatArray, FloatArray]:
        place = self.lane.locate(car.x, car.y)
        if abs(place.lateral) > (LANE_WIDTH + CAR_WIDTH) / 2:
            return gap, ahead
        # A vehicle that is level with the car has it behind or beside it, not a lap ahead: no negative gaps.
        to_car = (place.s - self.s) % self.lane.length - CAR_LENGTH
        nearer = (to_car < gap) & (to_car > -CAR_LENGTH / 2)
        along = car.speed * math.cos(wrap_angle(car.heading - place.heading))
        return np.where(nearer, to_car, gap), np.where(nearer, along, ahead)

    def state_dict(self) -> dict[str, list[float]]:
        """Where the vehicles are and how fast they drive and would like to."""
        return {"s": self.s.tolist(), "desired": self.desired.tolist(), "speed": self.speed.tolist()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Put them there."""
        self.s, self.desired, self.speed = (np.array(state[name]) for name in ("s", "desired", "speed"))

    def poses(self) -> FloatArray:
        """(n, 3): x, y in metres and heading in radians of each vehicle."""
        return self.lane.poses(self.s)

    def next_ahead(self, s: float) -> tuple[float, float]:
        """Gap in metres and speed in m/s of the first vehicle ahead of ``s``; infinity and 0 for an empty lane."""
        if not len(self.s):
            return math.inf, 0.0
        distance = (self.s - s) % self.lane.length
        first = int(np.argmin(distance))
        return float(distance[first]) - CAR_LENGTH, float(self.speed[first])
