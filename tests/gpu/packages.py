"""What a missing package forbids is left out by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable


def missing(packages: Iterable[str]) -> list[str]:
    """Those of the packages that cannot be imported here."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def reason(packages: Iterable[str]) -> str | None:
    """Why something cannot run here, None where it can."""
    names = missing(packages)
    return f"not installed here: {', '.join(names)}" if names else None
