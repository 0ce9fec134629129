"""Camera, collisions and crossed lane markings, each matched to its tick by the frame that it bears."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env.camera import AHEAD, HEIGHT, SIDE, UP, WIDTH
from examples.carla_td3.env.carla.handshake import ServerError
from examples.carla_td3.env.carla.server import ROLE, Server

__all__ = ["Seen", "Sensors", "small_and_gray"]

Image = npt.NDArray[np.uint8]

# Seconds that the picture of a tick may take.
PATIENCE = 10.0
# Of blue, green and red in gray: ITU-R BT.601.
SHARES = np.array([0.114, 0.587, 0.299], dtype=np.float32)


@dataclass(frozen=True)
class Seen:
    """What the sensors told of one tick.

    Attributes:
        image: a ``carla.Image`` of it.
        collided: whether the car touched anything.
        crossed: the kinds of the lane markings that it crossed.
    """

    image: Any
    collided: bool
    crossed: Sequence[str]


class Sensors:
    """Three sensors on a car; ``stop`` them before the car is destroyed.

    Args:
        server: where the car is.
        car: a ``carla.Vehicle``.
    """

    def __init__(self, server: Server, car: Any) -> None:
        carla = server.carla
        camera = carla.Transform(carla.Location(x=AHEAD, z=UP))
        # The client calls back from threads of its own.
        self._images: SimpleQueue[Any] = SimpleQueue()
        self._collisions: deque[Any] = deque()
        self._crossings: deque[Any] = deque()
        size = {"image_size_x": str(WIDTH), "image_size_y": str(HEIGHT), "fov": "90"}
        self._sensors = [
            _attach(server, car, "sensor.camera.rgb", camera, size, self._images.put),
            _attach(server, car, "sensor.other.collision", carla.Transform(), {}, self._collisions.append),
            _attach(server, car, "sensor.other.lane_invasion", carla.Transform(), {}, self._crossings.append),
        ]

    def seen(self, frame: int) -> Seen:
        """What was seen up to ``frame``, since the last call; waits for the picture of that very frame.

        An event that comes later than the picture of its frame counts with the next.

        Raises:
            RuntimeError: the picture does not come.
        ServerError: another client drives in the same world.
        """
        image = _picture(self._images, frame)
        crossings = _until(self._crossings, frame)
        crossed = [str(marking.type) for event in crossings for marking in event.crossed_lane_markings]
        return Seen(image, bool(_until(self._collisions, frame)), crossed)

    def stop(self) -> None:
        """No callback comes after this."""
        for sensor in self._sensors:
            sensor.stop()


def _picture(images: SimpleQueue[Any], frame: int) -> Any:
    """The picture of ``frame``; older ones are dropped."""
    while True:
        try:
            image = images.get(timeout=PATIENCE)
        except Empty:
            raise RuntimeError(f"no picture of frame {frame} within {PATIENCE:.0f} s") from None
        if image.frame == frame:
            return image
        if image.frame > frame:
            raise ServerError(f"Another client ticks the world: a picture of frame {image.frame}, not {frame}.")


def _until(events: deque[Any], frame: int) -> list[Any]:
    """The events of ``frame`` and before; later ones stay."""
    found = []
    while events and events[0].frame <= frame:
        found.append(events.popleft())
    return found


def _attach(
    server: Server, car: Any, kind: str, where: Any, attributes: dict[str, str], callback: Callable[[Any], None]
) -> Any:
    blueprint = server.world.get_blueprint_library().find(kind)
    for name, value in {**attributes, "role_name": ROLE}.items():
        blueprint.set_attribute(name, value)
    sensor = server.world.spawn_actor(blueprint, where, car)
    sensor.listen(callback)
    return sensor


def small_and_gray(image: Any) -> Image:
    """A ``carla.Image`` as (84, 84) uint8: each pixel is the mean gray of the area that it covers."""
    pixels = np.frombuffer(image.raw_data, dtype=np.uint8).reshape(image.height, image.width, 4)
    gray = pixels[:, :, :3].astype(np.float32) @ SHARES
    small = _areas(image.height) @ gray @ _areas(image.width).T
    return np.asarray(np.round(small), dtype=np.uint8)


def _areas(size: int) -> npt.NDArray[np.float32]:
    """(84, size): the share of each of ``size`` pixels in each of 84."""
    edges = np.arange(SIDE + 1) * size / SIDE
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0.0, None) * SIDE / size, dtype=np.float32)
