"""The other half of the stand-in: the server with its one world, and the client that speaks to it."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from examples.carla_td3.env.collision import any_overlap
from examples.carla_td3.env.road import LANE_WIDTH
from tests.examples import carla_stand_in as stand_in
from tests.examples.carla_like import Like


class Simulation:
    """What is on the server.

    Attributes:
        actors: by their ids.
        settings: of the world.
        gone_at: frame from which on nobody answers.
        told: what was asked of it that concerns everybody, in order.
    """

    def __init__(self, town="Carla/Maps/Town01"):
        self.town, self.actors, self.settings = town, {}, stand_in.WorldSettings()
        self.frame, self.gone_at, self.told, self._number = 0, None, [], 0
        self.traffic = TrafficManager(self)
        self.world, self.snapshot = World(self), stand_in.WorldSnapshot(0, {})

    def answer(self, said=None):
        if self.gone_at is not None and self.frame >= self.gone_at:
            raise RuntimeError("time-out of 60000ms while waiting for the simulator")
        if said:
            self.told.append(said)

    def spawn(self, blueprint, transform, parent=None):
        kind = stand_in.Sensor if parent else stand_in.Vehicle
        at = np.array([[transform.location.x, transform.location.y]])
        cars = [(car._car.x, car._car.y) for car in self.cars()]
        if parent is None and cars and np.linalg.norm(np.array(cars) - at, axis=1).min() < 5.0:
            return None
        self._number += 1
        self.actors[self._number] = kind(self, self._number, blueprint, transform, parent)
        return self.actors[self._number]

    def cars(self):
        return [actor for actor in self.actors.values() if isinstance(actor, stand_in.Vehicle)]

    def tick(self):
        self.answer()
        assert self.settings.synchronous_mode == self.traffic.synchronous is True, "one of them waits for ever"
        self.seconds = self.settings.fixed_delta_seconds
        self.frame += 1
        for car in self.cars():
            car._advance()
        crashed = {car.id for car in self.cars() if not car._autopilot and self._touches(car)}
        for number in crashed:
            # As physics has it: a crash is over before the tick is.
            self.actors[number]._car = replace(self.actors[number]._car, speed=0.0)
        for actor in self.actors.values():
            actor._listed = True
        self.snapshot = stand_in.WorldSnapshot(self.frame, {car.id: car._car for car in self.cars()})
        for sensor in list(self.actors.values()):
            if isinstance(sensor, stand_in.Sensor) and sensor._callback:
                self._feel(sensor, sensor.parent.id in crashed)
        return self.frame

    def _touches(self, car):
        others = [other._car for other in self.cars() if other is not car]
        poses = np.array([(other.x, other.y, other.heading) for other in others]).reshape(-1, 3)
        return any_overlap((car._car.x, car._car.y, car._car.heading), poses)

    def _feel(self, sensor, crashed):
        car = sensor.parent._car
        if sensor.type_id == "sensor.camera.rgb":
            sensor._callback(stand_in.Image(self.frame, int(3 * car.x + 5 * car.y) % 256))
        elif sensor.type_id == "sensor.other.collision":
            if crashed:
                sensor._callback(stand_in.CollisionEvent(self.frame))
        elif (
            abs(min((lane.locate(car.x, car.y).lateral for lane in stand_in.LANES), key=abs)) > LANE_WIDTH / 2 - 1
        ):
            sensor._callback(stand_in.LaneInvasionEvent(self.frame))


class TrafficManager(Like, like="TrafficManager"):
    def __init__(self, simulation):
        self._simulation = simulation
        vars(self).update(synchronous=False, chance=random.Random(0))

    def set_synchronous_mode(self, mode_switch):
        self._simulation.answer(f"traffic synchronous {mode_switch}")
        vars(self)["synchronous"] = mode_switch

    def set_random_device_seed(self, value):
        vars(self)["chance"] = random.Random(value)


class World(Like, like="World"):
    def __init__(self, simulation):
        self._simulation = simulation

    def get_settings(self):
        # A copy, as the binary's.
        settings = self._simulation.settings
        return stand_in.WorldSettings(
            synchronous_mode=settings.synchronous_mode, fixed_delta_seconds=settings.fixed_delta_seconds or 0.0
        )

    def apply_settings(self, settings):
        self._simulation.answer(f"world synchronous {settings.synchronous_mode}")
        self._simulation.settings = settings
        return self._simulation.frame

    def get_map(self):
        return stand_in.Map(self._simulation.town, "")

    def get_blueprint_library(self):
        return stand_in.library()

    def get_snapshot(self):
        return self._simulation.snapshot

    def get_actors(self):
        self._simulation.answer()
        return stand_in.ActorList([actor for actor in self._simulation.actors.values() if actor._listed])

    def spawn_actor(self, blueprint, transform, attach_to=None):
        actor = self._simulation.spawn(blueprint, transform, attach_to)
        if actor is None:
            raise RuntimeError("Spawn failed because of collision at spawn position")
        return actor

    def tick(self, seconds=0.0):
        return self._simulation.tick()


class Client(Like, like="Client"):
    def __init__(self, host="127.0.0.1", port=2000):
        self._simulation = SIMULATIONS[host, port]

    def set_timeout(self, seconds):
        pass

    def get_server_version(self):
        self._simulation.answer()
        return "0.9.16"

    def get_world(self):
        self._simulation.answer()
        return self._simulation.world

    def load_world(self, map_name, reset_settings=True):
        self._simulation.town = f"Carla/Maps/{map_name}"
        return self.reload_world(reset_settings)

    def reload_world(self, reset_settings=True):
        self._simulation.answer("loaded")
        assert not reset_settings
        self._simulation.actors.clear()
        return self._simulation.world

    def get_trafficmanager(self, port=8000):
        return self._simulation.traffic

    def apply_batch_sync(self, commands, do_tick=False):
        self._simulation.answer()
        answers = [stand_in.Response(self._run(command)) for command in commands]
        if do_tick:
            self._simulation.tick()
        return answers

    def _run(self, command):
        if isinstance(command, stand_in.DestroyActor):
            return self._simulation.actors.pop(command.actor_id).id
        car = self._simulation.spawn(command._blueprint, command.transform)
        if car is None:
            return None
        car._follow(self._simulation.traffic.chance)
        return car.id


# By host and port.
SIMULATIONS = {}

CARLA = SimpleNamespace(
    **{name: getattr(stand_in, name) for name in ("Location", "Rotation", "Transform", "VehicleControl", "Map")},
    command=stand_in.COMMAND,
    Client=Client,
)
