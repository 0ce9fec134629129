"""What a finished diagnosis has found, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping

from gradwatch.printing import called
from gradwatch.records import Cause

__all__ = ["told"]


def told(passes: int, causes: Mapping[str, Cause], faint: Mapping[str, Cause]) -> str:
    """A line for each cause: the first of those that are ill by it and how many more, why, and what to do."""
    if not passes and not causes:
        return "No backward pass was looked at."
    head = f"{passes} backward {'pass' if passes == 1 else 'passes'} looked at"
    ill: dict[str, list[str]] = {}
    named = {**faint, **causes}
    # Modules stand before their parameters in what was found: the first name is the highest.
    for path in (*causes, *faint):
        ill.setdefault(named[path].title, []).append(path)
    if not ill:
        return f"{head}: no gradient is zero, missing, not finite or next to nothing."
    return "\n".join([f"{head}:", *(f"  {_line(paths, named)}" for paths in ill.values())])


def _line(paths: list[str], named: Mapping[str, Cause]) -> str:
    first, *others = dict.fromkeys(paths)
    more = f" and {len(others)} more" if others else ""
    return f"{called(first)}{more}: {named[first]}. {named[first].remedy}"
