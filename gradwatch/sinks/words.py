"""The same words for an alert wherever it is read."""

from __future__ import annotations

from gradwatch.alerts import Alert

__all__ = ["in_words"]


def in_words(alert: Alert) -> str:
    """The line that a person is told, as the tracker worded it: it knows what the alert follows from."""
    return str(alert)
