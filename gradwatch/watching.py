"""``track`` and the ``Watch`` it returns: where taps, measuring, judging and sinks are put together."""

from __future__ import annotations

import atexit
import operator
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.arguments import check_optimized, checked_modules, checked_options, named_optimizers
from gradwatch.beginning import Reminder
from gradwatch.blocks import Steps
from gradwatch.diagnose import Diagnosis, Stray
from gradwatch.errors import ArgumentError, TrackerStateError
from gradwatch.explaining import Explainer
from gradwatch.frames import frame_of
from gradwatch.guarding import Guard
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.measure import kernel
from gradwatch.measure.lines import Lines
from gradwatch.measure.pending import PendingStep
from gradwatch.observer import Observer
from gradwatch.patching import Turn
from gradwatch.printing import printable
from gradwatch.records import Alert, Health, Incident, RunInfo, Sink, StepRecord
from gradwatch.refusing import Refusing
from gradwatch.rules import default_rules
from gradwatch.saved import load, state_of
from gradwatch.sinks.fanout import Fanout
from gradwatch.sinks.flight import beside
from gradwatch.sinks.notebook import as_html
from gradwatch.sinks.table import Picture
from gradwatch.unseen_steps import tell_of_unseen_steps
from gradwatch.verdicts import Verdicts, logged
from gradwatch.version import __version__

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Watch", "track"]

T = TypeVar("T")


def track(
    optimizers: Optimizer | Mapping[str, Optimizer],
    modules: nn.Module | Mapping[str, nn.Module] | None = None,
    *,
    every: int = 1,
    rules: Iterable[Rule] | None = None,
    sinks: Iterable[Sink] = (),
    on_alert: Callable[[Alert], object] | None = None,
    guard: Literal["raise", "skip"] | Guard | None = None,
    history: int = 1024,
    depth: int | None = None,
    run: str | None = None,
) -> Watch:
    """Watch the gradients of any training loop: ``with gradwatch.track(optimizer, model) as watch: ...``.

    Args:
        optimizers: one optimizer, reported as ``"optimizer"``, or several by name.
        modules: what to report on: a module, by its parts, or several by name, each as a whole. Wrappers such as
            DistributedDataParallel and what ``torch.compile`` makes are seen through.
        every: measure each n-th step of each optimizer.
        rules: what to alert on; ``gradwatch.default_rules()`` where None.
        sinks: where records and alerts go, besides the log.
        on_alert: called in the training thread with each alert.
        guard: what becomes of a step that would consume NaN or Inf. ``"raise"`` stops it with a
            ``NonFiniteGradientError`` before it is applied, ``"skip"`` leaves it out: parameters and optimizer
            state stay as they are. A guard waits for the device once a step, unless it is to skip steps of a
            fused optimizer of torch's, whose device decides by itself.
        history: records kept in ``watch.history``, as long as they take up at most 64 MiB.
        depth: levels of modules that the report opens: of a lone module 1 gives its children, of several modules
            1 gives these and 2 their children; what has no children left stays as it is. None: several are not
            opened; of a lone module the children are told of, and in place of a child that only holds others (a
            list of layers, a body that has all parameters) these, as long as there are at most 40 lines.
        run: the run's name in every sink; None: host, time and process.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """
    named = named_optimizers(optimizers)
    checked = checked_modules(modules)
    check_optimized(checked, named)
    own, several, wish = checked_options(
        every=every,
        rules=rules,
        sinks=sinks,
        on_alert=on_alert,
        guard=guard,
        history=history,
        depth=depth,
        run=run,
    )
    judges = default_rules() if own is None else own
    return Watch(named, Lines(checked, depth), every, judges, several, on_alert, wish, history, run)


class Watch:
    """The view on a tracked run; made by ``track``, active inside its ``with`` or from ``start`` to ``close``.

    Reading waits for what the devices have still to send; the training loop never does.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        lines: Lines,
        every: int,
        rules: Sequence[Rule],
        sinks: tuple[Sink, ...],
        on_alert: Callable[[Alert], object] | None,
        guard: Guard | None,
        history: int,
        run: str | None,
    ) -> None:
        self._judge = judge = Judge(rules)
        self._explainer = Explainer(lines, judge, optimizers, self._parameters, self._newest, self._take_strays)
        self.starting_from = self._explainer.starting_from
        self._observer = observer = Observer(optimizers, lines, every, f"{guard}", self)
        self._reporting = observer.reporting
        self._recorders = beside(sinks)
        self._fanout = Fanout((*sinks, *self._recorders))
        # A sink that talks to the person at the terminal says an alert itself; twice is noise.
        speaks = any(getattr(sink, "speaks", False) for sink in sinks)
        announcing = [function for function in (None if speaks else logged, on_alert) if function is not None]
        # Each alert for itself: a callback that raises must not silence the next one.
        announce = [observer.shield.around(function) for function in announcing]
        self._verdicts = Verdicts(judge, self._explainer, self._fanout, announce, history)
        self._guard = guard
        on_any_rank = self._reporting.on_any_rank
        # Says of a step that is about to be taken what becomes of it.
        self.refused = None
        self._refusing = None
        if guard is not None:
            self._refusing = refusing = Refusing(guard, judge.critical_above, on_any_rank, judge.refused)
            self.refused = refusing.of
            for tracked in observer.tracked.values():
                tracked.deciding = partial(refusing.measured, tracked)
        self._run = run
        self._info: RunInfo | None = None
        self._loop_step: int | None = None
        self._state = "new"
        self._turn = Turn()
        self._reminder = Reminder(optimizers.values())

    def start(self) -> Watch:
        """Begin to track; for callbacks, notebooks and scripts without a ``with``. ``close`` ends it.

        Raises:
            TrackerStateError: the tracker was begun before.
            SinkError: a sink cannot be opened, such as a port in use.
        """
        try:
            self._begin()
            if self._state != "entered":  # ended meanwhile, by a signal's handler or another thread
                self._state = "interrupted"
                self._close(normally=False)
            return self
        except TrackerStateError:
            raise  # it was begun before, and is not to be ended here
        except BaseException:
            self._close(normally=False)
            raise

    # The same function: between two of them an interrupt would find nobody who takes back what has begun.
    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore torch, and publish what is left."""
        self._close(normally=kind is None, error=error)

    def close(self) -> None:
        """End tracking: remove every hook, write everything out, close the sinks. A second call does nothing."""
        self._close(normally=True)

    def flush(self) -> None:
        """Wait until every sink has written everything up to the last step.

        Raises:
            TrackerStateError: the tracker is closed.
        """
        self._check_usable("flushed")
        self._catch_up()
        self._fanout.flush()

    @property
    def last(self) -> Mapping[str, StepRecord]:
        """The newest record of each optimizer that has stepped."""
        self._catch_up()
        return self._verdicts.last()

    def __getitem__(self, optimizer: str) -> StepRecord:
        """The newest record of an optimizer.

        Raises:
            KeyError: there is no such optimizer, or it has not stepped yet.
        """
        names = self._observer.tracked
        if optimizer not in names:
            known = ", ".join(map(repr, names))
            raise KeyError(f"No optimizer {optimizer!r} is tracked; there are {known}.")
        self._catch_up()
        record = self._verdicts.newest(optimizer)
        if record is None:
            raise KeyError(f"The optimizer {optimizer!r} has no measured step yet: read it after its step().")
        return record

    @property
    def history(self) -> list[StepRecord]:
        """The newest records of all optimizers, oldest first."""
        self._catch_up()
        return self._verdicts.history()

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, oldest first."""
        self._catch_up()
        return list(self._verdicts.alerts)

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now."""
        return self._read(lambda: self._verdicts.active)

    @property
    def incidents(self) -> list[Incident]:
        """The alerts so far, those with one root together and told as one story; the newest incident last.

        All are kept, as all alerts are.
        """
        return self._read(self._verdicts.incidents.all)

    def to_frame(self, parameters: bool = False) -> pd.DataFrame:
        """The records in ``history`` as a table, a row for each step of an optimizer; see ``gradwatch.read``.

        Args:
            parameters: with ``NAME.before`` and ``NAME.after`` of each parameter too.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return frame_of(self.history, self._info.run if self._info else "", parameters)

    def __repr__(self) -> str:
        steps = ", ".join(f"{printable(name)} at step {count}" for name, count in self._observer.steps().items())
        return f"<Watch, {self._state}: {steps}; {len(self._verdicts.alerts)} alerts told>"

    def _repr_html_(self) -> str:
        """In a notebook: what the console shows."""
        return as_html(Picture(self.last.values(), self.incidents))

    @contextmanager
    def diagnose(self) -> Iterator[Diagnosis]:
        """Look for causes in the forward and backward passes inside the ``with``; ``causes`` holds what is found.

        Training is not changed. The device is read while it lasts.

        Raises:
            TrackerStateError: the tracker is closed.
        """
        self._check_usable("asked for a diagnosis")
        names = tuple(self._observer.tracked)
        diagnosis = self._explainer.diagnosis(names)
        try:
            with diagnosis:
                yield diagnosis
        finally:
            self._soon(lambda: self._explainer.found(diagnosis, names))

    @property
    def loop_step(self) -> int | None:
        """The loop's own step, such as that of an environment: set it in the loop, before the steps that it is of.

        Records bear it from then on, and TensorBoard, MLflow and Trackio draw against it, so that these curves and
        the loop's own have one axis. None, as at first: they draw against the steps of each optimizer.

        Raises:
            ArgumentError: it is set to what is no whole number.
        """
        return self._loop_step

    @loop_step.setter
    def loop_step(self, step: SupportsIndex | None) -> None:
        try:
            self._loop_step = None if step is None else operator.index(step)
        except TypeError as error:
            raise ArgumentError(
                f"loop_step={step!r}: give the loop's own step, a whole number, or None."
            ) from error

    def health(self) -> Health:
        """How gradwatch itself is doing."""
        shield, fanout = self._observer.shield, self._fanout
        dropped = fanout.dropped
        in_all = sum(dropped.values()) + self._reporting.dropped_steps
        errors = shield.errors + self._judge.errors
        forgotten = self._verdicts.kept.missing
        return Health(shield.seconds, in_all, fanout.sink_errors, errors, kernel.KIND, dropped, forgotten)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on counting: steps, and what the rules remember; plain values."""
        return self._read(lambda: state_of(self._observer.steps(), self._judge))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an earlier tracker of the same optimizers, before the first step.

        Raises:
            TrackerStateError: the tracker is closed, or has seen a step already.
            ArgumentError: the state is of other optimizers, or none that ``state_dict`` gave; nothing was taken.
        """
        self._check_usable("loaded into")
        if any(self._observer.steps().values()):
            raise TrackerStateError(
                "This tracker has seen steps already, but a state can be loaded only before the first one: load "
                "it right after gradwatch.track."
            )
        load(state, self._observer.tracked, self._judge, self._observer.go_on_from)
        self._verdicts.resume()

    # An interrupt may come before any line of these two. What is begun is taken back by the second, however far
    # the first has come; and the second, where it has been interrupted, begins again.

    def _begin(self) -> None:
        with self._turn:
            if self._state != "new":
                raise TrackerStateError(
                    f"This tracker is {self._state} already and can be begun once: call gradwatch.track again."
                )
            self._state = "entered"
        atexit.register(self._at_exit)
        self._reminder.take_back()
        info = self._info = self._run_info()
        self._verdicts.incidents.began = info.time
        self._fanout.open(info, self.health)
        self._observer.start(asks=self._guard is not None)

    def _at_exit(self) -> None:
        # What Python has just said that it ends with, if it does.
        self._close(normally=True, error=getattr(sys, "last_value", None))

    def _close(self, normally: bool, error: BaseException | None = None) -> None:
        if self._state in ("closing", "closed"):
            return
        try:
            if error is not None:
                for recorder in self._recorders:
                    recorder.failed_with(error)
            self._state = "closing"
            self._reminder.take_back()
            # What a look has patched lies on top of the observer's own patches.
            self._explainer.close()
            self._observer.stop(normally)
            self._observer.shield.around(tell_of_unseen_steps)(self._observer.tracked)
            if self._refusing is not None:
                self._refusing.close()
            self._end()
            self._state = "closed"
        except BaseException:
            self._state = "interrupted"
            self._end()  # sinks have still to write what is there
            raise

    def _end(self) -> None:
        self._reporting.hand_on()
        self._fanout.close()
        self._verdicts.announce()
        atexit.unregister(self._at_exit)

    # What the observer tells, in the training thread or in that of whoever reads.

    def report(self, steps: Steps) -> None:
        """Take the steps of a block."""
        self._verdicts.take(steps)
        if not self._judge.in_suspense:
            for tracked in self._observer.tracked.values():
                tracked.ledger.settled()

    def stepping(self, optimizer: str) -> None:
        """An optimizer is about to step: what a look has found is told."""
        look = self._explainer.stepping(optimizer)
        if look is not None:
            self._soon(lambda: self._explainer.found_before(look, optimizer))

    def stepped(self, optimizer: str, step: PendingStep | None, unusual: bool) -> None:
        """It has; what fires without a cause is looked into."""
        if self._refusing is not None:
            self._refusing.done(optimizer)
        if step is not None:
            if self._loop_step is not None:
                step.row = step.row._replace(loop_step=self._loop_step)
            urgent = unusual or self._refusing is not None or self._judge.in_suspense
            self._reporting.take(step, urgent)
        if not self._judge.asks_why or self._explainer.has_asked_all(optimizer):
            self._explainer.nothing_is_asked()
        else:
            self._reporting.if_free(lambda: self._verdicts.tell([], self._explainer.stepped(optimizer)))
        if self._verdicts.unannounced:
            self._verdicts.announce()

    def _catch_up(self) -> None:
        self._read(lambda: None)

    def _read(self, what: Callable[[], T]) -> T:
        result = self._reporting.read(what)
        self._verdicts.announce()
        return result

    def _soon(self, found: Callable[[], Sequence[Alert]]) -> None:
        self._reporting.soon(lambda: self._verdicts.tell([], found()))
        self._verdicts.announce()

    def _parameters(self, optimizer: str) -> Mapping[str, Tensor]:
        return self._observer.parameters(optimizer)

    def _take_strays(self, found: list[Stray]) -> None:
        self._observer.take_strays(found)

    def _newest(self, optimizer: str) -> StepRecord | None:
        return self._verdicts.newest(optimizer)

    def _check_usable(self, what: str) -> None:
        if self._state not in ("new", "entered"):
            raise TrackerStateError(
                f"This tracker is closed and cannot be {what} any more: read its records as they are, or call "
                "gradwatch.track again."
            )

    def _run_info(self) -> RunInfo:
        now = time.time()
        process = f"{platform.node()}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{os.getpid()}"
        tracked = self._observer.tracked
        return RunInfo(
            run=process if self._run is None else self._run,
            rank=_rank(),
            time=now,
            python=platform.python_version(),
            torch=torch.__version__,
            gradwatch=__version__,
            optimizers=tuple(tracked),
            modules={name: t.own.layout.lines.names for name, t in tracked.items()},
            rules=self._judge.severities,
        )


def _rank() -> int:
    """The rank that torchrun and its likes put into the environment; 0 where there is none."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0
