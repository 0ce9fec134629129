"""What to do about each kind of cause that the record of a step shows by itself.

The kinds that only a diagnostic backward can find have their remedies where it is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradwatch.records import Cause

__all__ = ["REMEDIES", "cause"]

REMEDIES: Mapping[str, str] = {
    "frozen": "Set requires_grad_(True) on it, or leave it out of the optimizer if it is meant to stay as it is.",
    "no-backward": "Call backward() on a loss that depends on it before the optimizer steps.",
    "zeroed": "Move zero_grad() before backward(), or out from between backward() and step().",
    "clipped-to-zero": "Raise the clipping limit, or find the one infinite gradient that makes the norm infinite.",
    "clip-overflow": "Scale the loss down, or clip by gradwatch.global_norm, which does not overflow.",
    "stale": "Call zero_grad() after each step and backward() before each step.",
    "leaked": "Call zero_grad() on this optimizer before its backward(), or freeze it in the other's loss.",
    "shortcut": "Cut the path around the silent module: detach what it passes by, or give it a limit of its own.",
}


def cause(kind: str, where: str, **evidence: float | int | str) -> Cause:
    """A cause with the remedy of its kind.

    Raises:
        KeyError: there is no such kind.
    """
    return Cause(kind, where, evidence, REMEDIES[kind])
