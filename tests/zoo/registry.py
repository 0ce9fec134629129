"""What a planted fault and a healthy loop are, and the lists of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.zoo.run import Run

__all__ = [
    "FAULTS",
    "HEALTHY",
    "SEVERITIES",
    "Fault",
    "Healthy",
    "Verdict",
    "fault",
    "fault_and_repair",
    "healthy",
]

# In place of a module, where the fault is outside of every one.
ANYWHERE = "*"

# Of each rule, as the list of verdicts has it.
SEVERITIES: Mapping[str, str] = {
    "nonfinite": "critical",
    "explosion": "critical",
    "growth": "warning",
    "vanishing": "warning",
    "zero": "critical",
    "stale": "critical",
    "leaked": "warning",
    "lost": "critical",
    "diverged": "critical",
    "clip-broken": "critical",
    "clip-saturated": "warning",
    "clip-overflow": "critical",
}


@dataclass(frozen=True)
class Verdict:
    """An alert that must come, and its cause.

    Attributes:
        rule: id of the rule.
        cause: kind of the cause, or all that are right, divided by ``|``; None where none is asked for.
        module: the module that the alert is about; None for the optimizer as a whole, ``ANYWHERE`` for either.
        optimizer: name of the optimizer.
        where: where the cause may be said to be: module paths or operations; empty where that is not what it is about.
        severity: that the alert must have in the end; None for the rule's own.
        evidence: numbers of the cause that must agree with what the loop has measured by itself.
        exact: what must be in the evidence word by word.
        remedy: words that must occur in the remedy; of those divided by ``|``, one.
        asked: the cause is the one that ``watch.diagnose()`` gives of the module or parameter, in place of an alert's.
        recurs: the last cause counts, told soon after the fault was there again; else the first, after it first was.
    """

    rule: str
    cause: str | None = None
    module: str | None = None
    optimizer: str = "optimizer"
    where: tuple[str, ...] = ()
    severity: str | None = None
    evidence: tuple[str, ...] = ()
    exact: Mapping[str, object] = field(default_factory=dict)
    remedy: tuple[str, ...] = ()
    asked: bool = False
    recurs: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of cause that are right."""
        return () if self.cause is None else tuple(self.cause.split("|"))

    @property
    def worst(self) -> str:
        """The severity that the alert must have in the end."""
        return self.severity or SEVERITIES[self.rule]


@dataclass(frozen=True)
class Fault:
    """A training loop with a planted fault.

    Attributes:
        name: of the fault.
        loop: trains, and tells by its own means where the fault is to be seen.
        verdicts: what must be found.
        also: further rules whose alert is no mistake here.
    """

    name: str
    loop: Callable[[Run], None]
    verdicts: tuple[Verdict, ...]
    also: tuple[str, ...]


@dataclass(frozen=True)
class Healthy:
    """A training loop that has nothing wrong with it, and that may look as if.

    Attributes:
        name: of the loop.
        loop: trains, and proves that it has the trait that makes it hard to tell from an ill one.
        warnings: rule -> why a warning of it is right here.
    """

    name: str
    loop: Callable[[Run], None]
    warnings: Mapping[str, str] = field(default_factory=dict)


FAULTS: dict[str, Fault] = {}
HEALTHY: dict[str, Healthy] = {}

_Loop = Callable[[Run], None]


def fault(*verdicts: Verdict, also: tuple[str, ...] = ()) -> Callable[[_Loop], _Loop]:
    """Note a loop as one with a planted fault that must get these verdicts."""

    def note(loop: _Loop) -> _Loop:
        name = loop.__name__
        assert name not in FAULTS, f"two faults are called {name}"
        FAULTS[name] = Fault(name, loop, verdicts, also)
        return loop

    return note


def fault_and_repair(
    *verdicts: Verdict, also: tuple[str, ...] = (), **warnings: str
) -> Callable[[Callable[[Run, bool], None]], Callable[[Run, bool], None]]:
    """Note a loop as one with a planted fault, and with ``fixed=True`` as a healthy one: its repaired twin."""

    def note(loop: Callable[[Run, bool], None]) -> Callable[[Run, bool], None]:
        def ill(run: Run) -> None:
            loop(run, False)

        def repaired(run: Run) -> None:
            loop(run, True)

        ill.__name__, repaired.__name__ = loop.__name__, f"{loop.__name__}_repaired"
        fault(*verdicts, also=also)(ill)
        healthy(**warnings)(repaired)
        return loop

    return note


def healthy(**warnings: str) -> Callable[[_Loop], _Loop]:
    """Note a loop as a healthy one; ``rule="why"`` for a warning that is right all the same."""

    def note(loop: _Loop) -> _Loop:
        name = loop.__name__
        assert name not in HEALTHY, f"two healthy loops are called {name}"
        HEALTHY[name] = Healthy(name, loop, {rule.replace("_", "-"): why for rule, why in warnings.items()})
        return loop

    return note
