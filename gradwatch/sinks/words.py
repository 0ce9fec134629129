"""The same words for an alert wherever it is read."""

from __future__ import annotations

from gradwatch.records import Alert

__all__ = ["headline", "in_words"]

_MARKS = {"firing": "!", "explained": "?", "resolved": "+"}


def headline(alert: Alert) -> str:
    """What and where, such as ``"CRITICAL zero at actor/actor_mlp, step 12"``."""
    where = alert.optimizer if alert.module is None else f"{alert.optimizer}/{alert.module}"
    level = alert.severity.upper() if alert.state == "firing" else alert.state
    return f"{level} {alert.rule} at {where}, step {alert.step}"


def in_words(alert: Alert) -> str:
    """The alert as one line."""
    cause = (
        "" if alert.cause is None else f" Cause: {alert.cause.kind} at {alert.cause.where}. {alert.cause.remedy}"
    )
    return f"{_MARKS[alert.state]} {headline(alert)}: {alert.message}.{cause}"
