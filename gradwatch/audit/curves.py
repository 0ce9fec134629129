"""Norms as a log holds them: curves against steps, joined to what they are norms of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["EXACT", "TORCH", "Curve", "Floats", "Ints", "Log", "Norms", "Parts", "Precision", "Side", "joined"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# When a norm was measured; "" where the log does not say.
Side = Literal["before", "after", ""]


@dataclass(frozen=True, eq=False)
class Curve:
    """One number a step, as it was written.

    Attributes:
        name: what the log calls it.
        steps: ``[n]``, in the order in which they were written.
        values: ``[n]``.
        files: at which of them a file begins, the first left out: a run that is resumed may go back there.
    """

    name: str
    steps: Ints
    values: Floats
    files: tuple[int, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What a whole consists of.

    Attributes:
        members: the norms of each.
        disjoint: no tensor is in two of them.
    """

    members: tuple[Norms, ...]
    disjoint: bool


@dataclass(frozen=True)
class Norms:
    """The norms of one thing, and what is said of its clipping.

    Attributes:
        name: what they are norms of.
        sides: the norms, by when they were measured.
        ratio: norm after over norm before.
        limit: of the norm after clipping; NaN at steps where it is not known.
        clipping: at each step, whether a clip is what lies between before and after; None where none is known of,
            and a curve of 1 and 0.
        parts: of its parts.
        sums: of the same thing, what is by its name a sum of norms, by when it was measured.
    """

    name: str
    sides: Mapping[Side, Curve]
    ratio: Curve | None = None
    limit: Curve | None = None
    clipping: Curve | None = None
    parts: tuple[Parts, ...] = ()
    sums: Mapping[Side, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class Precision:
    """How far a number in a log may be from the true one.

    Attributes:
        relative: of the number.
        absolute: below this nothing can be told.
        written: relative, by being written alone.
    """

    relative: float
    absolute: float
    written: float


# gradwatch's own norms are exact. In a JSONL file nine digits are kept of a line's norm: half a unit of the ninth.
EXACT = Precision(relative=5e-9, absolute=0.0, written=5e-9)

# TensorBoard keeps a float32: half a unit of its 24 bits, and no step finer than the smallest of all.
_FLOAT32 = Precision(relative=2.0**-24, absolute=2.0**-149, written=2.0**-24)

# Others have torch add up in float32: up to 2 % of the norm of a large constant tensor are lost (docs/rules.md).
_SUMMED_IN_FLOAT32 = 0.02
TORCH = Precision(_SUMMED_IN_FLOAT32 + _FLOAT32.relative, _FLOAT32.absolute, _FLOAT32.written)


@dataclass
class Log:
    """One run in a log.

    Attributes:
        name: of the run; empty where there is one alone.
        form: what kind of log it is.
        norms: what is looked at; of a whole its parts hang on it.
        precision: of its numbers.
        understood: a sentence for each thing looked at: how its names were read.
        unread: names that look like norms of gradients and were not understood.
        others: names of what has nothing to do with norms of gradients.
        remarks: what is to be known of the log itself, such as that it is torn.
        own: whether gradwatch wrote it.
    """

    name: str
    form: str
    norms: Sequence[Norms]
    precision: Precision
    understood: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    own: bool = False


def joined(*curves: Curve) -> tuple[Ints, list[Floats]]:
    """The steps that all curves have, ascending, and the values there; of a step written twice the last."""
    newest = [_newest(curve) for curve in curves]
    steps = newest[0][0]
    for mine, _ in newest[1:]:
        steps = np.intersect1d(steps, mine, assume_unique=True)
    return steps, [values[np.searchsorted(mine, steps)] for mine, values in newest]


def _newest(curve: Curve) -> tuple[Ints, Floats]:
    steps, from_the_end = np.unique(curve.steps[::-1], return_index=True)
    return steps, curve.values[::-1][from_the_end]
