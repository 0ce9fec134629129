"""The exceptions that gradwatch raises at its own border, never inside a training loop.

    GradwatchError
    ├── ArgumentError (also a ValueError)       a call to gradwatch that cannot be meant as it stands
    ├── TrackerStateError (also a RuntimeError) a tracker entered twice, or used after it was closed
    ├── MissingExtraError (also an ImportError) an optional package that a sink needs is not installed
    ├── SinkError (also an OSError)             a sink cannot be opened: a port in use, a path not writable
    ├── NonFiniteGradientError (also an ArithmeticError)   a guard has stopped a step that would consume NaN or Inf
    └── ExplodingGradientError (also an ArithmeticError)   a guard has stopped a step whose norm was far too large

Each message is one sentence: what came, what was expected, what to do.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "ExplodingGradientError",
    "GradwatchError",
    "MissingExtraError",
    "NonFiniteGradientError",
    "SinkError",
    "TrackerStateError",
]


class GradwatchError(Exception):
    """The root of all exceptions of gradwatch."""


class ArgumentError(GradwatchError, ValueError):
    """An argument that cannot be meant as it stands."""


class TrackerStateError(GradwatchError, RuntimeError):
    """A tracker that is not in the state which the call needs."""


class MissingExtraError(GradwatchError, ImportError):
    """An optional package is missing; the message names the command that installs it."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed: "
            f'run pip install "gradwatch[{extra}]".'
        )


class SinkError(GradwatchError, OSError):
    """A sink that cannot be opened."""


class NonFiniteGradientError(GradwatchError, ArithmeticError):
    """A step was about to consume NaN or Inf, and ``guard="raise"`` has stopped it: nothing was changed."""


class ExplodingGradientError(GradwatchError, ArithmeticError):
    """A step's norm was far too large, and ``Guard(explosion="raise")`` has stopped it: nothing was changed."""
