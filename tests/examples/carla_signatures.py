"""What the binary of CARLA's client says of its calls, recorded from its docstrings, and a check of calls against it.

``inspect.signature`` fails on the binary, and the stubs in the wheel contradict it. With the wheel installed,
``python -m tests.examples.carla_signatures`` writes the record anew.
"""

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

RECORD = Path(__file__).with_name("carla_signatures.json")
# fmt: off
CLASSES = (
    "Actor", "ActorBlueprint", "ActorList", "ActorSnapshot", "BlueprintLibrary", "Client", "CollisionEvent",
    "Image", "LaneInvasionEvent", "LaneMarking", "Location", "Map", "Rotation", "Sensor", "SensorData",
    "TrafficManager", "Transform", "Vector3D", "Vehicle", "VehicleControl", "Waypoint", "World",
    "WorldSettings", "WorldSnapshot", "command.DestroyActor", "command.Response", "command.SetAutopilot",
    "command.SpawnActor",
)
# fmt: on

PLAIN = {
    "float": (int, float),
    "int": int,
    "bool": int,
    "str": str,
    "list": list,
    "None": type(None),
    # An unsigned char or integer goes by the name of the enum that was registered last.
    "GBufferTextureID": int,
}


def describe(carla):
    """{class: {"bases": [...], member: "property", "writable property" or the lines of its overloads}}."""
    found = {"version": carla.Client("127.0.0.1", 1).get_client_version()}
    for name in CLASSES:
        kind = carla
        for part in name.split("."):
            kind = getattr(kind, part)
        members = {n: _describe(v) for n, v in vars(kind).items() if n == "__init__" or not n.startswith("_")}
        bases = [base.__name__ for base in kind.__mro__[1:] if base.__module__ == "carla.libcarla"]
        found[name] = {"bases": bases, **dict(sorted(members.items()))}
    return found


def _describe(member):
    if isinstance(member, property) or not callable(member):
        return "writable property" if getattr(member, "fset", None) else "property"
    lines = re.findall(r"^\w+\(.*-> \w+ :$", member.__doc__ or "", re.MULTILINE)
    # Defaults that are objects are told by their addresses.
    return [re.sub(r"=<[^>]*>", "=...", line.removesuffix(" :")) for line in lines]


@dataclass(frozen=True)
class Overload:
    """One way to call something: (type, name) of each argument, how many must be given, the type returned."""

    arguments: tuple
    needed: int
    returned: str

    @classmethod
    def parse(cls, line):
        """From ``tick( (World)arg1 [, (float)seconds=0.0]) -> int``; the first argument is ``self``."""
        inside, _, returned = line.rpartition(") -> ")
        needed = len(re.findall(r"\((\w+)\)\w+", inside.partition("[")[0]))
        arguments = tuple(re.findall(r"\((\w+)\)(\w+)", inside))[1:]
        return cls(arguments, max(0, needed - 1), returned)

    def takes(self, args, kwargs):
        names = [name for _, name in self.arguments]
        if len(args) > len(names) or not set(kwargs) <= set(names[len(args) :]):
            return False
        given = dict(zip(names, args, strict=False)) | kwargs
        kinds = {name: kind for kind, name in self.arguments}
        return set(names[: self.needed]) <= set(given) and all(fits(kinds[n], value) for n, value in given.items())


def fits(kind, value):
    """Whether the binary takes ``value`` for ``kind``: numpy's float64 is a float there, its float32 and int64 are nothing."""
    if kind == "object":
        return True
    if kind in PLAIN:
        return isinstance(value, PLAIN[kind])
    return (value is None and kind in ("Actor", "Waypoint")) or any(
        kind == c.__name__ for c in type(value).__mro__
    )


def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def main():
    RECORD.write_text(json.dumps(describe(importlib.import_module("carla")), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
