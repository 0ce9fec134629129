"""Do two oriented boxes overlap: the separating axis theorem, for one box against many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.car import CAR_LENGTH, CAR_WIDTH

__all__ = ["any_overlap"]

FloatArray = npt.NDArray[np.float64]

_HALF_DIAGONAL = 0.5 * float(np.hypot(CAR_LENGTH, CAR_WIDTH))


def any_overlap(pose: tuple[float, float, float], others: FloatArray) -> bool:
    """Whether the car at ``pose`` touches one of the cars at ``others``.

    Args:
        pose: x, y in metres, heading in radians.
        others: (n, 3) of the same.
    """
    offset = others[:, :2] - np.array(pose[:2])
    near = (offset**2).sum(axis=1) < (2 * _HALF_DIAGONAL) ** 2
    return any(_overlap(offset[i], pose[2], float(others[i, 2])) for i in np.flatnonzero(near))


def _overlap(offset: FloatArray, heading: float, other_heading: float) -> bool:
    """Two boxes are apart exactly if their shadows on one of the four axes of their sides are."""
    sides = [(heading, heading + np.pi / 2), (other_heading, other_heading + np.pi / 2)]
    for angle in (*sides[0], *sides[1]):
        axis = np.array([np.cos(angle), np.sin(angle)])
        reach = 0.0
        for along, across in sides:
            reach += CAR_LENGTH / 2 * abs(np.cos(along - angle)) + CAR_WIDTH / 2 * abs(np.cos(across - angle))
        if abs(float(offset @ axis)) > reach:
            return False
    return True
