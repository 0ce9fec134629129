"""What both backends have in common: spaces, observation, an action that holds for some ticks, reward, ends.

A backend says how an episode begins, what a tick of driving looked like and what is seen.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from examples.carla_td3.env.camera import SIDE
from examples.carla_td3.env.reward import WEIGHTS, Moment, reward_terms

__all__ = ["SECONDS", "WAYPOINTS", "WAYPOINT_STEP", "DrivingBase", "Observation", "View"]

Observation = dict[str, npt.NDArray[Any]]

SECONDS = 0.05
FRAMES = 4
WAYPOINTS, WAYPOINT_STEP = 25, 2.0
SPEED_UNIT, LATERAL_UNIT, DISTANCE_UNIT = 30.0, 3.5, 50.0
ROUTE = 350.0
MAX_STEPS = 1000


@dataclass(frozen=True)
class View:
    """Where the car is, in metres, radians and SI units.

    Attributes:
        pose: x, y and heading of the car.
        speed: of the car.
        lateral: deviation from the centre of its lane, positive to the right.
        heading_error: between the car and its lane.
        ahead: (25, 2), points of the lane ahead, 2 m apart.
    """

    pose: tuple[float, float, float]
    speed: float
    lateral: float
    heading_error: float
    ahead: npt.NDArray[np.float64]


class DrivingBase(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """Drive 350 m along a lane among other vehicles.

    Observation: ``image`` (4, 84, 84) uint8, the last four frames, newest last; ``vector`` (53,) float32:
    speed / 30 m/s, lateral deviation / 3.5 m, heading error / pi, then 25 waypoints (x, y) in the car's frame
    / 50 m. Action: (2,) float32 in [-1, 1]: steering (1 is right), throttle (above 0) or brake (below).
    20 ticks a second.

    Args:
        route: metres to drive until the goal.
        max_steps: ticks of a twentieth of a second until an episode is truncated.
        action_repeat: ticks for which an action holds. A picture is taken once an action, and the driving in it
            is paid as the mean over its ticks: what an episode ends with, the goal or a crash, counts in full.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (gymnasium's own attribute)

    def __init__(
        self,
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
        self._route = route
        self._max_steps = max_steps
        self._action_repeat = action_repeat

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on, in plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; after a ``reset``."""

    @abstractmethod
    def _begin(self, seed: int | None) -> None:
        """Put the car at the start of a new episode; ``seed`` is None where the chance of before goes on."""

    @abstractmethod
    def _drive(self, steering: float, pedal: float) -> Moment:
        """One tick."""

    @abstractmethod
    def _view(self) -> View:
        """Where the car is now."""

    @abstractmethod
    def _picture(self) -> npt.NDArray[np.uint8]:
        """What the camera sees now: (84, 84) gray."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._begin(seed)
        self._driven = 0.0
        self._steps = 0
        self._frames = np.repeat(self._picture()[None], FRAMES, axis=0)
        return self.observation(), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        steering, pedal = np.clip(action, -1.0, 1.0).tolist()
        terms: list[dict[str, float]] = []
        for _ in range(self._action_repeat):
            moment = self._drive(steering, pedal)
            self._driven += moment.progress
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
        view = self._view()
        x, y, heading = view.pose
        ahead = view.ahead - (x, y)
        cos, sin = np.cos(heading), np.sin(heading)
        vector = np.empty(3 + 2 * WAYPOINTS, dtype=np.float32)
        vector[0] = view.speed / SPEED_UNIT
        vector[1] = view.lateral / LATERAL_UNIT
        vector[2] = view.heading_error / np.pi
        vector[3::2] = (ahead[:, 0] * cos + ahead[:, 1] * sin) / DISTANCE_UNIT
        vector[4::2] = (ahead[:, 1] * cos - ahead[:, 0] * sin) / DISTANCE_UNIT
        return {"image": self._frames, "vector": np.clip(vector, -2.0, 2.0)}
