"""``track`` and the ``Watch`` it returns: where taps, measuring, judging and sinks are put together."""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.arguments import check_call, checked_modules, checked_state, listed, named_optimizers
from gradwatch.diagnose import Diagnosis
from gradwatch.errors import TrackerStateError
from gradwatch.explaining import Explainer
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.measure.slots import ModuleNames
from gradwatch.observer import Observer
from gradwatch.records import Alert, Health, RunInfo, Sink, StepRecord
from gradwatch.reporting import Told
from gradwatch.rules import default_rules
from gradwatch.sinks.fanout import Fanout
from gradwatch.sinks.words import in_words
from gradwatch.version import __version__

__all__ = ["Watch", "track"]

log = logging.getLogger("gradwatch")


def track(
    optimizers: Optimizer | Mapping[str, Optimizer],
    modules: nn.Module | Mapping[str, nn.Module] | None = None,
    *,
    every: int = 1,
    rules: Iterable[Rule] | None = None,
    sinks: Iterable[Sink] = (),
    on_alert: Callable[[Alert], object] | None = None,
    guard: Literal["raise", "skip"] | None = None,
    history: int = 1024,
) -> Watch:
    """Watch the gradients of any training loop: ``with gradwatch.track(optimizer, model) as watch: ...``.

    Args:
        optimizers: one optimizer, reported as ``"optimizer"``, or several by name.
        modules: what to report on: a module, by its direct children, or several by name.
        every: measure each n-th step of each optimizer.
        rules: what to alert on; ``gradwatch.default_rules()`` where None.
        sinks: where records and alerts go, besides the log.
        on_alert: called in the training thread with each alert.
        guard: what becomes of a step that would consume NaN or Inf. ``"raise"`` stops it with a
            ``NonFiniteGradientError`` before it is applied, ``"skip"`` leaves it out: parameters and optimizer
            state stay as they are. A guard waits for the device once a step.
        history: records kept in ``watch.history``.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """
    named = named_optimizers(optimizers)
    checked = checked_modules(modules, named)
    sinks = listed(sinks, "sinks")
    judges = default_rules() if rules is None else listed(rules, "rules")
    check_call(every=every, history=history, sinks=sinks, rules=judges, on_alert=on_alert, guard=guard)
    return Watch(named, checked, every, Judge(judges), sinks, on_alert, guard, history)


class Watch:
    """The view on a tracked run; made by ``track``, active inside its ``with``.

    Reading waits for what the devices have still to send; the training loop never does.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        modules: nn.Module | Mapping[str, nn.Module] | None,
        every: int,
        judge: Judge,
        sinks: tuple[Sink, ...],
        on_alert: Callable[[Alert], object] | None,
        guard: Literal["raise", "skip"] | None,
        history: int,
    ) -> None:
        told = Told(self._publish, self._stepping, self._stepped)
        self._observer = Observer(optimizers, ModuleNames(modules), every, guard, told)
        self._judge = judge
        self._explainer = Explainer(modules, judge, optimizers, self._observer.parameters)
        self._fanout = Fanout(sinks)
        self._on_alert = on_alert
        # A sink that talks to the person at the terminal says an alert itself; twice is noise.
        self._log_alerts = not any(getattr(sink, "speaks", False) for sink in sinks)
        self._last: dict[str, StepRecord] = {}
        self._history: deque[StepRecord] = deque(maxlen=history)
        self._alerts: list[Alert] = []
        # Each alert for itself: a callback that raises must not silence the next one.
        self._announced = self._observer.guard.around(self._announce)
        self._state = "new"
        self._entering = threading.Lock()

    def __enter__(self) -> Watch:
        """Begin to track.

        Raises:
            TrackerStateError: the tracker was entered before.
            SinkError: a sink cannot be opened, such as a port in use.
        """
        with self._entering:
            if self._state != "new":
                raise TrackerStateError(
                    f"This tracker is {self._state} already and can be entered once: call gradwatch.track again."
                )
            self._fanout.open(self._run_info(), self.health)
            self._state = "entered"
        self._explainer.start()
        self._observer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore torch, and publish what is left."""
        self._close(normally=kind is None)

    def close(self) -> None:
        """End tracking: remove every hook, write everything out, close the sinks. A second call does nothing."""
        self._close(normally=True)

    def flush(self) -> None:
        """Wait until every sink has written everything up to the last step.

        Raises:
            TrackerStateError: the tracker is closed.
        """
        self._check_usable("flushed")
        with self._observer.caught_up():
            pass
        self._fanout.flush()

    @property
    def last(self) -> Mapping[str, StepRecord]:
        """The newest record of each optimizer that has stepped."""
        with self._observer.caught_up():
            return dict(self._last)

    def __getitem__(self, optimizer: str) -> StepRecord:
        """The newest record of an optimizer.

        Raises:
            KeyError: there is no such optimizer, or it has not stepped yet.
        """
        names = self._observer.followed
        if optimizer not in names:
            known = ", ".join(map(repr, names))
            raise KeyError(f"No optimizer {optimizer!r} is tracked; there are {known}.")
        last = self.last
        if optimizer not in last:
            raise KeyError(f"The optimizer {optimizer!r} has no measured step yet: read it after its step().")
        return last[optimizer]

    @property
    def history(self) -> list[StepRecord]:
        """The newest records of all optimizers, oldest first."""
        with self._observer.caught_up():
            return list(self._history)

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, oldest first."""
        with self._observer.caught_up():
            return list(self._alerts)

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now."""
        with self._observer.caught_up():
            return self._judge.active

    @contextmanager
    def diagnose(self) -> Iterator[Diagnosis]:
        """Look for causes in the forward and backward passes inside the ``with``; ``causes`` holds what is found.

        Training is not changed. The device is read while it lasts.

        Raises:
            TrackerStateError: the tracker is closed.
        """
        self._check_usable("asked for a diagnosis")
        names = tuple(self._observer.followed)
        diagnosis = self._explainer.diagnosis(names)
        try:
            with diagnosis:
                yield diagnosis
        finally:
            self._tell([], self._explainer.found(diagnosis, names))

    def health(self) -> Health:
        """How gradwatch itself is doing."""
        guard, fanout = self._observer.guard, self._fanout
        dropped = fanout.dropped_records + self._observer.dropped_steps
        return Health(guard.seconds, dropped, dict(fanout.sink_errors), guard.errors)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on counting: steps, and what the rules remember; plain values."""
        with self._observer.caught_up():
            return {"steps": self._observer.steps(), "judge": self._judge.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an earlier tracker of the same optimizers, before the first step.

        Raises:
            TrackerStateError: the tracker is closed, or has seen a step already.
            ArgumentError: the state is of other optimizers, or none that ``state_dict`` gave.
        """
        self._check_usable("loaded into")
        if any(self._observer.steps().values()):
            raise TrackerStateError(
                "This tracker has seen steps already, but a state can be loaded only before the first one: load "
                "it right after gradwatch.track."
            )
        steps = checked_state(state, self._observer.followed)
        self._observer.go_on_from(steps)
        self._judge.load_state_dict(state["judge"])

    def _check_usable(self, what: str) -> None:
        if self._state == "closed":
            raise TrackerStateError(
                f"This tracker is closed and cannot be {what} any more: read its records as they are, or call "
                "gradwatch.track again."
            )

    def _close(self, normally: bool) -> None:
        if self._state != "closed":
            self._state = "closed"
            try:
                self._observer.stop(normally)
            finally:  # also after an interrupt: sinks have still to write
                self._explainer.close()
                self._fanout.close()

    def _run_info(self) -> RunInfo:
        now = time.time()
        program = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else "python"
        followed = self._observer.followed
        return RunInfo(
            run=f"{program}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{os.getpid()}",
            rank=_rank(),
            time=now,
            python=platform.python_version(),
            torch=torch.__version__,
            gradwatch=__version__,
            optimizers=tuple(followed),
            modules={name: tuple(f.holding.modules) for name, f in followed.items()},
        )

    def _publish(self, record: StepRecord) -> None:
        """Judge a record and hand it on; called in the training thread, or in that of whoever reads."""
        self._last[record.optimizer] = record
        self._history.append(record)
        self._explainer.take(record)
        alerts = self._judge.judge(record)
        if any(alert.state == "firing" for alert in alerts):
            alerts += self._explainer.shortcuts(record)
        self._tell([record], alerts)

    def _stepping(self, optimizer: str) -> None:
        self._tell([], self._explainer.stepping(optimizer))

    def _stepped(self, optimizer: str) -> None:
        self._tell([], self._explainer.stepped(optimizer))

    def _tell(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        self._alerts.extend(alerts)
        if records or alerts:
            self._fanout.put(records, alerts)
        for alert in alerts:
            self._announced(alert)

    def _announce(self, alert: Alert) -> None:
        if self._log_alerts:
            level = {"critical": logging.ERROR, "warning": logging.WARNING}[alert.severity]
            log.log(logging.INFO if alert.state == "resolved" else level, "%s", in_words(alert))
        if self._on_alert is not None:
            self._on_alert(alert)


def _rank() -> int:
    """The rank that torchrun and its likes put into the environment; 0 where there is none."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0
