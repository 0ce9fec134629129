"""Where a log contradicts a law, in one sentence for all steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradwatch.audit.curves import Floats, Ints

__all__ = ["Breach", "Place", "Truths", "times", "told"]

Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """A step at which a law is broken, as it is written in a sentence.

    Attributes:
        step: its number.
        at: what is wrong there, and against what.
        factor: by how much it is.
    """

    step: int
    at: str
    factor: str


@dataclass(frozen=True)
class Breach:
    """Where a log contradicts a law.

    Attributes:
        law: its id.
        names: of the curves that contradict each other.
        message: the sentence.
        steps: at how many steps.
        of: of how many that can tell.
        first: the first of them.
        worst: the one at which it is furthest off.
        factor: how far off it is there, from 1 on; infinite where no factor tells.
    """

    law: str
    names: tuple[str, ...]
    message: str
    steps: int
    of: int
    first: int
    worst: int
    factor: float


def told(
    law: str,
    names: tuple[str, ...],
    steps: Ints,
    wrong: Truths,
    say: Callable[[Place], str],
    values: Floats,
    bounds: Floats | None = None,
    of: int | None = None,
) -> Iterator[Breach]:
    """One breach for all steps at which a law is broken; none where it is kept.

    Args:
        law: its id.
        names: of the curves.
        steps: ``[n]``, those that were looked at.
        wrong: ``[n]``, at which of them it is broken.
        say: the sentence, of the worst of them.
        values: ``[n]``, what is wrong.
        bounds: ``[n]``, what it is held against; None where there is nothing.
        of: how many steps can tell; None: all.
    """
    where = np.flatnonzero(wrong)
    if not len(where):
        return
    off = np.full(len(steps), np.inf) if bounds is None else _off(values, bounds)
    worst = where[np.argmax(off[where])]
    step, factor = int(steps[worst]), float(off[worst])
    against = "" if bounds is None else f" against {bounds[worst]:.4g}"
    beside = f" ({times(factor)})" if 1.0 < factor < np.inf else ""
    place = Place(step, f"{values[worst]:.4g}{against} at step {step}{beside}", times(factor))
    counted = len(steps) if of is None else of
    message = f"{say(place)}; in {len(where)} of {counted} steps."
    yield Breach(law, names, message, len(where), counted, int(steps[where[0]]), step, factor)


def times(factor: float) -> str:
    """A factor in three digits, or in whole numbers."""
    return f"{factor:.3g}x" if factor < 1000.0 else f"{factor:,.0f}x"


def _off(values: Floats, bounds: Floats) -> Floats:
    """By what factor two numbers differ, from 1 on."""
    with np.errstate(all="ignore"):
        ratio = np.abs(values / bounds)
        off: Floats = np.maximum(ratio, 1.0 / ratio)
    return np.nan_to_num(off, nan=np.inf, posinf=np.inf)
