"""Classes that can do only what the recorded binary can: other members, arguments and types are errors."""

import functools

from tests.examples.carla_signatures import Overload, fits, record

RECORD = record()


def after(name):
    """Called with ``Class.member`` after each call."""


@functools.lru_cache
def members(name):
    found = {}
    for base in [*reversed(RECORD[name]["bases"]), name]:
        found |= {member: said for member, said in RECORD[base].items() if member != "bases"}
    return found


class Like:
    """Base of every class of the stand-in. Attributes that the binary does not let be set are in ``vars``."""

    _like = ""

    def __init_subclass__(cls, like=""):
        if not like:
            return
        cls._like = like
        known = members(like)
        for member, value in list(vars(cls).items()):
            if member == "__init__" and not known[member]:
                # Python cannot make one; the stand-in has to.
                continue
            if callable(value) and (member == "__init__" or not member.startswith("_")):
                setattr(cls, member, _checked(like, member, value, known[member]))
            elif isinstance(value, property) and not known[member].endswith("property"):
                raise TypeError(f"{like}.{member} is a method of the binary")

    def __setattr__(self, attribute, value):
        # The binary would take any name, and nothing would come of it.
        if not attribute.startswith("_") and members(self._like).get(attribute) != "writable property":
            raise AttributeError(f"{self._like} has no {attribute} that can be set")
        super().__setattr__(attribute, value)


def _checked(name, member, method, lines):
    overloads = [Overload.parse(line) for line in lines]

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        fitting = [overload for overload in overloads if overload.takes(args, kwargs)]
        if not fitting:
            raise TypeError(f"{name}.{member} was called with {args} {kwargs}, but the binary takes {lines}")
        result = method(self, *args, **kwargs)
        if member != "__init__" and not any(fits(overload.returned, result) for overload in fitting):
            raise TypeError(f"the stand-in's {name}.{member} returns {result!r}, but the binary's {lines}")
        after(f"{name}.{member}")
        return result

    return call
