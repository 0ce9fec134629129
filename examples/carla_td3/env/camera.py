"""The front camera: the point of the ground behind each pixel is computed once, then looked up.

A pinhole of 800 x 600 pixels and 90 degrees, 2.0 m ahead of the car's centre and 1.5 m up, looking level
ahead, sampled at 84 x 84. Other vehicles are drawn as the upright rectangles around their projected boxes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.car import CAR_HEIGHT, CAR_LENGTH, CAR_WIDTH
from examples.carla_td3.env.road import CELL, Ground

__all__ = ["SIDE", "Camera"]

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

SIDE = 84
WIDTH, HEIGHT = 800, 600
FOCAL = WIDTH / 2 / math.tan(math.radians(90) / 2)
AHEAD, UP = 2.0, 1.5
SIGHT = 80.0
NEAREST = 0.5
SKY_TOP, SKY_HORIZON = 215, 170
HORIZON = SIDE // 2

_CORNERS = np.array([[a * CAR_LENGTH, b * CAR_WIDTH] for a in (-0.5, 0.5) for b in (-0.5, 0.5)])


class Camera:
    """Takes gray pictures of (84, 84) uint8.

    Args:
        ground: what the road looks like from above.
    """

    def __init__(self, ground: Ground) -> None:
        self._pixels = ground.pixels
        self._origin = ground.origin
        self._ahead, self._right = _ground_table()
        sky = np.linspace(SKY_TOP, SKY_HORIZON, HORIZON)
        self._sky = np.repeat(sky.astype(np.uint8)[:, None], SIDE, axis=1)

    def picture(self, pose: tuple[float, float, float], others: FloatArray) -> Image:
        """What the car at ``pose`` (x, y, heading) sees of the ground and of the cars at ``others`` (n, 3)."""
        x, y, heading = pose
        cos, sin = np.float32(math.cos(heading)), np.float32(math.sin(heading))
        rows, columns = self._pixels.shape
        # One cell is 1: the table is scaled already, only the origin has to follow.
        column = self._ahead * cos - self._right * sin + np.float32((x - self._origin[0]) / CELL)
        row = self._ahead * sin + self._right * cos + np.float32((y - self._origin[1]) / CELL)
        column_index = np.clip(column, 0, columns - 1).astype(np.intp)
        row_index = np.clip(row, 0, rows - 1).astype(np.intp)
        image = np.empty((SIDE, SIDE), dtype=np.uint8)
        image[:HORIZON] = self._sky
        image[HORIZON:] = self._pixels[row_index, column_index]
        self._draw_cars(image, pose, others)
        return image

    def _draw_cars(self, image: Image, pose: tuple[float, float, float], others: FloatArray) -> None:
        depth, right, shade = _corners_in_view(pose, others)
        for d, r, gray in zip(depth, right, shade, strict=True):
            u = (WIDTH / 2 + FOCAL * r / d) * SIDE / WIDTH
            bottom = (HEIGHT / 2 + FOCAL * UP / d.min()) * SIDE / HEIGHT
            top = (HEIGHT / 2 + FOCAL * (UP - CAR_HEIGHT) / d.max()) * SIDE / HEIGHT
            left, end = max(0, int(u.min())), min(SIDE, int(u.max()) + 1)
            image[int(top) : int(bottom) + 1, left : max(left, end)] = gray


def _ground_table() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(42, 84) each: cells ahead of the car's centre and to its right, for the pixels below the horizon."""
    v = (np.arange(HORIZON, SIDE) + 0.5) * HEIGHT / SIDE - HEIGHT / 2
    u = (np.arange(SIDE) + 0.5) * WIDTH / SIDE - WIDTH / 2
    distance = UP * FOCAL / v
    ahead = np.repeat((distance + AHEAD)[:, None], SIDE, axis=1)
    right = distance[:, None] * u[None, :] / FOCAL
    return (ahead / CELL).astype(np.float32), (right / CELL).astype(np.float32)


def _corners_in_view(
    pose: tuple[float, float, float], others: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.intp]]:
    """(k, 4) depths and (k, 4) distances to the right in metres, (k,) shades; farthest car first."""
    x, y, heading = pose
    cos, sin = math.cos(heading), math.sin(heading)
    dx, dy = others[:, 0] - x, others[:, 1] - y
    depth = dx * cos + dy * sin - AHEAD
    right = dy * cos - dx * sin
    seen = (depth > NEAREST) & (depth < SIGHT) & (np.abs(right) < depth + CAR_LENGTH)
    order = np.flatnonzero(seen)
    order = order[np.argsort(-depth[order])]
    turn = others[order, 2] - heading
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    corner_depth = depth[order, None] + c * _CORNERS[:, 0] - s * _CORNERS[:, 1]
    corner_right = right[order, None] + s * _CORNERS[:, 0] + c * _CORNERS[:, 1]
    # Every car keeps its own gray, so that two that overlap in the picture can be told apart.
    return np.maximum(corner_depth, NEAREST), corner_right, 15 + (order * 37) % 40
