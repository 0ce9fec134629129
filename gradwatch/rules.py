"""The rules, under the names that users write."""

from gradwatch.judge.clipping import ClipBroken, ClipOverflow
from gradwatch.judge.magnitude import Explosion, NonFinite
from gradwatch.judge.rule import Finding, Rule
from gradwatch.judge.silence import Zero

__all__ = ["ClipBroken", "ClipOverflow", "Explosion", "Finding", "NonFinite", "Rule", "Zero", "default_rules"]


def default_rules() -> list[Rule]:
    """A new set of the rules that need no tuning; each set remembers the run that it judges."""
    return [NonFinite(), Explosion(), Zero(), ClipBroken(), ClipOverflow()]
