"""What a rank gives to the sum over ranks for one step, and what it takes from it.

A row is ``[code, code squared | before | after | presence]``, the last three with one number for each parameter
that is in parts. The code says which step it is. A rank that has left out a step of its own is found out by the
sums of the codes and of their squares: they are ``members`` times one's own only where all codes are the same.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Protocol

import numpy as np

from gradwatch.blocks import Columns, FloatArray, Layout, StepRow

__all__ = ["as_shares", "is_of_all", "size_for", "size_of", "take_sums"]


class Owned(Protocol):
    """Whose gradients a step is of, as ``RowForm`` has it."""

    @property
    def layout(self) -> Layout:
        """What the columns are called."""

    @property
    def sharded(self) -> Columns:
        """The columns of which this rank has a part only."""

    @property
    def shares(self) -> FloatArray:
        """The weight of this rank's squares of each in the sum over ranks."""


class Landed(Protocol):
    """A step whose numbers are on the host, as ``LandedStep`` has it."""

    row: StepRow
    before: bytes | bytearray
    after: bytes | bytearray

    @property
    def own(self) -> Owned:
        """Whose gradients it consumed."""


# A gradient may be on some ranks only. How many have one is counted, before and after in one number.
_COUNT = float(1 << 26)


def size_for(sharded: int) -> int:
    """Numbers in the row of a step with so many parameters in parts."""
    return 2 + 3 * sharded


def size_of(step: Landed) -> int:
    """Numbers in its row."""
    return size_for(len(step.own.sharded))


def as_shares(step: Landed) -> FloatArray:
    """This rank's part of each sum of squares, before and after, and whether it has a gradient at all."""
    places, weight, facts = step.own.sharded, step.own.shares, step.row.facts
    had, has = facts.had_before[places], facts.has_after[places]
    # NaN and Inf are results here, not errors.
    with np.errstate(all="ignore"):
        before = np.where(had, np.square(np.frombuffer(step.before)[places]) * weight, 0.0)
        after = np.where(has, np.square(np.frombuffer(step.after)[places]) * weight, 0.0)
    code = _code(step)
    return np.concatenate([[code, code * code], before, after, had + _COUNT * has])


def is_of_all(step: Landed, sums: FloatArray, members: int) -> bool:
    """Whether every rank has given its part of this very step."""
    code = _code(step)
    return bool(sums[0] == members * code and sums[1] == members * code * code)


def take_sums(step: Landed, sums: FloatArray) -> None:
    """Put the norms of the whole parameters into the step."""
    places, facts = step.own.sharded, step.row.facts
    before, after, count = np.split(sums[2:], 3)
    step.before, step.after = bytearray(step.before), bytearray(step.after)
    np.frombuffer(step.before)[places], np.frombuffer(step.after)[places] = np.sqrt(before), np.sqrt(after)
    had, has = facts.had_before.copy(), facts.has_after.copy()
    had[places], has[places] = count % _COUNT > 0, count >= _COUNT
    step.row = step.row._replace(facts=replace(facts, had_before=had, has_after=has))


def _code(step: Landed) -> float:
    # 16 bits: its square, added up over 10,000 ranks, is exact in float64.
    return float(zlib.crc32(f"{step.own.layout.optimizer} {step.row.step}".encode()) & 0xFFFF)
