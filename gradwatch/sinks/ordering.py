"""Each alert beside the record it was raised on, however the two came in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from gradwatch.records import Alert, StepRecord

__all__ = ["in_order"]


def in_order(
    records: Sequence[StepRecord], alerts: Sequence[Alert]
) -> Iterator[tuple[StepRecord | None, Sequence[Alert]]]:
    """Each record with the alerts of its optimizer up to its step; at the end, with None, those left over.

    What a file holds then does not depend on how the queue happened to cut the run into batches.
    """
    waiting: dict[str, deque[Alert]] = {}
    for alert in alerts:
        waiting.setdefault(alert.optimizer, deque()).append(alert)
    for record in records:
        mine = waiting.get(record.optimizer, deque())
        due = []
        while mine and mine[0].step <= record.step:
            due.append(mine.popleft())
        yield record, due
    left = [alert for queue in waiting.values() for alert in queue]
    if left:
        yield None, left
