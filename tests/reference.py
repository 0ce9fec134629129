"""A second, independent computation of norms: exact sums of exact squares, one Python float at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from torch import Tensor


def exact_norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of tensors taken as one vector; ``math.fsum`` rounds once."""
    values = [value for tensor in tensors for value in tensor.detach().double().flatten().tolist()]
    if any(abs(value) > 1e150 for value in values):
        return 2.0**600 * exact_norm_of_floats([value / 2.0**600 for value in values])
    if values and max(map(abs, values)) < 1e-150:
        return float(math.sqrt(sum(Fraction(value) ** 2 for value in values) * 2**2000)) / 2.0**1000
    return exact_norm_of_floats(values)


def exact_norm_of_floats(values: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values))


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """The same of the gradients of parameters that have one."""
    return exact_norm(p.grad for p in parameters if p.grad is not None)


def float32_ulps(measured: float, true: float) -> float:
    """The distance between two norms in units of the last place of a float32 of that size.

    Where float32 has no normal number of that size, the unit is 2^-24 of the norm, the least that it is elsewhere.
    """
    if measured == true:
        return 0.0
    normal = float(np.finfo(np.float32).tiny) <= true <= float(np.finfo(np.float32).max)
    return abs(measured - true) / (float(np.spacing(np.float32(true))) if normal else true * 2.0**-24)
