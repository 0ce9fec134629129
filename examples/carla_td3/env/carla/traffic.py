"""The other vehicles: seeded, under CARLA's Traffic Manager, and the one of them that is ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.car import CAR_LENGTH
from examples.carla_td3.env.carla.handshake import ServerError
from examples.carla_td3.env.carla.route import Route
from examples.carla_td3.env.carla.server import ROLE, Server
from examples.carla_td3.env.road import LANE_WIDTH

__all__ = ["ahead", "populate"]

FloatArray = npt.NDArray[np.float64]

# Metres along the route within which a vehicle ahead matters, as SIGHT of the embedded camera.
SIGHT = 80.0


def populate(server: Server, count: int, starts: Sequence[Any], chance: np.random.Generator) -> list[int]:
    """Let ``count`` cars drive off, one from each of the ``starts`` (``carla.Transform``) in this order.

    Returns:
        Their ids.

    Raises:
        ServerError: there is not enough room for them.
    """
    command = server.carla.command
    server.traffic.set_random_device_seed(int(chance.integers(2**31)))
    library = server.world.get_blueprint_library().filter("vehicle.*").filter_by_attribute("base_type", "car")
    cars = sorted(library, key=lambda blueprint: str(blueprint.id))
    ids: list[int] = []
    left = list(starts)
    # A start may be taken by a car that has driven there: the next ones step in.
    while len(ids) < count and left:
        batch, left = left[: count - len(ids)], left[count - len(ids) :]
        spawns = []
        for start in batch:
            car = cars[int(chance.integers(len(cars)))]
            car.set_attribute("role_name", ROLE)
            drive = command.SetAutopilot(command.FutureActor, True, server.traffic_port)
            spawns.append(command.SpawnActor(car, start).then(drive))
        ids += [
            answer.actor_id for answer in server.client.apply_batch_sync(spawns, True) if not answer.has_error()
        ]
    if len(ids) < count:
        raise ServerError(f"The town has room for {len(ids)} vehicles, not {count}: choose a smaller --scenario.")
    return ids


def ahead(route: Route, s: float, others: FloatArray) -> tuple[float, float]:
    """Gap in metres and speed in m/s along the route of the first vehicle ahead; infinity and 0 where none is.

    Args:
        route: that is driven along.
        s: arc length of the car.
        others: (n, 4), x, y in metres and the velocity's x, y in m/s.
    """
    at, lateral, heading = route.project(others[:, :2], s, s + SIGHT)
    in_lane = np.flatnonzero((np.abs(lateral) < LANE_WIDTH / 2) & (at > s) & (at < s + SIGHT))
    if not len(in_lane):
        return math.inf, 0.0
    first = in_lane[np.argmin(at[in_lane])]
    along = others[first, 2] * np.cos(heading[first]) + others[first, 3] * np.sin(heading[first])
    return float(at[first] - s) - CAR_LENGTH, float(along)
