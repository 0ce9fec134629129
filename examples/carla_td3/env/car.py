"""The car that is driven: a kinematic bicycle with the measures of a Tesla Model 3.

Source of the equations: Kong et al., "Kinematic and Dynamic Vehicle Models for Autonomous Driving Control
Design", IEEE Intelligent Vehicles Symposium 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["CAR_HEIGHT", "CAR_LENGTH", "CAR_WIDTH", "Car"]

CAR_LENGTH = 4.69
CAR_WIDTH = 1.85
CAR_HEIGHT = 1.44

WHEELBASE = 2.875
LARGEST_STEER = 0.6
ACCELERATION = 3.0
BRAKING = 8.0
# Rolling and air resistance, so that a car let go comes to rest: m/s^2 and 1/s.
ROLLING = 0.1
DRAG = 0.02
TOP_SPEED = 30.0


@dataclass(frozen=True)
class Car:
    """Position of the centre in metres, heading in radians, speed and acceleration in SI units."""

    x: float
    y: float
    heading: float
    speed: float = 0.0
    acceleration: float = 0.0

    def driven(self, steering: float, pedal: float, seconds: float) -> Car:
        """The car after ``seconds``.

        Args:
            steering: -1 is full left, 1 full right.
            pedal: above 0 the throttle, below the brake; 1 and -1 are full.
            seconds: length of the step.
        """
        force = ACCELERATION * pedal if pedal > 0 else BRAKING * pedal
        wanted = self.speed + (force - ROLLING - DRAG * self.speed) * seconds
        speed = min(max(wanted, 0.0), TOP_SPEED)
        slip = math.atan(0.5 * math.tan(steering * LARGEST_STEER))
        mean = 0.5 * (self.speed + speed)
        turn = mean * math.cos(slip) * math.tan(steering * LARGEST_STEER) / WHEELBASE
        return replace(
            self,
            x=self.x + mean * math.cos(self.heading + slip) * seconds,
            y=self.y + mean * math.sin(self.heading + slip) * seconds,
            heading=(self.heading + turn * seconds + math.pi) % (2 * math.pi) - math.pi,
            speed=speed,
            acceleration=(speed - self.speed) / seconds,
        )
