"""``track`` and the ``Watch`` it returns: where taps, measuring, judging and sinks are put together."""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.arguments import check_call, checked_modules, listed, named_optimizers
from gradwatch.errors import TrackerStateError
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.measure.following import Followed, Newest
from gradwatch.measure.meter import Meter
from gradwatch.measure.rows import SeenClip
from gradwatch.measure.slots import ModuleNames, Slots
from gradwatch.records import Alert, Health, RunInfo, Sink, StepRecord
from gradwatch.rules import default_rules
from gradwatch.sinks.fanout import Fanout
from gradwatch.sinks.words import in_words
from gradwatch.taps.backwards import BackwardTap
from gradwatch.taps.clips import ClipEvent, listen, stop_listening
from gradwatch.taps.guard import Guard
from gradwatch.taps.steps import StepTap
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
        history: records kept in ``watch.history``.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """
    named = named_optimizers(optimizers)
    checked = checked_modules(modules, named)
    sinks = listed(sinks, "sinks")
    judges = default_rules() if rules is None else listed(rules, "rules")
    check_call(every=every, history=history, sinks=sinks, rules=judges, on_alert=on_alert)
    judge = Judge(judges)
    return Watch(named, ModuleNames(checked), every, judge, sinks, on_alert, history)


class Watch:
    """The view on a tracked run; made by ``track``, active inside its ``with``."""

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        names: ModuleNames,
        every: int,
        judge: Judge,
        sinks: tuple[Sink, ...],
        on_alert: Callable[[Alert], object] | None,
        history: int,
    ) -> None:
        slots = Slots()
        self._meter = Meter(slots)
        self._slots = slots
        self._followed = {n: Followed(n, o, slots, names, every) for n, o in optimizers.items()}
        self._newest = Newest(slots, self._meter)
        self._judge = judge
        self._fanout = Fanout(sinks)
        self._on_alert = on_alert
        # A sink that talks to the person at the terminal says an alert itself; twice is noise.
        self._log_alerts = not any(getattr(sink, "speaks", False) for sink in sinks)
        self._last: dict[str, StepRecord] = {}
        self._history: deque[StepRecord] = deque(maxlen=history)
        self._alerts: list[Alert] = []
        self._guard = Guard()
        # Optimizers may be stepped from several threads; the lock is re-entrant for alerts' callbacks.
        self._lock = threading.RLock()
        # Each alert for itself: a callback that raises must not silence the next one.
        self._announced = self._guard.around(self._announce)
        self._backward_tap = BackwardTap(self._guard.around(self._backward_ended))
        self._step_taps: list[StepTap] = []
        self._listener: _ClipListener | None = None
        self._state = "new"

    def __enter__(self) -> Watch:
        """Begin to track.

        Raises:
            TrackerStateError: the tracker was entered before.
            SinkError: a sink cannot be opened, such as a port in use.
        """
        if self._state != "new":
            raise TrackerStateError(
                f"This tracker is {self._state} already and can be entered once: call gradwatch.track again."
            )
        self._fanout.open(self._run_info(), self.health)
        self._state = "entered"
        guarded = self._guard.around
        for followed in self._followed.values():
            self._backward_tap.watch(followed.parameters())
            consume, stepped = _bound(self._consuming, followed), _bound(self._stepped, followed)
            self._step_taps.append(StepTap(followed.optimizer, guarded(consume), guarded(stepped)))
        self._listener = _ClipListener(guarded(self._clipping), guarded(self._clipped))
        listen(self._listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore torch, and publish what is left."""
        self.close()

    def close(self) -> None:
        """End tracking: remove every hook, write everything out, close the sinks. A second call does nothing."""
        if self._state == "closed":
            return
        self._state = "closed"
        if self._listener is not None:
            stop_listening(self._listener)
        for tap in self._step_taps:
            tap.close()
        self._backward_tap.close()
        self._fanout.close()

    def flush(self) -> None:
        """Wait until every sink has written everything up to the last step."""
        self._fanout.flush()

    @property
    def last(self) -> Mapping[str, StepRecord]:
        """The newest record of each optimizer that has stepped."""
        return dict(self._last)

    def __getitem__(self, optimizer: str) -> StepRecord:
        """The newest record of an optimizer.

        Raises:
            KeyError: there is no such optimizer, or it has not stepped yet.
        """
        if optimizer not in self._followed:
            known = ", ".join(map(repr, self._followed))
            raise KeyError(f"No optimizer {optimizer!r} is tracked; there are {known}.")
        if optimizer not in self._last:
            raise KeyError(f"The optimizer {optimizer!r} has no measured step yet: read it after its step().")
        return self._last[optimizer]

    @property
    def history(self) -> list[StepRecord]:
        """The newest records of all optimizers, oldest first."""
        return list(self._history)

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, oldest first."""
        return list(self._alerts)

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now."""
        return self._judge.active

    def health(self) -> Health:
        """How gradwatch itself is doing."""
        guard, fanout = self._guard, self._fanout
        return Health(guard.seconds, fanout.dropped_records, dict(fanout.sink_errors), guard.errors)

    def _run_info(self) -> RunInfo:
        now = time.time()
        program = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else "python"
        return RunInfo(
            run=f"{program}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{os.getpid()}",
            rank=_rank(),
            time=now,
            python=platform.python_version(),
            torch=torch.__version__,
            gradwatch=__version__,
            optimizers=tuple(self._followed),
            modules={name: tuple(f.holding.modules) for name, f in self._followed.items()},
        )

    # What the taps call, in the training thread.

    def _backward_ended(self, slots: tuple[int, ...]) -> None:
        with self._lock:
            touched = [f for f in self._followed.values() if f.holds_any(slots)]
            for followed in touched:
                followed.backward_ended()
            if any(followed.due for followed in touched):
                self._newest.measure(slots)
        for tap in self._step_taps:
            tap.stay_last()

    def _clipping(self, event: ClipEvent) -> None:
        with self._lock:
            slots = self._slots.of(event.parameters)
            for followed in self._followed.values():
                missing = followed.not_yet_measured(slots, self._newest) if followed.due else ()
                if missing:
                    self._newest.measure(missing)

    def _clipped(self, event: ClipEvent, norm_returned: Tensor | None) -> None:
        with self._lock:
            slots = self._slots.of(event.parameters)
            concerned = [f for f in self._followed.values() if f.due and f.holds_any(slots)]
            if not concerned:
                return
            norm = None if norm_returned is None else float(norm_returned)
            for followed in concerned:
                followed.clip_seen(SeenClip(event.function, event.limit, event.norm_type, norm, slots))

    def _consuming(self, followed: Followed) -> None:
        with self._lock:
            if followed.refresh():
                self._backward_tap.watch(followed.parameters())
            self._newest.next_event()
            followed.consume(self._newest, self._meter)

    def _stepped(self, followed: Followed) -> None:
        with self._lock:
            record = followed.stepped(self._newest.event)
            if record is None:
                return
            self._last[followed.name] = record
            self._history.append(record)
            alerts = self._judge.judge(record)
            self._alerts.extend(alerts)
        self._fanout.put([record], alerts)
        for alert in alerts:
            self._announced(alert)

    def _announce(self, alert: Alert) -> None:
        if self._log_alerts:
            level = {"critical": logging.ERROR, "warning": logging.WARNING}[alert.severity]
            log.log(level if alert.state == "firing" else logging.INFO, "%s", in_words(alert))
        if self._on_alert is not None:
            self._on_alert(alert)


def _rank() -> int:
    """The rank that torchrun and its likes put into the environment; 0 where there is none."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0


class _ClipListener:
    def __init__(
        self,
        clipping: Callable[[ClipEvent], None],
        clipped: Callable[[ClipEvent, Tensor | None], None],
    ) -> None:
        self.clipping = clipping
        self.clipped = clipped


def _bound(function: Callable[[Followed], None], followed: Followed) -> Callable[[], None]:
    def call() -> None:
        function(followed)

    call.__qualname__ = function.__qualname__
    return call
