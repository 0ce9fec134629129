"""The environment: gymnasium's contract over the road, the traffic, the camera and the reward.

Driving, traffic, the picture and the reward are each in a file of their own; here they take turns.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from examples.carla_td3.env.camera import SIDE, Camera
from examples.carla_td3.env.car import Car
from examples.carla_td3.env.collision import any_overlap
from examples.carla_td3.env.reward import WEIGHTS, Moment, reward_terms
from examples.carla_td3.env.road import Place, town, wrap_angle
from examples.carla_td3.env.traffic import Column

__all__ = ["SCENARIOS", "DrivingEnv", "Observation"]

Observation = dict[str, npt.NDArray[Any]]

SCENARIOS = {0: 20, 1: 50, 2: 100}

SECONDS = 0.05
FRAMES = 4
WAYPOINTS, WAYPOINT_STEP = 25, 2.0
SPEED_UNIT, LATERAL_UNIT, DISTANCE_UNIT = 30.0, 3.5, 50.0
ROUTE = 350.0
MAX_STEPS = 1000


class DrivingEnv(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """Drive 350 m along a lane among other vehicles.

    Observation: ``image`` (4, 84, 84) uint8, the last four frames, newest last; ``vector`` (53,) float32:
    speed / 30 m/s, lateral deviation / 3.5 m, heading error / pi, then 25 waypoints (x, y) in the car's frame
    / 50 m. Action: (2,) float32 in [-1, 1]: steering (1 is right), throttle (above 0) or brake (below).
    20 ticks a second.

    Args:
        vehicles: how many others drive in the town, half of them in each lane.
        route: metres to drive until the goal.
        max_steps: ticks of a twentieth of a second until an episode is truncated.
        action_repeat: ticks for which an action holds. A picture is taken once an action, and the driving in it
            is paid as the mean over its ticks: what an episode ends with, the goal or a crash, counts in full.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (gymnasium's own attribute)

    def __init__(
        self,
        vehicles: int = SCENARIOS[0],
        route: float = ROUTE,
        max_steps: int = MAX_STEPS,
        action_repeat: int = 1,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.observation_space: gymnasium.Space[Any] = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (FRAMES, SIDE, SIDE), np.uint8),
                "vector": spaces.Box(-2.0, 2.0, (3 + 2 * WAYPOINTS,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._vehicles = vehicles
        self._route = route
        self._max_steps = max_steps
        self._action_repeat = action_repeat
        self._road = town()
        self._camera = Camera(self._road.ground)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        start = float(self.np_random.uniform(0.0, self._road.own.length))
        x, y, heading = self._road.own.poses(np.array([start]))[0]
        self._car = Car(float(x), float(y), float(heading))
        self._columns = self._populate(start)
        self._place = self._road.own.locate(self._car.x, self._car.y)
        self._driven = 0.0
        self._steps = 0
        self._frames = np.repeat(self._picture()[None], FRAMES, axis=0)
        return self.observation(), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        steering, pedal = np.clip(action, -1.0, 1.0).tolist()
        terms: list[dict[str, float]] = []
        for _ in range(self._action_repeat):
            moment = self._drive(steering, pedal)
            self._steps += 1
            terms.append(reward_terms(moment))
            terminated = moment.collided or moment.off_road or moment.finished
            truncated = not terminated and self._steps >= self._max_steps
            if terminated or truncated:
                break
        # A new array: observations that were handed out stay as they are.
        self._frames = np.concatenate([self._frames[1:], self._picture()[None]])
        # What ends an episode is paid in its last tick alone.
        paid = terms[-1] | {name: sum(term[name] for term in terms) / len(terms) for name in WEIGHTS}
        info = {
            "reward_terms": paid,
            "speed": moment.speed,
            "route": min(1.0, max(0.0, self._driven / self._route)),
            "collided": moment.collided,
            "off_road": moment.off_road,
            "finished": moment.finished,
        }
        return self.observation(), float(sum(paid.values())), terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8]:
        """The newest frame as (84, 84, 3) uint8."""
        return np.repeat(self._frames[-1][:, :, None], 3, axis=2)

    def observation(self) -> Observation:
        """What is seen now."""
        x, y, heading = self._pose()
        ahead = self._road.own.ahead(self._place.s, WAYPOINTS, WAYPOINT_STEP) - (x, y)
        cos, sin = np.cos(heading), np.sin(heading)
        vector = np.empty(3 + 2 * WAYPOINTS, dtype=np.float32)
        vector[0] = self._car.speed / SPEED_UNIT
        vector[1] = self._place.lateral / LATERAL_UNIT
        vector[2] = wrap_angle(heading - self._place.heading) / np.pi
        vector[3::2] = (ahead[:, 0] * cos + ahead[:, 1] * sin) / DISTANCE_UNIT
        vector[4::2] = (ahead[:, 1] * cos - ahead[:, 0] * sin) / DISTANCE_UNIT
        return {"image": self._frames, "vector": np.clip(vector, -2.0, 2.0)}

    def state_dict(self) -> dict[str, Any]:
        """The episode as it stands, and the source of chance; plain values."""
        return {
            "car": astuple(self._car),
            "columns": [column.state_dict() for column in self._columns],
            "driven": self._driven,
            "steps": self._steps,
            "frames": self._frames.tolist(),
            "chance": self.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with an episode; after a ``reset``."""
        self._car = Car(*state["car"])
        for column, kept in zip(self._columns, state["columns"], strict=True):
            column.load_state_dict(kept)
        self._place = self._road.own.locate(self._car.x, self._car.y)
        self._driven, self._steps = state["driven"], state["steps"]
        self._frames = np.array(state["frames"], dtype=np.uint8)
        self.np_random.bit_generator.state = state["chance"]

    def _populate(self, start: float) -> tuple[Column, Column]:
        own, oncoming = self._road.own, self._road.oncoming
        beside = oncoming.locate(self._car.x, self._car.y).s
        with_us = self._vehicles // 2
        return (
            Column(own, with_us, start, self.np_random),
            Column(oncoming, self._vehicles - with_us, beside, self.np_random),
        )

    def _drive(self, steering: float, pedal: float) -> Moment:
        before, place = self._car, self._place
        self._car = before.driven(steering, pedal, SECONDS)
        for column in self._columns:
            column.advance(self._car, SECONDS)
        self._place = self._road.own.locate(self._car.x, self._car.y)
        progress = self._progress(place, self._place)
        self._driven += progress
        gap, speed_ahead = self._columns[0].next_ahead(self._place.s)
        return Moment(
            speed=self._car.speed,
            lateral=self._place.lateral,
            heading_error=wrap_angle(self._car.heading - self._place.heading),
            jerk=(self._car.acceleration - before.acceleration) / SECONDS,
            progress=progress,
            gap=gap,
            closing=self._car.speed - speed_ahead,
            seconds=SECONDS,
            collided=any_overlap(self._pose(), self._others()),
            finished=self._driven >= self._route,
        )

    def _progress(self, before: Place, after: Place) -> float:
        """Metres along the lane, also across the point where its arc length starts again at 0."""
        length = self._road.own.length
        return (after.s - before.s + length / 2) % length - length / 2

    def _pose(self) -> tuple[float, float, float]:
        return self._car.x, self._car.y, self._car.heading

    def _others(self) -> npt.NDArray[np.float64]:
        return np.concatenate([column.poses() for column in self._columns])

    def _picture(self) -> npt.NDArray[np.uint8]:
        return self._camera.picture(self._pose(), self._others())
