"""The numbers that are drawn against the steps, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, Alike, Block, FloatArray, StepRow, Steps
from gradwatch.records import StepRecord

__all__ = ["Curves", "curves"]

# Whether a step was skipped, its loss scale, its passes, and those of them that were lost.
_USUAL = (False, None, 1, 0)


class Curves(NamedTuple):
    """Some steps of one optimizer.

    Attributes:
        optimizer: its name.
        modules: the lines of the report.
        norms: the norm before clipping, after, and their ratio; then before and after of one module after the
            other, ``[steps, 3 + 2 * modules]``.
        at: where each step is among those that these are drawn of.
        steps: of the optimizer.
        loop_steps: the loop's own; None where it gave none.
        times: Unix time of each in seconds.
        limits: the tightest limit of clipping in each, None where there was none.
        clipped: whether it was in force.
        skipped: whether the optimizer did not apply the step.
        nonfinite: whether a gradient held NaN or Inf.
        odd: whether more may be to be said of it than numbers, see ``gradwatch.sinks.brief``.
    """

    optimizer: str
    modules: tuple[str, ...]
    norms: FloatArray
    at: Sequence[int]
    steps: Sequence[int]
    loop_steps: Sequence[int | None]
    times: Sequence[float]
    limits: Sequence[float | None]
    clipped: Sequence[bool]
    skipped: Sequence[bool]
    nonfinite: Sequence[bool]
    odd: Sequence[bool]

    @property
    def axis(self) -> Sequence[int]:
        """What each is drawn against: the loop's own step, and the optimizer's where there is none."""
        return [own if step is None else step for own, step in zip(self.steps, self.loop_steps, strict=True)]


def curves(steps: Steps) -> list[Curves]:
    """What is drawn of each optimizer, as long as its modules stay the same; no record of a block is made."""
    found: list[list[Curves]] = []
    newest: dict[str, list[Curves]] = {}
    for alike in steps.alike:
        drawn = _of(alike)
        parts = newest.get(drawn.optimizer, [])
        if not parts or parts[0].modules != drawn.modules:
            parts = newest[drawn.optimizer] = []
            found.append(parts)
        parts.append(drawn)
    return [_joined(parts) for parts in found]


# Of the blocks that some sink has still to write: all who draw one draw the same.
_drawn: WeakKeyDictionary[Block, Curves] = WeakKeyDictionary()


def _of(alike: Alike) -> Curves:
    records, places, at = alike
    if isinstance(records, Block):
        drawn = _drawn.get(records)
        if drawn is None:
            drawn = _drawn[records] = _of_block(records)
    else:
        drawn = _of_records(records)
    if places != list(range(len(drawn.at))):
        drawn = _with(drawn, drawn.norms[places], ([field[place] for place in places] for field in drawn[3:]))
    return _with(drawn, drawn.norms, (at, *drawn[4:]))


def _joined(parts: Sequence[Curves]) -> Curves:
    if len(parts) == 1:
        return parts[0]
    _, _, norms, *fields = zip(*parts, strict=True)
    return _with(parts[0], np.concatenate(norms), (list(chain(*values)) for values in fields))


def _with(drawn: Curves, norms: FloatArray, fields: Iterable[Sequence[Any]]) -> Curves:
    return Curves(drawn.optimizer, drawn.modules, norms, *fields)


def _of_block(block: Block) -> Curves:
    # One of tuples in place of a tuple of them.
    rows: Any = StepRow._make(zip(*block.rows, strict=True))
    limits, clipped = zip(*block.clipping, strict=True)
    modules = block.layout.lines.names
    norms = np.empty((len(block), 3 + 2 * len(modules)))
    norms[:, 0], norms[:, 1], norms[:, 2] = block.norms(BEFORE), block.norms(AFTER), block.clip_ratios
    norms[:, 3::2], norms[:, 4::2] = block.line_norms(BEFORE), block.line_norms(AFTER)
    nonfinite = block.nonfinite.tolist()
    # Most steps are alike.
    told = rows.facts, rows.skipped, rows.loss_scale, rows.backward_passes, rows.lost_passes
    kinds = list(zip(*told, strict=True))
    usual = {kind: kind[0].as_usual and kind[1:] == _USUAL for kind in {*kinds}}
    return Curves(
        optimizer=block.layout.optimizer,
        modules=modules,
        norms=norms,
        at=range(len(block)),
        steps=rows.step,
        loop_steps=rows.loop_step,
        times=rows.time,
        limits=limits,
        clipped=clipped,
        skipped=rows.skipped,
        nonfinite=nonfinite,
        odd=[bad or not usual[kind] for bad, kind in zip(nonfinite, kinds, strict=True)],
    )


def _of_records(records: Sequence[StepRecord]) -> Curves:
    norms = [
        (r.norm_before, r.norm_after, r.clip_ratio, *chain.from_iterable(r.modules.values())) for r in records
    ]
    return Curves(
        optimizer=records[0].optimizer,
        modules=tuple(records[0].modules),
        norms=np.array(norms, dtype=np.float64),
        at=range(len(records)),
        steps=[r.step for r in records],
        loop_steps=[r.loop_step for r in records],
        times=[r.time for r in records],
        limits=[r.max_norm for r in records],
        clipped=[r.clipped for r in records],
        skipped=[r.skipped for r in records],
        nonfinite=[bool(r.nonfinite) for r in records],
        odd=[True] * len(records),
    )
