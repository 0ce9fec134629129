"""What a judge is saved as: held against its shape wholly before any of it is taken."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradwatch.judge.episodes import Episode
from gradwatch.judge.rule import Remembering, Rule, shape_of
from gradwatch.shapes import PLAIN, Fields, Listed, MisfitError, Named, shortened

__all__ = ["JUDGE", "check_rules", "memory_of", "remind"]

log = logging.getLogger("gradwatch")

JUDGE = Fields(episodes=Listed(Episode.remembers), rules=Named(PLAIN))


def check_rules(
    rules: Iterable[Rule], saved: Mapping[str, Any], optimizers: frozenset[str] | None, at: str
) -> None:
    """Hold what is saved of each rule against what that rule says of it; of others it need be plain only.

    Raises:
        MisfitError: it is not like that, or of other optimizers.
    """
    for rule in rules:
        shape = shape_of(rule)
        if shape is not None and rule.id in saved:
            Named(shape.shape, optimizers).check(saved[rule.id], f"{at}[{rule.id!r}]")


def memory_of(rule: Remembering) -> Any:
    """What a rule remembers; a copy, so that the rule may go on.

    Raises:
        MisfitError: it is nothing that can be saved.
    """
    remembered = rule.state_dict()
    PLAIN.check(remembered, f"The state of the rule {shortened(rule.id)}")
    return _copied(remembered)


def remind(rules: Sequence[Remembering], saved: Mapping[str, Any]) -> None:
    """Let rules remember what is saved of them: all, or none of them.

    Raises:
        MisfitError: one does not take it; those before it are as they were.
    """
    before: list[tuple[Remembering, Any]] = []
    for rule in rules:
        try:
            before.append((rule, memory_of(rule)))
            rule.load_state_dict(_copied(saved[rule.id]))
        except Exception as error:
            for known, remembered in before:
                _put_back(known, remembered)
            raise MisfitError(
                f"The rule {shortened(rule.id)} does not take what is saved of it ({shortened(error)})"
            ) from error


def _put_back(rule: Remembering, remembered: Any) -> None:
    try:
        rule.load_state_dict(remembered)
    except Exception:
        log.exception("The rule %r does not take back what it remembered a moment ago.", rule.id)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(entry) for name, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, (list, tuple)) else value
