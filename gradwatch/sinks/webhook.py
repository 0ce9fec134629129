"""Alerts as messages to a chat: one POST each, from a thread of gradwatch's own."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord

__all__ = ["Webhook"]

# Worth another try: too many requests, and what is wrong with the server.
_PASSING = frozenset([408, 425, 429, 500, 502, 503, 504])


class Webhook:
    """Posts each alert that fires, is explained or is resolved, as JSON that Slack, Mattermost and Discord show.

    ``text`` and ``content`` are the sentence of the console with the run before it; ``state`` is ``"firing"``,
    ``"explained"`` or ``"resolved"``; ``run``, ``rule``, ``severity``, ``optimizer``, ``module``, ``step`` and
    ``cause`` are there for programs. A message that is refused for a time is tried again, after 1 s, 2 s, 4 s;
    those that are lost are counted in ``lost``, and are failures of the sink.

    Args:
        url: where to post, http or https.
        least: ``"critical"``: warnings are left out.
        tries: for each message.
        timeout: seconds for each try.
    """

    FIRST_PAUSE = 1.0

    def __init__(self, url: str, *, least: str = "warning", tries: int = 4, timeout: float = 10.0) -> None:
        if not _is_http(url):
            raise ArgumentError(
                f"The webhook is {url!r}, but a URL that begins with http:// or https:// was expected."
            )
        if least not in ("warning", "critical"):
            raise ArgumentError(f'least is {least!r}, but "warning" or "critical" was expected.')
        self._url, self._tries, self._timeout = url, tries, timeout
        self._severities = {"critical"} if least == "critical" else {"critical", "warning"}
        self._run = ""
        self.lost = 0

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Note the run's name."""
        self._run, self.lost = run.run, 0

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Post each alert.

        Raises:
            SinkError: some did not arrive; the others were posted all the same.
        """
        due = [alert for alert in alerts if alert.severity in self._severities]
        failures = [self._failure(json.dumps(_message(self._run, alert)).encode()) for alert in due]
        lost = [failure for failure in failures if failure is not None]
        self.lost += len(lost)
        if lost:
            # The URL is a secret of the chat.
            raise SinkError(f"{len(lost)} of {len(due)} alerts did not reach the webhook: {lost[0]}.")

    def close(self) -> None:
        """Nothing is held open."""

    def _failure(self, body: bytes) -> str | None:
        """What went wrong in the end; None where it arrived."""
        for place in range(self._tries):
            pause, error = self._tried(body)
            if error is None or pause is None or place + 1 == self._tries:
                break
            time.sleep(pause or self.FIRST_PAUSE * 2**place)
        return error

    def _tried(self, body: bytes) -> tuple[float | None, str | None]:
        """How long to wait before another try, None for ever; and what went wrong, None where nothing did."""
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout):
                return 0.0, None
        except urllib.error.HTTPError as error:
            wait = error.headers.get("Retry-After", "0")
            pause = min(float(wait), self._timeout) if wait.isdecimal() else 0.0
            return pause if error.code in _PASSING else None, f"the server answered {error.code}"
        except HTTPException as error:
            return 0.0, f"the server does not speak HTTP ({type(error).__name__})"
        except OSError as error:
            return 0.0, f"it cannot be reached ({getattr(error, 'reason', error)})"


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # To ask for the port is to check it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _message(run: str, alert: Alert) -> dict[str, Any]:
    words = f"[{run}] {alert}"
    return {
        "text": words,
        "content": words[:2000],
        "run": run,
        "state": alert.state,
        "rule": alert.rule,
        "severity": alert.severity,
        "optimizer": alert.optimizer,
        "module": alert.module,
        "step": alert.step,
        "cause": None if alert.cause is None else alert.cause.title,
    }
