"""Records and alerts in two lists."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.records import Alert, StepRecord

__all__ = ["Memory"]


class Memory:
    """Keeps everything: for tests, notebooks, and reading a short run afterwards.

    While the run goes on, both lists lag behind by up to a block: call ``watch.flush()`` first, or read
    ``watch.history`` and ``watch.alerts``.

    Attributes:
        records: all records, oldest first.
        alerts: all alerts, oldest first.
    """

    def __init__(self) -> None:
        self.records: list[StepRecord] = []
        self.alerts: list[Alert] = []

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Append them."""
        self.records.extend(records)
        self.alerts.extend(alerts)

    def close(self) -> None:
        """Nothing is held open."""
