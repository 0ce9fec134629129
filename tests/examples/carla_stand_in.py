"""A stand-in of the module ``carla`` and of a server behind it: two lanes of the embedded town, cars, sensors, a clock.

Each class can do only what the recorded binary can, see ``carla_like``. What a server does beyond that, such as listing
the actors of the last tick alone, is from CARLA's documentation.
"""

import math
from types import SimpleNamespace

import numpy as np

from examples.carla_td3.env.car import Car
from examples.carla_td3.env.road import town
from tests.examples.carla_like import Like

LANES = (town().own, town().oncoming)
CRUISE = 5.0


class Vector3D(Like, like="Vector3D"):
    def __init__(self, x=0.0, y=0.0, z=0.0):
        self.x, self.y, self.z = x, y, z


class Location(Vector3D, like="Location"):
    def __init__(self, x=0.0, y=0.0, z=0.0):
        self.x, self.y, self.z = x, y, z

    def distance(self, location):
        return math.dist((self.x, self.y, self.z), (location.x, location.y, location.z))


class Rotation(Like, like="Rotation"):
    def __init__(self, pitch=0.0, yaw=0.0, roll=0.0):
        self.pitch, self.yaw, self.roll = pitch, yaw, roll


class Transform(Like, like="Transform"):
    def __init__(self, location=None, rotation=None):
        self.location, self.rotation = location or Location(), rotation or Rotation()


def transform_at(lane, s, z=0.0):
    x, y, heading = LANES[lane].poses(np.array([s]))[0].tolist()
    return Transform(Location(x, y, z), Rotation(yaw=math.degrees(heading)))


class VehicleControl(Like, like="VehicleControl"):
    def __init__(self, throttle=0.0, steer=0.0, brake=0.0):
        self.throttle, self.steer, self.brake = throttle, steer, brake


class WorldSettings(Like, like="WorldSettings"):
    def __init__(self, synchronous_mode=False, fixed_delta_seconds=0.0):
        self.synchronous_mode = synchronous_mode
        self.fixed_delta_seconds = fixed_delta_seconds or None


class Waypoint(Like, like="Waypoint"):
    def __init__(self, lane, s):
        vars(self).update(road_id=0, lane_id=lane, s=s, transform=transform_at(lane, s))

    def next(self, distance):
        return [Waypoint(self.lane_id, self.s + distance)]


class Map(Like, like="Map"):
    name = property(lambda self: self._name)

    def __init__(self, name, xodr_content):
        self._name = name

    def get_spawn_points(self):
        starts = [(lane, float(s)) for lane in (0, 1) for s in np.arange(5.0, LANES[lane].length, 9.0)]
        return [transform_at(lane, s, z=0.3) for lane, s in starts]

    def get_waypoint(self, location):
        places = [lane.locate(location.x, location.y) for lane in LANES]
        lane = min((0, 1), key=lambda number: abs(places[number].lateral))
        return Waypoint(lane, places[lane].s)


class ActorBlueprint(Like, like="ActorBlueprint"):
    id = property(lambda self: self._id)

    def __init__(self, kind, **attributes):
        self._id, self._attributes = kind, {"role_name": "", **attributes}

    def set_attribute(self, arg2, arg3):
        if arg2 not in self._attributes:
            raise RuntimeError(f"{self._id} has no attribute {arg2}")
        self._attributes[arg2] = arg3


class BlueprintLibrary(Like, like="BlueprintLibrary"):
    def __init__(self, blueprints):
        self._blueprints = blueprints

    def __iter__(self):
        return iter(self._blueprints)

    def find(self, id):
        return next(blueprint for blueprint in self._blueprints if blueprint._id == id)

    def filter(self, wildcard_pattern):
        return BlueprintLibrary([b for b in self._blueprints if b._id.startswith(wildcard_pattern.strip("*"))])

    def filter_by_attribute(self, name, value):
        return BlueprintLibrary([b for b in self._blueprints if b._attributes.get(name) == value])


def library():
    camera = {"image_size_x": "800", "image_size_y": "600", "fov": "90", "sensor_tick": "0.0"}
    return BlueprintLibrary(
        [
            ActorBlueprint("vehicle.tesla.model3", base_type="car"),
            ActorBlueprint("vehicle.audi.tt", base_type="car"),
            ActorBlueprint("vehicle.bh.crossbike", base_type="bicycle"),
            ActorBlueprint("sensor.camera.rgb", **camera),
            ActorBlueprint("sensor.other.collision"),
            ActorBlueprint("sensor.other.lane_invasion"),
        ]
    )


class Actor(Like, like="Actor"):
    def __init__(self, simulation, number, blueprint, transform, parent):
        vars(self).update(id=number, type_id=blueprint._id, parent=parent, attributes=dict(blueprint._attributes))
        at = transform.location
        self._simulation, self._listed = simulation, False
        self._car = Car(at.x, at.y, math.radians(transform.rotation.yaw))


class Vehicle(Actor, like="Vehicle"):
    _control, _autopilot = VehicleControl(), False

    def apply_control(self, control):
        if self.id not in self._simulation.actors:
            raise RuntimeError("trying to operate on a destroyed actor")
        self._control = control

    def _advance(self):
        """Along its lane under autopilot, else as it is driven."""
        if not self._autopilot:
            pedal = self._control.throttle if self._control.throttle > 0 else -self._control.brake
            self._car = self._car.driven(self._control.steer, pedal, self._simulation.seconds)
            return
        self._s += self._speed * self._simulation.seconds
        self._car = Car(*LANES[self._lane].poses(np.array([self._s]))[0].tolist(), self._speed)

    def _follow(self, chance):
        waypoint = Map("", "").get_waypoint(Location(self._car.x, self._car.y))
        self._autopilot, self._lane, self._s = True, waypoint.lane_id, waypoint.s
        self._speed = CRUISE * chance.uniform(0.8, 1.0)


class Sensor(Actor, like="Sensor"):
    _callback = None

    def listen(self, callback):
        self._callback = callback

    def stop(self):
        self._callback = None


class Image(Like, like="Image"):
    def __init__(self, frame, shade):
        vars(self).update(frame=frame, width=800, height=600)
        vars(self)["raw_data"] = bytes([shade, shade, shade, 255]) * (800 * 600)


class CollisionEvent(Like, like="CollisionEvent"):
    def __init__(self, frame):
        vars(self).update(frame=frame)


class LaneMarking(Like, like="LaneMarking"):
    def __init__(self, kind):
        vars(self).update(type=kind)


class LaneInvasionEvent(Like, like="LaneInvasionEvent"):
    def __init__(self, frame):
        vars(self).update(frame=frame, crossed_lane_markings=[LaneMarking("Solid")])


class ActorSnapshot(Like, like="ActorSnapshot"):
    def __init__(self, car):
        self._car = car

    def get_transform(self):
        return Transform(Location(self._car.x, self._car.y), Rotation(yaw=math.degrees(self._car.heading)))

    def get_velocity(self):
        speed, heading = self._car.speed, self._car.heading
        return Vector3D(speed * math.cos(heading), speed * math.sin(heading))


class WorldSnapshot(Like, like="WorldSnapshot"):
    def __init__(self, frame, cars):
        vars(self).update(frame=frame)
        self._cars = cars

    def find(self, actor_id):
        return ActorSnapshot(self._cars[actor_id]) if actor_id in self._cars else None


class ActorList(Like, like="ActorList"):
    def __init__(self, actors):
        self._actors = actors

    def __iter__(self):
        return iter(self._actors)


class DestroyActor(Like, like="command.DestroyActor"):
    def __init__(self, actor_id):
        self.actor_id = actor_id


class SetAutopilot(Like, like="command.SetAutopilot"):
    def __init__(self, actor_id, enabled, tm_port=8000):
        self.actor_id, self.enabled, self.tm_port = actor_id, enabled, tm_port


class SpawnActor(Like, like="command.SpawnActor"):
    def __init__(self, blueprint, transform):
        self.transform = transform
        self._blueprint = blueprint

    def then(self, command):
        self._then = command
        return self


class Response(Like, like="command.Response"):
    def __init__(self, number):
        vars(self).update(actor_id=number or 0, error="" if number else "something is in the way")

    def has_error(self):
        return bool(self.error)


COMMAND = SimpleNamespace(
    DestroyActor=DestroyActor, SetAutopilot=SetAutopilot, SpawnActor=SpawnActor, FutureActor=0
)
