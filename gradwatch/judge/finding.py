"""What a rule finds; whatever a rule of the user's gives is looked at before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gradwatch.records import Cause, Severity
from gradwatch.shapes import shortened

__all__ = ["Finding", "by_module"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong in one record.

    Attributes:
        module: the module it is about, None for the optimizer as a whole.
        value: the number that was judged; NaN where there is none.
        threshold: what it was held against.
        message: the verdict in words, without the names of the optimizer and of the rule.
        severity: where it differs from the rule's own.
        cause: why, where the record itself shows it.
        at_once: fire without waiting for the rule's ``fires_after``.
        critical_by: kinds of causes that leave no doubt: an alert that a look has explained by one is critical.
        remedy: one sentence: what to do, where no cause says it.
    """

    module: str | None
    value: float
    threshold: float
    message: str
    severity: Severity | None = None
    cause: Cause | None = None
    at_once: bool = False
    critical_by: frozenset[str] = frozenset()
    remedy: str = ""


def by_module(found: Iterable[object]) -> dict[str | None, Finding]:
    """What a rule has found, by module.

    Raises:
        TypeError: that is no finding, or has something in it that cannot be told.
    """
    findings = map(_checked, found)
    return {finding.module: finding for finding in findings}


def _checked(found: object) -> Finding:
    if not isinstance(found, Finding):
        raise TypeError(f"a Finding was expected, and {shortened(found)} was found")
    told = isinstance(found.message, str) and isinstance(found.remedy, str)
    words = told and (found.module is None or isinstance(found.module, str))
    if not words or found.severity not in (None, "warning", "critical"):
        raise TypeError(f"the module, the message or the severity is none in {shortened(found)}")
    cause = found.cause if found.cause is None else _checked_cause(found.cause)
    value, threshold = _number(found.value), _number(found.threshold)
    if cause is found.cause and value is found.value and threshold is found.threshold:
        return found
    return replace(found, cause=cause, value=value, threshold=threshold)


def _checked_cause(cause: object) -> Cause:
    if not isinstance(cause, Cause) or not isinstance(cause.evidence, Mapping):
        raise TypeError(f"a Cause was expected, and {shortened(cause)} was found")
    if not all(isinstance(words, str) for words in (cause.kind, cause.where, cause.remedy, *cause.evidence)):
        raise TypeError(f"what should be words is none in {shortened(cause)}")
    evidence = {name: n if isinstance(n, str) else _number(n) for name, n in cause.evidence.items()}
    return (
        cause
        if all(evidence[name] is n for name, n in cause.evidence.items())
        else replace(cause, evidence=evidence)
    )


# What is larger is told as a float; a number of ten thousand digits cannot be told at all.
_LARGEST_WHOLE = 1 << 63


def _number(value: Any) -> float:
    """A number as Python's own; numpy and torch have others."""
    if isinstance(value, float) or (isinstance(value, int) and -_LARGEST_WHOLE < value < _LARGEST_WHOLE):
        return value
    if isinstance(value, (str, bytes)):
        raise TypeError(f"a number was expected, and {shortened(value)} was found")
    return float(value)
