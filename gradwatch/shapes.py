"""What plain values must be like, said once: a saved state is held against its shape before any of it is taken.

A shape is a value itself, made of smaller ones. The first thing that does not fit is told of in one sentence.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "ANY",
    "COUNT",
    "FLAG",
    "LOGARITHM",
    "NAME",
    "NORM",
    "PLAIN",
    "TEXT",
    "Either",
    "Fields",
    "Listed",
    "Maybe",
    "MisfitError",
    "Named",
    "Number",
    "OneOf",
    "Row",
    "Shape",
    "That",
    "Whole",
    "shortened",
]


class MisfitError(ValueError):
    """A value is not of its shape; the message says where, and what was expected."""


class Shape(Protocol):
    """Something that a value may be like."""

    def check(self, value: Any, at: str) -> None:
        """Hold a value against it.

        Args:
            value: whatever it is.
            at: where it stands, in words.

        Raises:
            MisfitError: it is not like that.
        """


def _refuse(value: object, at: str, expected: str) -> MisfitError:
    return MisfitError(f"{at} is {shortened(value)}, but {expected} was expected")


@dataclass(frozen=True)
class Number:
    """A finite number within limits."""

    low: float = -math.inf
    high: float = math.inf

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Also what no float can hold is above the limit.
        if not (is_number and abs(value) <= _LARGEST and self.low <= value <= self.high):
            limits = "" if self == Number() else f" from {self.low:g} to {self.high:g}"
            raise _refuse(value, at, f"a finite number{limits}")


@dataclass(frozen=True)
class Whole:
    """A whole number that a float could hold as well."""

    least: int = 0
    most: int = 1 << 53

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not (is_whole and self.least <= value <= self.most):
            raise _refuse(value, at, f"a whole number from {self.least} to {self.most}")


@dataclass(frozen=True)
class Of:
    """A value of a type."""

    kind: type
    words: str

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if not isinstance(value, self.kind):
            raise _refuse(value, at, self.words)


class OneOf:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if not (isinstance(value, str) and value in self._words):
            raise _refuse(value, at, " or ".join(map(repr, self._words)))


@dataclass(frozen=True)
class Maybe:
    """None, or a value of a shape."""

    shape: Shape

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if value is not None:
            self.shape.check(value, at)


class Either:
    """A value of any of some shapes; what is said where none fits is what the first says."""

    def __init__(self, *shapes: Shape) -> None:
        self._shapes = shapes

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        refusals = []
        for shape in self._shapes:
            try:
                return shape.check(value, at)
            except MisfitError as refusal:
                refusals.append(refusal)
        raise refusals[0]


@dataclass(frozen=True)
class Listed:
    """A list, each entry of one shape."""

    shape: Shape

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if not isinstance(value, (list, tuple)):
            raise _refuse(value, at, "a list")
        for place, entry in enumerate(value):
            self.shape.check(entry, f"{at}[{place}]")


class Row:
    """A list of so many entries, each of a shape of its own."""

    def __init__(self, *shapes: Shape) -> None:
        self._shapes = shapes

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if not isinstance(value, (list, tuple)) or len(value) != len(self._shapes):
            raise _refuse(value, at, f"a list of {len(self._shapes)} entries")
        for place, (shape, entry) in enumerate(zip(self._shapes, value, strict=True)):
            shape.check(entry, f"{at}[{place}]")


@dataclass(frozen=True)
class Named:
    """A mapping from names, each entry of one shape.

    Attributes:
        shape: of the entries.
        known: the names that there may be; None for any.
    """

    shape: Shape
    known: frozenset[str] | None = None

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if not isinstance(value, Mapping):
            raise _refuse(value, at, "a mapping")
        for name, entry in value.items():
            if not isinstance(name, str) or (self.known is not None and name not in self.known):
                names = "a string" if self.known is None else f"one of {shortened(sorted(self.known))}"
                raise _refuse(name, f"A name in {at}", names)
            self.shape.check(entry, f"{at}[{shortened(name)}]")


class Fields:
    """A mapping with exactly these names, each entry of a shape of its own."""

    def __init__(self, **shapes: Shape) -> None:
        self._shapes = shapes

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        if not isinstance(value, Mapping) or set(value) != set(self._shapes):
            raise _refuse(value, at, f"a mapping with {', '.join(self._shapes)}")
        for name, shape in self._shapes.items():
            shape.check(value[name], f"{at}[{name!r}]")


@dataclass(frozen=True)
class That:
    """A value of a shape of which something is so besides."""

    shape: Shape
    holds: Callable[[Any], object]
    words: str

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""
        self.shape.check(value, at)
        if not self.holds(value):
            raise _refuse(value, at, self.words)


class _Any:
    """Whatever it is."""

    def check(self, value: Any, at: str) -> None:
        """See ``Shape``."""


class _Plain:
    """What JSON can hold, and no deeper than anybody would."""

    _DEEPEST = 32

    def check(self, value: Any, at: str, depth: int = 0) -> None:
        """See ``Shape``."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return
        if not isinstance(value, (list, tuple, Mapping)) or depth == self._DEEPEST:
            raise _refuse(value, at, "a plain value, as JSON can hold it,")
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, entry in entries:
            if not isinstance(name, (str, int)):
                raise _refuse(name, f"A name in {at}", "a string")
            self.check(entry, f"{at}[{shortened(name)}]", depth + 1)


_LARGEST = 1.7976931348623157e308

FLAG = Of(bool, "True or False")
TEXT = Of(str, "a string")
NAME = Maybe(TEXT)
COUNT = Whole()
NORM = Number(0.0)
# Of the norms that a float can hold, other than 0: from the smallest to the largest.
LOGARITHM = Number(math.log(5e-324), math.log(_LARGEST))
ANY: Shape = _Any()
PLAIN: Shape = _Plain()


def shortened(value: object) -> str:
    """A value in so few characters that they fit into a sentence, whatever it is."""
    try:
        text = reprlib.repr(value)
    except Exception:  # a number of ten thousand digits, or a class that cannot tell what it is
        text = f"of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
