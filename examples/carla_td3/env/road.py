"""The road: a closed circuit through a small town, one lane in each direction, and the ground as a picture.

The frame is CARLA's: x forward, y to the right, angles in radians and clockwise seen from above. Lengths are
in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["LANE_WIDTH", "Ground", "Lane", "Place", "Road", "town", "wrap_angle"]

FloatArray = npt.NDArray[np.float64]

LANE_WIDTH = 3.5
SPACING = 0.5
CORNER_RADIUS = 20.0
CELL = 0.25

# Blocks at right angles, as in CARLA's Town01: five corners to one side and one to the other.
CORNERS = ((0.0, 0.0), (280.0, 0.0), (280.0, 130.0), (170.0, 130.0), (170.0, 220.0), (0.0, 220.0))

GRASS, ASPHALT, LINE = 110, 60, 235


def wrap_angle(angle: float) -> float:
    """The same angle in [-pi, pi), in radians."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True)
class Place:
    """Where something is relative to a lane.

    Attributes:
        s: arc length along the lane, in metres.
        lateral: distance from its centre line, positive to the right, in metres.
        heading: direction of the lane there, in radians.
    """

    s: float
    lateral: float
    heading: float


@dataclass(frozen=True)
class Lane:
    """A closed line with a direction of travel.

    Attributes:
        points: (n, 2) metres, evenly spaced.
        headings: (n,) radians.
        spacing: metres between two points.
    """

    points: FloatArray
    headings: FloatArray
    spacing: float

    @property
    def length(self) -> float:
        return len(self.points) * self.spacing

    def poses(self, s: FloatArray) -> FloatArray:
        """(n, 3): x, y in metres and heading in radians at the arc lengths ``s`` (n,)."""
        along = s % self.length
        index = (along / self.spacing).astype(np.intp) % len(self.points)
        rest = along - index * self.spacing
        heading = self.headings[index]
        x = self.points[index, 0] + rest * np.cos(heading)
        y = self.points[index, 1] + rest * np.sin(heading)
        return np.stack([x, y, heading], axis=1)

    def locate(self, x: float, y: float) -> Place:
        """The place on the lane that is nearest to a point."""
        dx, dy = x - self.points[:, 0], y - self.points[:, 1]
        index = int(np.argmin(dx * dx + dy * dy))
        heading = float(self.headings[index])
        cos, sin = np.cos(heading), np.sin(heading)
        forward = float(dx[index] * cos + dy[index] * sin)
        right = float(dy[index] * cos - dx[index] * sin)
        return Place((index * self.spacing + forward) % self.length, right, heading)

    def ahead(self, s: float, count: int, step: float) -> FloatArray:
        """(count, 2) points of the lane at ``step``, 2 ``step``, ... metres beyond ``s``."""
        return self.poses(s + step * np.arange(1, count + 1, dtype=np.float64))[:, :2]


@dataclass(frozen=True)
class Ground:
    """The town seen from above.

    Attributes:
        pixels: (rows, columns) uint8 gray, ``CELL`` metres a side, rows along y.
        origin: x, y of pixel (0, 0), in metres.
    """

    pixels: npt.NDArray[np.uint8]
    origin: tuple[float, float]


@dataclass(frozen=True)
class Road:
    """Both lanes and the ground that they lie on; ``own`` is the car's lane, ``oncoming`` runs against it."""

    own: Lane
    oncoming: Lane
    ground: Ground


@lru_cache(maxsize=1)
def town() -> Road:
    """The one town there is; made once a process, since nothing in it ever changes."""
    centre = _even(_rounded(CORNERS, CORNER_RADIUS))
    own = _even(_beside(centre, LANE_WIDTH / 2))
    oncoming = _even(_beside(centre, -LANE_WIDTH / 2)[::-1])
    return Road(own, oncoming, _paint(centre))


def _rounded(corners: tuple[tuple[float, float], ...], radius: float) -> FloatArray:
    """The polygon with each right angle replaced by a quarter of a circle: (n, 2) points, unevenly spaced."""
    points: list[FloatArray] = []
    array = np.array(corners)
    turn = np.linspace(0.0, np.pi / 2, 64)
    for before, corner, after in zip(np.roll(array, 1, 0), array, np.roll(array, -1, 0), strict=True):
        inward = (corner - before) / np.linalg.norm(corner - before)
        outward = (after - corner) / np.linalg.norm(after - corner)
        middle = corner - radius * inward + radius * outward
        points.append(middle + radius * (np.outer(np.sin(turn), inward) - np.outer(np.cos(turn), outward)))
    return np.concatenate(points)


def _even(points: FloatArray) -> Lane:
    """A closed lane through the points, resampled so that neighbours are about ``SPACING`` apart."""
    closed = np.concatenate([points, points[:1]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    count = round(float(arc[-1]) / SPACING)
    spacing = float(arc[-1]) / count
    at = np.arange(count) * spacing
    even = np.stack([np.interp(at, arc, closed[:, axis]) for axis in (0, 1)], axis=1)
    chord = np.roll(even, -1, 0) - np.roll(even, 1, 0)
    return Lane(even, np.arctan2(chord[:, 1], chord[:, 0]), spacing)


def _beside(lane: Lane, offset: float) -> FloatArray:
    """The lane's points moved ``offset`` metres to the right."""
    right = np.stack([-np.sin(lane.headings), np.cos(lane.headings)], axis=1)
    return lane.points + offset * right


def _paint(centre: Lane) -> Ground:
    """Asphalt, solid lines at its edges and a broken one between the lanes, on speckled ground.

    The speckles make speed visible: on a flat colour a driving camera sees nothing move.
    """
    margin = 20.0
    low, high = centre.points.min(0) - margin, centre.points.max(0) + margin
    columns, rows = np.ceil((high - low) / CELL).astype(int)
    speckles = np.random.default_rng(0).integers(-12, 13, size=(rows, columns))
    shade = np.full((rows, columns), GRASS)
    along = np.arange(0.0, centre.length, CELL / 2)
    for offset in np.arange(-LANE_WIDTH - 0.5, LANE_WIDTH + 0.5, CELL / 2):
        x, y = _strip(centre, along, float(offset), low)
        shade[y, x] = ASPHALT
    broken = along[along % 6.0 < 3.0]
    for offset, where in ((-LANE_WIDTH, along), (LANE_WIDTH, along), (0.0, broken)):
        for edge in (-CELL / 4, CELL / 4):
            x, y = _strip(centre, where, offset + edge, low)
            shade[y, x] = LINE
    pixels = np.clip(shade + speckles, 0, 255).astype(np.uint8)
    return Ground(pixels, (float(low[0]), float(low[1])))


def _strip(
    lane: Lane, along: FloatArray, offset: float, low: FloatArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    poses = lane.poses(along)
    x = poses[:, 0] - offset * np.sin(poses[:, 2])
    y = poses[:, 1] + offset * np.cos(poses[:, 2])
    return ((x - low[0]) / CELL).astype(np.intp), ((y - low[1]) / CELL).astype(np.intp)
