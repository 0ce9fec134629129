"""What a rule is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Protocol, TypeGuard, runtime_checkable

from gradwatch.blocks import Block
from gradwatch.judge.finding import Finding
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.shapes import Named

__all__ = [
    "Ending",
    "Finding",
    "GoingOn",
    "Remembering",
    "Rule",
    "Screening",
    "Suspecting",
    "ToldOfRefusals",
    "Weighing",
    "goes_on",
    "may_be_shortcut",
    "screens",
    "severities",
    "shape_of",
    "wants_cause",
]


class Rule(Protocol):
    """Looks at each record once, in order. A rule of one's own is a class with these and one method.

    Attributes:
        id: name of the rule in alerts.
        severity: ``"warning"`` or ``"critical"``.
        fires_after: findings in a row before an alert fires.
        clears_after: records in a row without a finding before it is resolved.

    A finding may be more severe than the alert that it finds open: the alert is then resolved, and fires again as
    the critical one.

    A rule may also have ``severities``, all those that its findings may have, where ``severity`` is not the only
    one; ``wants_cause = True``, if a diagnostic backward should look for the cause of an alert that has none; and
    ``may_be_shortcut = True``, if a loss that reaches one module around another may be the cause.
    """

    id: str
    severity: Severity
    fires_after: int
    clears_after: int

    def look(self, record: StepRecord) -> Iterable[Finding] | None:
        """What is wrong in this record; nothing where all is well, None where the record cannot tell.

        A record that cannot tell, such as that of a skipped step, counts neither as ill nor as healthy.
        """


class Screening(Rule, Protocol):
    """A rule that also looks at steps together, and finds in them what it finds in their records one by one."""

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step from ``start`` on that may be ill, and take all of them in.

        It is asked only while no episode of the rule and the optimizer is open.

        Returns:
            The index of that step, and what ``look`` finds there; ``len(block)`` and nothing where there is none.
        """


class GoingOn(Screening, Protocol):
    """One whose alerts may fire for long, and which then also looks at steps together."""

    def look_on(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step from ``start`` on at which not all is as it was, and take all of them in.

        It is asked only where every episode of the rule and the optimizer fires with its cause, if it has one at
        hand; nothing was well at the step before, and one more that is ill changes nothing.

        Returns:
            As ``look_over``.
        """


@runtime_checkable
class Ending(Protocol):
    """A rule whose episodes may end without anything being well again."""

    def ended(self, optimizer: str) -> str:
        """How it is now, in the words of the alert that is over; empty where all is well again."""


@runtime_checkable
class Remembering(Protocol):
    """A rule with a memory that a resumed run should go on with.

    It may have ``remembers``, the shape of its state, which is then checked before anything is taken. Otherwise it
    refuses by raising; the others are then put back as they were.
    """

    id: str

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain values: those that JSON can hold."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember it again, and nothing else."""


@runtime_checkable
class Suspecting(Protocol):
    """A rule that cannot tell by the records alone what is ill, and asks for a look at the graph.

    Attributes:
        id: name of the rule in alerts.
        is_settled: whether it has seen enough to say what it suspects; until then each step is judged at once.
    """

    id: str

    @property
    def is_settled(self) -> bool:
        """Whether it has seen enough."""

    def suspects(self, optimizer: str) -> tuple[str, ...]:
        """The modules that a look shall tell of."""

    def answered(self, optimizer: str, causes: Mapping[str, Cause]) -> None:
        """What it has found of them, by module; what it has found nothing of is suspected no more."""


@runtime_checkable
class Weighing(Protocol):
    """A rule that knows more of its modules than one look has seen of them."""

    def weighed(self, optimizer: str, module: str | None, cause: Cause) -> Cause:
        """The cause that a look has found, or what is left of it."""


@runtime_checkable
class ToldOfRefusals(Protocol):
    """A rule whose findings are graver where a guard ends the loop."""

    def was_refused(self, optimizer: str, step: int) -> None:
        """An error is raised in the place of this step, which is judged next."""


def screens(rule: Rule) -> TypeGuard[Screening]:
    """Whether it is a ``Screening``, whose ``look`` no subclass has changed behind the back of ``look_over``."""
    return _is_last_to_be_changed(rule, "look_over", {"look"})


def goes_on(rule: Rule) -> TypeGuard[GoingOn]:
    """Whether it is a ``GoingOn``, whose other looks no subclass has changed behind the back of ``look_on``."""
    return _is_last_to_be_changed(rule, "look_on", {"look", "look_over"})


def _is_last_to_be_changed(rule: Rule, name: str, others: Set[str]) -> bool:
    for kind in type(rule).__mro__:
        if name in vars(kind):
            return True
        if not others.isdisjoint(vars(kind)):
            return False
    return False


def shape_of(rule: Rule) -> Named | None:
    """The shape of its state by optimizer, unless a subclass has changed the state behind the back of it."""
    for kind in type(rule).__mro__:
        if "remembers" in vars(kind):
            shape: Named = vars(kind)["remembers"]
            return shape
        if "state_dict" in vars(kind) or "load_state_dict" in vars(kind):
            return None
    return None


def severities(rule: Rule) -> tuple[Severity, ...]:
    """All that its findings may have."""
    told: tuple[Severity, ...] = getattr(rule, "severities", (rule.severity,))
    return told


def wants_cause(rule: Rule) -> bool:
    """Whether a diagnostic backward should look for the cause of its alerts."""
    return bool(getattr(rule, "wants_cause", False))


def may_be_shortcut(rule: Rule) -> bool:
    """Whether its alerts may come from a loss that reaches one module around another."""
    return bool(getattr(rule, "may_be_shortcut", False))
