"""The embedded backend: a road, traffic and a camera, each in a file of their own; here they take turns."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.camera import Camera
from examples.carla_td3.env.car import Car
from examples.carla_td3.env.collision import any_overlap
from examples.carla_td3.env.driving import SECONDS, WAYPOINT_STEP, WAYPOINTS, DrivingBase, View
from examples.carla_td3.env.reward import Moment
from examples.carla_td3.env.road import Place, town, wrap_angle
from examples.carla_td3.env.traffic import Column

__all__ = ["SCENARIOS", "DrivingEnv"]

SCENARIOS = {0: 20, 1: 50, 2: 100}


class DrivingEnv(DrivingBase):
    """The embedded environment.

    Args:
        vehicles: how many others drive in the town, half of them in each lane.
        **kwargs: see ``DrivingBase``.
    """

    def __init__(self, vehicles: int = SCENARIOS[0], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._vehicles = vehicles
        self._road = town()
        self._camera = Camera(self._road.ground)

    def _begin(self, seed: int | None) -> None:
        start = float(self.np_random.uniform(0.0, self._road.own.length))
        x, y, heading = self._road.own.poses(np.array([start]))[0]
        self._car = Car(float(x), float(y), float(heading))
        self._columns = self._populate(start)
        self._place = self._road.own.locate(self._car.x, self._car.y)

    def _view(self) -> View:
        return View(
            pose=self._pose(),
            speed=self._car.speed,
            lateral=self._place.lateral,
            heading_error=wrap_angle(self._car.heading - self._place.heading),
            ahead=self._road.own.ahead(self._place.s, WAYPOINTS, WAYPOINT_STEP),
        )

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
            finished=self._driven + progress >= self._route,
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
