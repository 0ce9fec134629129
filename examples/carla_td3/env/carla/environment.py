"""The environment on a CARLA server: town, car, traffic and sensors take turns, tick by tick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded

from examples.carla_td3.env.carla.route import plan_any
from examples.carla_td3.env.carla.sensors import Sensors, small_and_gray
from examples.carla_td3.env.carla.server import ROLE, Server
from examples.carla_td3.env.carla.traffic import ahead, populate
from examples.carla_td3.env.driving import SECONDS, WAYPOINT_STEP, WAYPOINTS, DrivingBase, Observation, View
from examples.carla_td3.env.reward import Moment
from examples.carla_td3.env.road import wrap_angle

__all__ = ["CarlaEnv"]

CAR = "vehicle.tesla.model3"
# A car is put down half a metre above the road and falls onto its wheels: ticks until it stands still.
DROP, SETTLE = 0.5, 20
# Metres around the car's start where no other one starts.
CLEAR = 15.0


@dataclass(frozen=True)
class _State:
    """The car at one tick: pose in metres and radians, SI units."""

    x: float
    y: float
    heading: float
    speed: float
    acceleration: float = 0.0


class CarlaEnv(DrivingBase):
    """Drive in CARLA's Town01. What it takes over of the server is given back by ``close``.

    A server has one world. Where two of these share it, the episode of the one ends when the other's begins:
    ``observation`` then starts a new one.

    Args:
        server: that is driven on.
        vehicles: how many others drive in the town.
        **kwargs: see ``DrivingBase``.
    """

    def __init__(self, server: Server, vehicles: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._server = server
        self._vehicles = vehicles
        self._sensors: Sensors | None = None

    def observation(self) -> Observation:
        if not self._server.is_held_by(self):
            self.reset()
        return super().observation()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._crossed: list[str] = []
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "crossed": self._crossed}

    def close(self) -> None:
        """Give the server back.

        Raises:
            ServerError: it is there, but cannot be brought back to what it was.
        """
        self._server.close()

    def leave(self) -> None:
        """Another's episode takes the place of this one's."""
        sensors, self._sensors = self._sensors, None
        if sensors is not None:
            sensors.stop()

    def state_dict(self) -> dict[str, Any]:
        """The source of chance: an episode on a server cannot be kept."""
        return {"chance": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the source of chance; the next ``observation`` starts a new episode."""
        self.np_random.bit_generator.state = state["chance"]
        self._server.let_go()

    def _begin(self, seed: int | None) -> None:
        with self._server.telling():
            self._server.begin(self, anew=seed is not None)
            carla_map = self._server.world.get_map()
            starts = list(carla_map.get_spawn_points())
            starts = [starts[index] for index in self.np_random.permutation(len(starts))]
            length = self._route + WAYPOINTS * WAYPOINT_STEP
            start, self._line = plan_any(carla_map, starts, length, self.np_random)
            self._car = self._put_down(start)
            self._sensors = Sensors(self._server, self._car)
            free = [other for other in starts if other.location.distance(start.location) > CLEAR]
            self._others = populate(self._server, self._vehicles, free, self.np_random)
            for _ in range(SETTLE):
                frame = self._server.tick()
            # What touched the ground while the car was falling is read here and forgotten.
            self._image = self._sensors.seen(frame).image
            self._snapshot = self._server.world.get_snapshot()
            self._state = self._look(None)
            self._place = self._line.locate(self._state.x, self._state.y, near=0.0)

    def _drive(self, steering: float, pedal: float) -> Moment:
        if self._sensors is None:
            raise ResetNeeded("No episode of this environment is in the world: call reset() first.")
        with self._server.telling():
            before, place = self._state, self._place
            control = self._server.carla.VehicleControl(
                throttle=max(0.0, pedal), steer=steering, brake=max(0.0, -pedal)
            )
            self._car.apply_control(control)
            frame = self._server.tick()
            seen = self._sensors.seen(frame)
            self._snapshot = self._server.world.get_snapshot()
            self._state = self._look(before)
        self._image = seen.image
        self._crossed += seen.crossed
        self._place = self._line.locate(self._state.x, self._state.y, near=place.s)
        progress = self._place.s - place.s
        gap, speed_ahead = ahead(self._line, self._place.s, self._traffic())
        return Moment(
            # A crash is paid by the speed that led to it: the tick has slowed the car already.
            speed=max(before.speed, self._state.speed) if seen.collided else self._state.speed,
            lateral=self._place.lateral,
            heading_error=wrap_angle(self._state.heading - self._place.heading),
            jerk=(self._state.acceleration - before.acceleration) / SECONDS,
            progress=progress,
            gap=gap,
            closing=self._state.speed - speed_ahead,
            seconds=SECONDS,
            collided=seen.collided,
            finished=self._driven + progress >= self._route,
        )

    def _view(self) -> View:
        state, place = self._state, self._place
        return View(
            pose=(state.x, state.y, state.heading),
            speed=state.speed,
            lateral=place.lateral,
            heading_error=wrap_angle(state.heading - place.heading),
            ahead=self._line.ahead(place.s, WAYPOINTS, WAYPOINT_STEP),
        )

    def _picture(self) -> npt.NDArray[np.uint8]:
        return small_and_gray(self._image)

    def _put_down(self, start: Any) -> Any:
        carla, world = self._server.carla, self._server.world
        blueprint = world.get_blueprint_library().find(CAR)
        blueprint.set_attribute("role_name", ROLE)
        above = carla.Location(x=start.location.x, y=start.location.y, z=start.location.z + DROP)
        car = world.spawn_actor(blueprint, carla.Transform(above, start.rotation))
        car.apply_control(carla.VehicleControl(brake=1.0))
        return car

    def _look(self, before: _State | None) -> _State:
        """The car in the snapshot of the last tick."""
        found = self._snapshot.find(self._car.id)
        if found is None:
            raise RuntimeError("the car has vanished from the world")
        pose, velocity = found.get_transform(), found.get_velocity()
        speed = math.hypot(velocity.x, velocity.y)
        acceleration = 0.0 if before is None else (speed - before.speed) / SECONDS
        return _State(pose.location.x, pose.location.y, math.radians(pose.rotation.yaw), speed, acceleration)

    def _traffic(self) -> npt.NDArray[np.float64]:
        """(n, 4): where the other vehicles are in metres, and their velocities in m/s."""
        found = [other for other in map(self._snapshot.find, self._others) if other is not None]
        rows = [(other.get_transform().location, other.get_velocity()) for other in found]
        return np.array([(at.x, at.y, v.x, v.y) for at, v in rows], dtype=np.float64).reshape(-1, 4)
