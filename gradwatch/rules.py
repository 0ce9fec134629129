"""The rules, under the names that users write."""

from gradwatch.judge.clip_broken import ClipBroken
from gradwatch.judge.clip_overflow import ClipOverflow
from gradwatch.judge.clip_saturated import ClipSaturated
from gradwatch.judge.diverged import Diverged
from gradwatch.judge.explosion import Explosion
from gradwatch.judge.growth import Growth
from gradwatch.judge.leaked import Leaked
from gradwatch.judge.lost import Lost
from gradwatch.judge.nonfinite import NonFinite
from gradwatch.judge.rule import Finding, Rule
from gradwatch.judge.stale import Stale
from gradwatch.judge.vanishing import Vanishing
from gradwatch.judge.zero import Zero

__all__ = [
    "ClipBroken",
    "ClipOverflow",
    "ClipSaturated",
    "Diverged",
    "Explosion",
    "Finding",
    "Growth",
    "Leaked",
    "Lost",
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
        Lost(),
        Diverged(),
        ClipBroken(),
        ClipSaturated(),
        ClipOverflow(),
    ]
