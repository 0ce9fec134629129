"""What becomes of a step that would do harm: the user's wish, as ``track(guard=...)`` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradwatch.errors import ArgumentError

__all__ = ["Guard"]

_ACTIONS = ("raise", "skip")


@dataclass(frozen=True, slots=True)
class Guard:
    """Which steps are stopped or left out before they are applied; ``guard="skip"`` is ``Guard("skip")``.

    Attributes:
        nonfinite: what becomes of a step that would consume NaN or Inf: ``"raise"`` stops it with a
            ``NonFiniteGradientError``, ``"skip"`` leaves it out.
        explosion: the same for a step whose norm before clipping is above what the rule ``explosion`` calls
            critical, also where that only warns because one like it has passed by itself; None lets it be.
        after: steps in a row with such a norm, at least 1: the last of so many is the first that is stopped or
            left out. A step that would consume NaN or Inf is never let by: the weights could not be had back.

    Raises:
        ArgumentError: one cannot be meant as it stands.
    """

    nonfinite: Literal["raise", "skip"]
    explosion: Literal["raise", "skip"] | None = None
    after: int = 1

    def __post_init__(self) -> None:
        if self.nonfinite not in _ACTIONS:
            raise ArgumentError(f'nonfinite is {self.nonfinite!r}, but "raise" or "skip" was expected.')
        if self.explosion is not None and self.explosion not in _ACTIONS:
            raise ArgumentError(f'explosion is {self.explosion!r}, but "raise", "skip" or None was expected.')
        if isinstance(self.after, bool) or not isinstance(self.after, int) or self.after < 1:
            raise ArgumentError(f"after is {self.after!r}, but a whole number of at least 1 was expected.")
