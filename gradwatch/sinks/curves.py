"""The numbers that are drawn against the steps, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, Alike, Block, FloatArray
from gradwatch.records import StepRecord

__all__ = ["Curves", "curves"]


class Curves(NamedTuple):
    """Some steps of one optimizer.

    Attributes:
        optimizer: its name.
        modules: the lines of the report.
        steps: of the optimizer.
        loop_steps: the loop's own; None where it gave none.
        times: Unix time of each in seconds.
        norms: the norm before clipping, after, and their ratio; then before and after of one module after the
            other, ``[steps, 3 + 2 * modules]``.
        limits: the tightest limit of clipping in each, None where there was none.
        clipped: whether it was in force.
        skipped: whether the optimizer did not apply the step.
        nonfinite: whether a gradient held NaN or Inf.
    """

    optimizer: str
    modules: tuple[str, ...]
    steps: Sequence[int]
    loop_steps: Sequence[int | None]
    times: Sequence[float]
    norms: FloatArray
    limits: Sequence[float | None]
    clipped: Sequence[bool]
    skipped: Sequence[bool]
    nonfinite: Sequence[bool]

    @property
    def axis(self) -> Sequence[int]:
        """What each is drawn against: the loop's own step, and the optimizer's where there is none."""
        return [own if step is None else step for own, step in zip(self.steps, self.loop_steps, strict=True)]


def curves(alike: Alike) -> Curves:
    """What is drawn of steps that one sequence holds; no record of a block is made."""
    records, places, _ = alike
    if not isinstance(records, Block):
        return _of_records([records[place] for place in places])
    rows = [records.rows[place] for place in places]
    whole = np.column_stack((records.norms(BEFORE), records.norms(AFTER), records.clip_ratios))
    modules = np.stack((records.line_norms(BEFORE), records.line_norms(AFTER)), axis=2)
    norms = np.hstack((whole, modules.reshape(len(records), -1)))[places]
    clipping = [records.clipping[place] for place in places]
    return Curves(
        optimizer=records.layout.optimizer,
        modules=records.layout.lines.names,
        steps=[row.step for row in rows],
        loop_steps=[row.loop_step for row in rows],
        times=[row.time for row in rows],
        norms=norms,
        limits=[limit for limit, _ in clipping],
        clipped=[clipped for _, clipped in clipping],
        skipped=[row.skipped for row in rows],
        nonfinite=records.nonfinite[places].tolist(),
    )


def _of_records(records: Sequence[StepRecord]) -> Curves:
    norms = [
        (r.norm_before, r.norm_after, r.clip_ratio, *chain.from_iterable(r.modules.values())) for r in records
    ]
    return Curves(
        optimizer=records[0].optimizer,
        modules=tuple(records[0].modules),
        steps=[r.step for r in records],
        loop_steps=[r.loop_step for r in records],
        times=[r.time for r in records],
        norms=np.array(norms, dtype=np.float64),
        limits=[r.max_norm for r in records],
        clipped=[r.clipped for r in records],
        skipped=[r.skipped for r in records],
        nonfinite=[bool(r.nonfinite) for r in records],
    )
