"""What is said of steps: judged, explained, remembered, handed to the sinks and announced."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gradwatch.blocks import Block, Kept, Steps
from gradwatch.explaining import Explainer
from gradwatch.incidents import Incidents
from gradwatch.judge.judge import Judge
from gradwatch.log import log
from gradwatch.records import Alert, StepRecord
from gradwatch.sinks.fanout import Fanout

__all__ = ["Verdicts"]

# Of a model with 10,000 parameters these are about 400 steps; with 1,000 or fewer all that ``history`` asks for.
HISTORY_BYTES = 64 << 20


class Verdicts:
    """Everything known of the steps reported so far.

    Args:
        judge: finds what is wrong.
        explainer: finds out why.
        fanout: takes steps and alerts to the sinks.
        announce: each takes one alert, and must not raise.
        history: steps that are remembered, as long as they fit into ``HISTORY_BYTES``.

    Attributes:
        kept: the steps remembered.
        alerts: all so far, as they were told.
        unannounced: those of them that are still to be announced.
        incidents: what they belong to.
    """

    def __init__(
        self,
        judge: Judge,
        explainer: Explainer,
        fanout: Fanout,
        announce: Sequence[Callable[[Alert], object]],
        history: int,
    ) -> None:
        self._judge = judge
        self._explainer = explainer
        self._fanout = fanout
        self._announce = announce
        self.kept = Kept(history, HISTORY_BYTES)
        self._newest: dict[str, tuple[Sequence[StepRecord], int]] = {}
        self.alerts: list[Alert] = []
        self.unannounced: deque[Alert] = deque()
        self.incidents = Incidents()
        self._began: dict[tuple[str, str, str | None], float] = {}
        self._announcing = threading.Lock()

    def resume(self) -> None:
        """What fires in the state that was loaded is a part of the story, and is not announced again."""
        self.incidents = Incidents(self.incidents.began)
        for alert in self._judge.active:
            self.incidents.take(alert)

    def newest(self, optimizer: str) -> StepRecord | None:
        """The newest record of an optimizer."""
        pair = self._newest.get(optimizer)
        return None if pair is None else pair[0][pair[1]]

    def last(self) -> dict[str, StepRecord]:
        """The newest record of each optimizer that has stepped."""
        return {name: block[place] for name, (block, place) in self._newest.copy().items()}

    def history(self) -> list[StepRecord]:
        """The newest records of all optimizers, oldest first."""
        return list(self.kept.steps())

    def take(self, steps: Steps) -> None:
        """Judge the steps of a block and hand them on."""
        self.kept.take(steps)
        self._newest.update(steps.newest())
        alerts: list[Alert] = []
        try:
            alerts = self._judged(steps)
        finally:  # whatever becomes of the verdict, no step is lost
            self.tell(steps, alerts)

    def tell(self, steps: Sequence[StepRecord], alerts: Iterable[Alert]) -> None:
        """Hand steps and alerts to the sinks, and keep the alerts to be announced."""
        alerts = [self._in_its_incident(alert, steps) for alert in alerts]
        self.alerts.extend(alerts)
        if len(steps) or alerts:
            self._fanout.put(steps, alerts)
        self.unannounced.extend(alerts)

    def announce(self) -> None:
        """Announce what is new: in order, one at a time, and under no lock that a training loop takes.

        A callback may read the watch, wait for a thread that does, or end the tracking.
        """
        while self.unannounced and self._announcing.acquire(blocking=False):
            try:
                while self.unannounced:
                    alert = self.unannounced.popleft()
                    for announce in self._announce:
                        announce(alert)
            finally:
                self._announcing.release()

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now, with what is known of them by now."""
        return [replace(alert, time=self._began.get(alert.key, math.nan)) for alert in self._judge.active]

    def _in_its_incident(self, alert: Alert, steps: Sequence[StepRecord]) -> Alert:
        """The alert with its time, and the words that it is told in everywhere."""
        alert = replace(alert, time=self._time_of(alert, steps))
        if alert.state == "firing":
            self._began[alert.key] = alert.time
        return self.incidents.take(alert)

    def _time_of(self, alert: Alert, steps: Sequence[StepRecord]) -> float:
        newest = self.newest(alert.optimizer)
        if newest is not None and newest.step == alert.step:
            return newest.time
        own = (record for record in steps if (record.optimizer, record.step) == (alert.optimizer, alert.step))
        return next((record.time for record in own), math.nan)

    def _judged(self, steps: Steps) -> list[Alert]:
        blocks = _blocks_of(steps)
        alerts = [alert for block in blocks for alert in self._of_block(block)]
        if alerts and len(blocks) > 1:
            # Blocks are of one optimizer each: told in the order in which the steps were taken.
            order = {(record.optimizer, record.step): place for place, record in enumerate(steps)}
            # That a rule failed may end what is of an optimizer that has not stepped.
            alerts.sort(key=lambda alert: order.get((alert.optimizer, alert.step), len(steps)))
        return alerts

    def _of_block(self, block: Block) -> list[Alert]:
        alerts = [self._explainer.reconsidered(alert) for alert in self._judge.judge_block(block)]
        for step in dict.fromkeys(alert.step for alert in alerts if alert.state == "firing"):
            place = next(place for place, row in enumerate(block.rows) if row.step == step)
            alerts += self._explainer.shortcuts(block[place])
        return alerts


def _blocks_of(steps: Steps) -> list[Block]:
    """Each block once."""
    return [block for block in steps.sequences if isinstance(block, Block)]


def logged(alert: Alert) -> None:
    """Tell the ``gradwatch`` logger."""
    level = {"critical": logging.ERROR, "warning": logging.WARNING}[alert.severity]
    log.log(logging.INFO if alert.state == "resolved" else level, "%s", alert)
