"""What is said about steps: alerts, their causes, and the incidents that they are part of, each with its words.

A person is told what is wrong in one sentence, with two numbers of the evidence at most; all of it is in the
fields, and so in every file. Steps are counted by the optimizer that is named with them, time from where the run
began.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gradwatch.printing import called, printable
from gradwatch.proof import plainly, proof

__all__ = ["SEEN_AT", "Alert", "Cause", "Incident", "Severity", "State"]

Severity = Literal["warning", "critical"]
State = Literal["firing", "explained", "resolved"]

_MARKS = {"firing": "!", "explained": "?", "resolved": "+"}

# In the evidence of a cause that was seen in a later step than that of its alert: in which.
SEEN_AT = "seen_at_step"

# What to do about what has no cause that says so, by rule.
_ADVICE = {
    "explosion": "Lower the learning rate, look at the batch of that step, and clip where nothing does.",
    "growth": "Lower the learning rate, or bound what is fed back: bootstrapped targets, recurrent states.",
    "clip-saturated": "Look at the norm before clipping: find what makes it that large, or raise the limit.",
    "diverged": "Call the DistributedDataParallel wrapper, not the module in it, with the same loop on all ranks.",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a verdict came about.

    Attributes:
        kind: one of the cause kinds of the documentation, such as ``"saturated-tanh"``.
        where: module path or operation.
        evidence: the numbers that prove it, by name.
        remedy: one sentence: what to do.
    """

    kind: str
    where: str
    evidence: Mapping[str, float | int | str]
    remedy: str

    @property
    def title(self) -> str:
        """What and where, such as ``"saturated-tanh at actor_mlp"``."""
        return f"{self.kind} at {called(plainly(self.where))}"

    def __str__(self) -> str:
        """The title with its reason, its words and its first numbers."""
        reason = self.evidence.get("reason")
        said = ", ".join(proof(self.evidence, self.where))
        return self.title + (f" ({said})" if said else "") + (f": {reason}" if reason else "")


@dataclass(frozen=True, slots=True)
class Alert:
    """An event in the life of one episode: it fires once, may be explained, and is resolved once.

    Attributes:
        rule: id of the rule, such as ``"zero"``.
        severity: ``"warning"`` or ``"critical"``.
        state: ``"firing"``, ``"explained"`` or ``"resolved"``.
        optimizer: name of the optimizer.
        module: name of the module, None where the verdict is on the optimizer as a whole.
        step: step of the optimizer.
        value: the number that was judged; NaN where the verdict is on no number.
        threshold: what it was held against, in the same unit.
        message: the verdict in words.
        cause: why, where it is known.
        time: Unix time of the step in seconds; NaN where it is not known.
        words: the line that a person is told, which also says what it follows from; see ``str``.
        remedy: what to do about just this, where no cause says it; empty where the rule's advice is all there is.
    """

    rule: str
    severity: Severity
    state: State
    optimizer: str
    module: str | None
    step: int
    value: float
    threshold: float
    message: str
    cause: Cause | None = None
    time: float = math.nan
    words: str = ""
    remedy: str = ""

    @property
    def title(self) -> str:
        """What is ill and where, such as ``"zero at actor_mlp"``."""
        return self.rule if self.module is None else f"{self.rule} at {called(self.module)}"

    def title_with(self, others: Collection[str | None]) -> str:
        """The title of several alerts of its rule: a second module is named, more are counted."""
        named = [other for other in others if other is not None]
        if len(others) == len(named) == 1:
            return f"{self.title} and {called(named[0])}"
        return self.title + (f" and {len(others)} more" if others else "")

    def __str__(self) -> str:
        """The line that a person is told, the same on every screen and in every file."""
        return self.words or self.line()

    def line(self, incident: Incident | None = None) -> str:
        """The line, where the alert belongs to an incident as a part of that; names in it are printable."""
        level = f"{self.severity.upper()} " if self.state == "firing" else ""
        began = math.nan if incident is None else incident.began
        head = f"{_MARKS[self.state]} {level}{self.title}, {_when(self, began)}"
        said = f"{self.message}." if self.state == "resolved" else " ".join(self._said(incident))
        return printable(f"{head}: {said}")

    def _said(self, incident: Incident | None) -> Iterator[str]:
        # What an explanation is of, its alert has said.
        if self.state == "firing" or self.cause is None:
            yield f"{self.message}."
        if self.state == "firing" and self.cause is None and self.remedy:
            yield self.remedy
        others = [] if incident is None else [alert for alert in incident.alerts if alert.key != self.key]
        if self.cause is not None:
            title = self.cause.title
            known = any(alert.cause is not None and alert.cause.title == title for alert in others)
            later = self.cause.evidence.get(SEEN_AT)
            seen = "" if later is None else f", as seen when it came again in step {later} of {self.optimizer}"
            yield (
                f"Cause{seen}: {title}, as before." if known else f"Cause{seen}: {self.cause}. {self.cause.remedy}"
            )
        root = incident.root if incident is not None and incident.alerts[0].key != self.key else None
        if root is not None and (self.cause is None or self.cause.title != root.title):
            yield f"It follows from {root.title}."

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What no two alerts that fire at a time have in common: rule, optimizer and module."""
        return self.rule, self.optimizer, self.module


@dataclass(frozen=True, slots=True)
class Incident:
    """Alerts that have one root, told as one story.

    Attributes:
        title: the root's cause and place; as long as no cause is known, what fires and where.
        alerts: all events, those of the root first, each episode's in their order.
        root: the cause that all of it comes from; None where it is not known.
        since: step of the root's optimizer at which it began.
        over: step of the last optimizer that was ill at which nothing of it fires any more; None while some does.
        began: Unix time in seconds at which the run began.
    """

    title: str
    alerts: tuple[Alert, ...]
    root: Cause | None
    since: int
    over: int | None
    began: float = math.nan

    @property
    def severity(self) -> Severity:
        """The worst of its alerts."""
        return "critical" if any(alert.severity == "critical" for alert in self.alerts) else "warning"

    @property
    def lasted(self) -> str:
        """From when to when, such as ``"since step 7 of actor (3 s), over at step 9 of actor"``."""
        over = "" if self.over is None else f", over at step {self.over} of {self.alerts[-1].optimizer}"
        return f"since {_when(self.alerts[0], self.began)}{over}"

    def __str__(self) -> str:
        """The story: what it is, then what happened, root first, a sentence each, then what to do."""
        head = f"{self.severity.upper()} {self.lasted}: {self.title}"
        to_do = (f"{'Then' if place else 'To do'}: {remedy}" for place, remedy in enumerate(self.remedies()))
        return printable("\n".join([head, *(f"  {line}" for line in (*self.events(), *to_do))]))

    def events(self) -> Iterator[str]:
        """A line for what each rule said; of modules that are ill for one reason the first, and how many more."""
        fired, causes = self._fired(), self._causes()
        told: dict[tuple[str, str, str], list[Alert]] = {}
        for key, alert in fired.items():
            why = causes[key].title if key in causes else f"{alert.step}"
            told.setdefault((alert.rule, alert.optimizer, why), []).append(alert)
        said = ""
        for first, *others in told.values():
            cause = causes.get(first.key)
            title = first.title_with([other.module for other in others])
            why = "" if cause is None or cause.title == said else f" Cause: {cause}."
            said = said if cause is None else cause.title
            yield f"{title}, {_when(first, self.began)}: {first.message}.{why}"

    def _fired(self) -> dict[tuple[str, str, str | None], Alert]:
        """Of each episode how it began, or how it became worse."""
        fired: dict[tuple[str, str, str | None], Alert] = {}
        for alert in self.alerts:
            known = fired.setdefault(alert.key, alert)
            if (alert.state, known.severity, alert.severity) == ("firing", "warning", "critical"):
                fired[alert.key] = alert
        return fired

    def _causes(self) -> dict[tuple[str, str, str | None], Cause]:
        return {alert.key: alert.cause for alert in self.alerts if alert.cause is not None}

    def remedies(self) -> list[str]:
        """What to do, a sentence for each cause; what helps in general where no cause says it."""
        remedies = dict.fromkeys(cause.remedy for cause in self._causes().values() if cause.remedy)
        return list(remedies or dict.fromkeys(filter(None, map(_advice, self.alerts))))


def _advice(alert: Alert) -> str:
    """What helps in general where no cause says it."""
    return alert.remedy or _ADVICE.get(alert.rule, "")


def _when(alert: Alert, began: float) -> str:
    after = alert.time - began
    return f"step {alert.step} of {alert.optimizer}" + (f" ({_lasting(after)})" if 0.0 <= after < math.inf else "")


def _lasting(seconds: float) -> str:
    """A time in the two units that matter."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{int(minutes)} min {seconds % 60:.0f} s" if hours < 1 else f"{int(hours)} h {minutes % 60:.0f} min"
