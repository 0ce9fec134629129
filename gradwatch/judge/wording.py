"""How names and ratios are put into a sentence."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed", "times"]


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def times(ratio: float) -> str:
    """How many times as large, in three digits: ``12.5``, ``20,700``; from ten million on ``1.23e+08``."""
    rounded = float(f"{ratio:.3g}")
    return f"{rounded:,.0f}" if 1e3 <= rounded < 1e7 else f"{rounded:.3g}"
