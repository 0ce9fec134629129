"""What an audit has found, for a reader and for a program."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from gradwatch.audit.auditing import Audit
from gradwatch.printing import printable

__all__ = ["as_json", "told"]

# Of each kind; a screen has no room for more, and --json has them all.
_BREACHES, _REMARKS, _UNDERSTOOD, _UNREAD = 3, 3, 2, 3


def told(audits: Sequence[Audit], width: int) -> list[str]:
    """At most a screen: what contradicts in any run, worst first, then how it was read."""
    several = len(audits) > 1
    lines = list(_head(audits))
    found = [
        (breach.factor, _in_run(audit, breach.message, several)) for audit in audits for breach in audit.breaches
    ]
    found.sort(key=lambda pair: -pair[0])
    lines += _listed("contradicts", [text for _, text in found], _BREACHES, width)
    by_run = [[_in_run(audit, text, several) for text in audit.remarks] for audit in audits]
    lines += _listed("remarks", _in_turn(by_run), _REMARKS, width)
    by_run = [[_in_run(audit, text, several) for text in audit.log.understood] for audit in audits]
    lines += _listed("read as", _in_turn(by_run), _UNDERSTOOD, width)
    unread = sorted({tag for audit in audits for tag in audit.log.unread})
    lines += _listed("not understood, not looked at", unread, _UNREAD, width)
    others = len({tag for audit in audits for tag in audit.log.others})
    return [*lines, f"not about norms of gradients: {_many(others, 'other tag')}"] if others else lines


def as_json(path: str, audits: Sequence[Audit]) -> str:
    """One object: ``path``, ``contradicts``, and ``runs`` with all that was found, read and not read."""
    runs = [
        {
            "run": audit.log.name,
            "form": audit.log.form,
            "steps": audit.steps,
            "norms": audit.norms,
            "contradictions": [_plain(asdict(breach)) for breach in audit.breaches],
            "remarks": list(audit.remarks),
            "read_as": audit.log.understood,
            "not_understood": audit.log.unread,
            "others": audit.log.others,
        }
        for audit in audits
    ]
    whole = {"path": path, "contradicts": any(audit.breaches for audit in audits), "runs": runs}
    return json.dumps(whole, allow_nan=False)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Infinity is a string, as in gradwatch's own JSONL: JSON lacks it."""
    return {
        name: "Infinity" if isinstance(value, float) and math.isinf(value) else value
        for name, value in fields.items()
    }


def _head(audits: Sequence[Audit]) -> Iterator[str]:
    steps, norms = sum(audit.steps for audit in audits), sum(audit.norms for audit in audits)
    runs = f", {len(audits)} runs" if len(audits) > 1 else ""
    wrong = sum(len(audit.breaches) for audit in audits)
    verdict = _many(wrong, "contradiction") if wrong else "nothing contradicts"
    looked_at = f"{_many(steps, 'step')}, {_many(norms, 'curve')} of norms looked at"
    yield f"{verdict}: {looked_at} ({audits[0].log.form}{runs})"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _in_run(audit: Audit, text: str, several: bool) -> str:
    return f"{audit.log.name}: {text}" if several else text


def _in_turn(by_run: Sequence[Sequence[str]]) -> list[str]:
    """The first of each run, then the second of each."""
    longest = max(map(len, by_run), default=0)
    return [texts[place] for place in range(longest) for texts in by_run if place < len(texts)]


def _listed(title: str, texts: Sequence[str], most: int, width: int) -> Iterator[str]:
    if not texts:
        return
    yield f"{title}:"
    for text in texts[:most]:
        yield from textwrap.wrap(
            printable(text), width, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
        )
    if len(texts) > most:
        yield f"  and {len(texts) - most} more, which --json lists"
