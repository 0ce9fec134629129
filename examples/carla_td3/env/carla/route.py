"""Routes of our own: from the map's waypoints, turning at junctions as chance has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.carla.handshake import ServerError
from examples.carla_td3.env.road import Place

__all__ = ["Route", "plan", "plan_any"]

FloatArray = npt.NDArray[np.float64]

# Metres between two points of a route.
STEP = 0.5


@dataclass(frozen=True)
class Route:
    """The centre line of the lanes to be driven along.

    Attributes:
        points: (n, 2), x and y in metres.
        headings: (n,) radians.
        arc: (n,) metres from the first point.
    """

    points: FloatArray
    headings: FloatArray
    arc: FloatArray

    @property
    def length(self) -> float:
        return float(self.arc[-1])

    def locate(self, x: float, y: float, near: float) -> Place:
        """The place nearest to a point within 10 m of the arc length ``near``: a route may cross itself."""
        s, lateral, heading = self.project(np.array([[x, y]]), near - 10.0, near + 10.0)
        return Place(float(s[0]), float(lateral[0]), float(heading[0]))

    def project(self, points: FloatArray, low: float, high: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Arc length, distance to the right and heading of the line, (n,) each.

        Args:
            points: (n, 2) metres.
            low: arc length from which the line is looked at.
            high: arc length up to which.
        """
        first, last = np.searchsorted(self.arc, [low, high])
        first = min(int(first), len(self.arc) - 1)
        line = self.points[first : max(int(last), first + 1)]
        offset = points[:, None, :] - line[None]
        nearest = (offset**2).sum(axis=2).argmin(axis=1)
        dx, dy = offset[np.arange(len(points)), nearest].T
        heading = self.headings[first + nearest]
        cos, sin = np.cos(heading), np.sin(heading)
        return self.arc[first + nearest] + dx * cos + dy * sin, dy * cos - dx * sin, heading

    def ahead(self, s: float, count: int, step: float) -> FloatArray:
        """(count, 2) points at ``step``, 2 ``step``, ... metres beyond ``s``."""
        at = s + step * np.arange(1, count + 1, dtype=np.float64)
        return np.stack([np.interp(at, self.arc, self.points[:, axis]) for axis in (0, 1)], axis=1)


def plan(carla_map: Any, start: Any, length: float, chance: np.random.Generator) -> Route | None:
    """A route of at least ``length`` metres from the lane nearest to ``start``; None where the road ends before.

    Args:
        carla_map: a ``carla.Map``.
        start: a ``carla.Location``.
        length: metres.
        chance: decides the turns.
    """
    waypoints = [carla_map.get_waypoint(start)]
    for _ in range(math.ceil(length / STEP)):
        following = sorted(waypoints[-1].next(STEP), key=lambda waypoint: (waypoint.road_id, waypoint.lane_id))
        if not following:
            return None
        waypoints.append(following[int(chance.integers(len(following)))])
    poses = [waypoint.transform for waypoint in waypoints]
    points = np.array([(pose.location.x, pose.location.y) for pose in poses])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    headings = np.radians([pose.rotation.yaw for pose in poses])
    return Route(points, headings, np.concatenate([[0.0], np.cumsum(steps)]))


def plan_any(
    carla_map: Any, starts: Sequence[Any], length: float, chance: np.random.Generator
) -> tuple[Any, Route]:
    """The first of the ``starts`` (``carla.Transform``) from which the road is long enough, and the route.

    Raises:
        ServerError: there is none.
    """
    for start in starts:
        route = plan(carla_map, start.location, length, chance)
        if route is not None:
            return start, route
    raise ServerError(
        f"From none of the {len(starts)} spawn points of {carla_map.name} the road goes on for {length:.0f} m, as "
        "a route needs."
    )
