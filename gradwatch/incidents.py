"""Which alerts have one root, and the story that they make.

Two episodes are of one incident where the one shows what the other comes from, and they overlap in time:

- their causes are one: the same kind at the same place, in whichever optimizer;
- the one is explained by a path around a module, the silence of which is what the other tells of;
- the one is what a clip call met, a limit that leaves nothing, or a gradient that is never zeroed, and the other
  what came of that;
- the one is an explosion, and the other an overflow at a later step, before the explosion is over: numbers have
  grown beyond the range of a type as wide as float32. NaN and Inf of another making (a logarithm of 0, data, a
  type as narrow as float16) may have come without it, and are another incident;
- they judge the same numbers of one optimizer: a module and a part of it, by rules on one scale, or a norm before
  clipping and, from then on, what clipping leaves of it;
- the same rule found them in the same step, and neither has a cause yet that tells them apart.

What has two different causes is two incidents, unless one of the causes is the other's silence. What merely comes
at the same time is not joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gradwatch.alerts import Alert, Cause, Incident
from gradwatch.causes import AS_WIDE_AS_FLOAT32

__all__ = ["Incidents"]

# Rules on one scale: what they find in the same gradient is one trouble.
_SCALES = {"zero": "small", "vanishing": "small", "explosion": "large", "growth": "large"}

# What a large norm before clipping leads to: the ratio is the limit divided by it.
_AFTER_LARGE = frozenset(["clip-saturated", "clip-overflow"])

# Kind and number of a cause: an update has overflowed. What was NaN may have been divided by nothing.
_INFINITE_WEIGHT = ("nonfinite-weights", "Inf")


@dataclass
class _Episode:
    """An alert from its firing to its end, by its events."""

    events: list[Alert]

    @property
    def fired(self) -> Alert:
        return self.events[0]

    @property
    def cause(self) -> Cause | None:
        """The newest that was told; what is unknown tells nothing apart."""
        told = (alert.cause for alert in reversed(self.events) if alert.cause is not None)
        newest = next(told, None)
        return None if newest is None or newest.kind == "unknown" else newest

    @property
    def is_open(self) -> bool:
        return self.events[-1].state != "resolved"


@dataclass
class Incidents:
    """Takes alerts as they come, and joins those that have one root.

    Args:
        began: Unix time in seconds at which the run began.
        most: incidents of long ago that are kept; None for all of them.

    Attributes:
        forgotten: the number of those that are not kept.
    """

    # Ended episodes that a later alert may still turn out to belong to.
    REMEMBERED = 32

    began: float = math.nan
    most: int | None = None
    forgotten: int = 0
    _recent: list[_Episode] = field(default_factory=list)
    _past: list[Incident] = field(default_factory=list)

    def take(self, alert: Alert) -> Alert:
        """One more event, given back in the words that it has as a part of its incident."""
        episode = next((one for one in reversed(self._recent) if one.is_open and one.fired.key == alert.key), None)
        if episode is None or alert.state == "firing":
            episode = _Episode([])
            self._recent.append(episode)
        episode.events.append(alert)
        if not alert.words:
            line = alert.line(self._told(_joined_with(episode, self._recent)))
            alert = episode.events[-1] = replace(alert, words=line)
        self._let_go()
        return alert

    def all(self) -> list[Incident]:
        """All so far, the newest last."""
        return [*self._past, *(self._told(group) for group in _groups(self._recent))]

    def active(self) -> list[Incident]:
        """Those of which something fires now."""
        return [incident for incident in self.all() if incident.over is None]

    def _let_go(self) -> None:
        """What is over for long is told for good."""
        over = [group for group in _groups(self._recent) if not any(episode.is_open for episode in group)]
        for group in over:
            if sum(map(len, over)) <= self.REMEMBERED:
                break
            self._past.append(self._told(group))
            if self.most is not None and len(self._past) > self.most:
                del self._past[0]
                self.forgotten += 1
            self._recent = [episode for episode in self._recent if episode not in group]
            over = over[1:]

    def _told(self, episodes: list[_Episode]) -> Incident:
        # What another leads to comes behind it, whatever fired first.
        ordered = sorted(episodes, key=lambda e: (any(_leads_to(a, e) for a in episodes), e.fired.step))
        first, root = ordered[0].fired, ordered[0].cause
        others = {e.fired.module for e in ordered if e.fired.rule == first.rule} - {first.module}
        return Incident(
            title=first.title_with(others) if root is None else root.title,
            alerts=tuple(event for episode in ordered for event in episode.events),
            root=root,
            since=first.step,
            over=None if any(e.is_open for e in ordered) else max(e.events[-1].step for e in ordered),
            began=self.began,
        )


def _groups(episodes: Iterable[_Episode]) -> list[list[_Episode]]:
    """Those that belong together, in the order in which they began."""
    waiting, groups = list(episodes), []
    while waiting:
        groups.append(_joined_with(waiting[0], waiting))
        waiting = [one for one in waiting if not any(one is other for other in groups[-1])]
    return groups


def _joined_with(episode: _Episode, others: Iterable[_Episode]) -> list[_Episode]:
    """An episode and all that belong to it, directly or by way of others, in the order in which they began."""
    others = list(others)
    found, waiting = [episode], [other for other in others if other is not episode]
    for one in found:
        found += [other for other in waiting if _of_one_root(one, other)]
        waiting = [other for other in waiting if not any(other is known for known in found)]
    return [one for one in others if any(one is known for known in found)]


def _of_one_root(one: _Episode, other: _Episode) -> bool:
    if not _overlap(one, other):
        return False
    if _leads_to(one, other) or _leads_to(other, one):
        return True
    a, b = one.fired, other.fired
    if one.cause is not None and other.cause is not None:
        return one.cause.title == other.cause.title
    if a.optimizer != b.optimizer:
        return False
    if one.cause is None and other.cause is None and (a.rule, a.step) == (b.rule, b.step):
        return True
    return _scale(a) == _scale(b) and _is_within_one_another(a.module, b.module)


def _leads_to(one: _Episode, other: _Episode) -> bool:
    """Whether what one tells of is where the other comes from."""
    a, b = one.fired, other.fired
    if one is other or a.optimizer != b.optimizer:
        return False
    if other.cause is not None and other.cause.kind == "shortcut":
        silent = str(other.cause.evidence.get("silent", ""))
        return _scale(a) == "small" and _is_within_one_another(a.module, silent)
    if a.rule == "explosion" and b.rule == "nonfinite":
        return a.step < b.step and other.cause is not None and _is_overflow(other.cause)
    if _left_nothing(one) and b.rule == "clip-saturated":
        return a.step <= b.step and b.value == 0.0
    if other.cause is not None and other.cause.kind != b.rule:
        return _is_what_clipping_met(one, other.cause)
    if _scale(a) == "large":
        return b.rule in _AFTER_LARGE and a.step <= b.step
    return _is_never_zeroed(one) and (_scale(b) == "large" or b.rule in _AFTER_LARGE) and a.step <= b.step


def _is_what_clipping_met(one: _Episode, cause: Cause) -> bool:
    """Whether the other was erased by clipping because of this: a norm that is not finite, or that overflowed."""
    if cause.kind == one.fired.rule == "clip-overflow":
        return True
    returned = cause.evidence.get("norm_returned")
    erased = cause.kind in ("clipped-to-zero", "clip-overflow") and isinstance(returned, float)
    return one.fired.rule == "nonfinite" and erased and not math.isfinite(float(returned or 0.0))


def _is_overflow(cause: Cause) -> bool:
    """Whether numbers have grown, in an operation or an update, beyond a range that nothing usual comes near."""
    grown = "largest_of_type" in cause.evidence or (cause.kind, cause.evidence.get("largest")) == _INFINITE_WEIGHT
    return grown and cause.evidence.get("dtype") in AS_WIDE_AS_FLOAT32


def _left_nothing(one: _Episode) -> bool:
    """Whether the limit of a clip call is so low that each gradient is erased."""
    if one.cause is None or one.cause.kind != "clipped-to-zero":
        return False
    returned = one.cause.evidence.get("norm_returned", 0.0)
    return isinstance(returned, float) and math.isfinite(returned)


def _is_never_zeroed(one: _Episode) -> bool:
    """Whether each gradient is the sum of all before it, so that its norm and what clipping takes of it grow."""
    passes = one.cause.evidence.get("backward_passes") if one.cause is not None else None
    return one.fired.rule == "leaked" and isinstance(passes, int) and passes < 2


def _scale(alert: Alert) -> str:
    return _SCALES.get(alert.rule, alert.rule)


def _is_within_one_another(one: str | None, other: str | None) -> bool:
    """Whether one is the other or a part of it; all are parts of the optimizer as a whole."""
    if one is None or other is None:
        return True
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _overlap(one: _Episode, other: _Episode) -> bool:
    """Whether both were ill at a time; between two optimizers, whose steps differ, by the clock."""
    same = one.fired.optimizer == other.fired.optimizer
    first, second = sorted((one, other), key=lambda e: e.fired.step if same else e.fired.time)
    if first.is_open:
        return True
    ended, began = first.events[-1], second.fired
    return began.step <= ended.step if same else not began.time > ended.time
