"""The native kernel, see ``gradwatch.measure.kernel``."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

# The ways to sum that this processor can go, fastest first.
WAYS: tuple[str, ...]

def look(parameters: list[Tensor | None], state: bytearray) -> tuple[list[Tensor | None], bytes]: ...
def norms(
    gradients: list[Tensor | None], places: bytes, out: bytearray
) -> tuple[float, int, list[int] | None]: ...
def perhaps_zero(gradients: list[Tensor | None], places: tuple[int, ...]) -> list[int]: ...
def forked() -> None: ...

class Shield:
    """A function made harmless, see ``gradwatch.shield``."""

    seconds: float

    def __init__(
        self, caught: Callable[[Callable[..., object], Exception], None], stands_aside: Callable[[], bool] | None
    ) -> None: ...
    def around(self, function: Callable[P, R]) -> Callable[P, R | None]: ...

def use(way: str) -> None: ...
