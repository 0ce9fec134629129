"""What a rank gives to the sum over ranks for one step, and what it takes from it.

A row is ``[code, code squared | before | after | presence]``, the last three with one number for each parameter
that is in parts. The code says which step it is. A rank that has left out a step of its own is found out by the
sums of the codes and of their squares: they are ``members`` times one's own only where all codes are the same.
"""

from __future__ import annotations

import zlib

import numpy as np

from gradwatch.measure.norms import FloatArray
from gradwatch.measure.rows import Row
from gradwatch.measure.steps import Step

__all__ = ["as_shares", "is_of_all", "size_for", "size_of", "take_sums"]

# A gradient may be on some ranks only. How many have one is counted, before and after in one number.
_COUNT = float(1 << 26)


def size_for(sharded: int) -> int:
    """Numbers in the row of a step with so many parameters in parts."""
    return 2 + 3 * sharded


def size_of(step: Step) -> int:
    """Numbers in its row."""
    return size_for(len(step.holding.sharded))


def as_shares(step: Step, row: Row) -> FloatArray:
    """This rank's part of each sum of squares, before and after, and whether it has a gradient at all."""
    places, weight = step.holding.sharded, step.holding.shares
    had, has = row.had_before[places], row.has_after[places]
    # NaN and Inf are results here, not errors.
    with np.errstate(all="ignore"):
        before = np.where(had, np.square(row.before[places]) * weight, 0.0)
        after = np.where(has, np.square(row.after[places]) * weight, 0.0)
    code = _code(step)
    return np.concatenate([[code, code * code], before, after, had + _COUNT * has])


def is_of_all(step: Step, sums: FloatArray, members: int) -> bool:
    """Whether every rank has given its part of this very step."""
    code = _code(step)
    return bool(sums[0] == members * code and sums[1] == members * code * code)


def take_sums(step: Step, row: Row, sums: FloatArray) -> None:
    """Put the norms of the whole parameters into the row."""
    places = step.holding.sharded
    before, after, count = np.split(sums[2:], 3)
    row.before[places], row.after[places] = np.sqrt(before), np.sqrt(after)
    row.had_before[places], row.has_after[places] = count % _COUNT > 0, count >= _COUNT


def _code(step: Step) -> float:
    # 16 bits: its square, added up over 10,000 ranks, is exact in float64.
    return float(zlib.crc32(f"{step.optimizer} {step.number}".encode()) & 0xFFFF)
