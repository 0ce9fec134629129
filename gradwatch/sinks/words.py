"""The same words for an alert wherever it is read."""

from __future__ import annotations

from gradwatch.records import Alert, Cause

__all__ = ["headline", "in_words"]

_MARKS = {"firing": "!", "explained": "?", "resolved": "+"}


def headline(alert: Alert) -> str:
    """What and where, such as ``"CRITICAL zero at actor/actor_mlp, step 12"``."""
    where = alert.optimizer if alert.module is None else f"{alert.optimizer}/{alert.module}"
    level = alert.severity.upper() if alert.state == "firing" else alert.state
    return f"{level} {alert.rule} at {where}, step {alert.step}"


def in_words(alert: Alert) -> str:
    """The alert as one line, with its cause and what to do; that is of no use any more once it is over."""
    why = "" if alert.cause is None or alert.state == "resolved" else f" {_why(alert.cause)}"
    return f"{_MARKS[alert.state]} {headline(alert)}: {alert.message}.{why}"


def _why(cause: Cause) -> str:
    """The kind, the place, the numbers that prove it and the remedy."""
    numbers = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in cause.evidence.items())
    proof = f" ({numbers})" if numbers else ""
    return f"Cause: {cause.kind} at {cause.where}{proof}. {cause.remedy}"


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
