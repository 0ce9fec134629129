"""The rules, under the names that users write."""

from gradwatch.judge.clipping import ClipBroken
from gradwatch.judge.growth import Growth
from gradwatch.judge.magnitude import Explosion, NonFinite
from gradwatch.judge.overflow import ClipOverflow
from gradwatch.judge.ownership import Leaked, Stale
from gradwatch.judge.rule import Finding, Rule
from gradwatch.judge.saturation import ClipSaturated
from gradwatch.judge.silence import Zero
from gradwatch.judge.vanishing import Vanishing

__all__ = [
    "ClipBroken",
    "ClipOverflow",
    "ClipSaturated",
    "Explosion",
    "Finding",
    "Growth",
    "Leaked",
    "NonFinite",
    "Rule",
    "Stale",
    "Vanishing",
    "Zero",
    "default_rules",
]


def default_rules() -> list[Rule]:
    """A new set of the rules that need no tuning; each set remembers the run that it judges."""
    return [
        NonFinite(),
        Explosion(),
        Growth(),
        Vanishing(),
        Zero(),
        Stale(),
        Leaked(),
        ClipBroken(),
        ClipSaturated(),
        ClipOverflow(),
    ]
