"""What is worked out when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["once"]

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 - a decorator
    """An attribute that is worked out when it is first asked for: ``functools.cached_property`` without a lock.

    Up to Python 3.11 that takes a lock each time, which costs more than most that is worked out of a block. Two
    threads that ask at once work out the same.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work = work
        self._name = work.__name__
        self.__doc__ = work.__doc__

    def __get__(self, of: Any, kind: type) -> T:
        """The value, which from then on is an attribute as any other."""
        value = of.__dict__[self._name] = self._work(of)
        return value
