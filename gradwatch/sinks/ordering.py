"""Each alert beside the step it was raised on, however the two came in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from gradwatch.blocks import Block, StepRow, Steps, optimizer_of
from gradwatch.records import Alert, StepRecord

__all__ = ["in_order", "row_of"]

_Pair = tuple[Sequence[StepRecord], int]


def in_order(steps: Steps, alerts: Sequence[Alert]) -> Iterator[tuple[_Pair | None, Sequence[Alert]]]:
    """Each pair of ``Steps`` with the alerts of its optimizer up to it; at the end, with None, those left over.

    What a file holds then does not depend on how the queue happened to cut the run into batches.
    """
    waiting: dict[str, deque[Alert]] = {}
    for alert in alerts:
        waiting.setdefault(alert.optimizer, deque()).append(alert)
    for pair in steps.pairs:
        yield pair, _due(pair, waiting) if waiting else ()
    left = [alert for queue in waiting.values() for alert in queue]
    if left:
        yield None, left


def row_of(records: Sequence[StepRecord], place: int) -> StepRow | StepRecord:
    """What is known of a step besides its norms; no record of a block is made."""
    return records.rows[place] if isinstance(records, Block) else records[place]


def _due(pair: _Pair, waiting: Mapping[str, deque[Alert]]) -> list[Alert]:
    mine = waiting.get(optimizer_of(*pair), deque())
    step, due = row_of(*pair).step, []
    while mine and mine[0].step <= step:
        due.append(mine.popleft())
    return due
