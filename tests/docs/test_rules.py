"""The page on rules agrees with the classes: every rule, its severity and its thresholds."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gradwatch.causes import REMEDIES
from gradwatch.judge.rule import Rule
from gradwatch.rules import default_rules

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("rule", default_rules(), ids=lambda rule: rule.id)
def test_each_rule_has_its_section(rule: Rule) -> None:
    section = SECTIONS[rule.id]
    signature = ", ".join(f"{p.name}={p.default!r}" for p in inspect.signature(type(rule)).parameters.values())
    one_line = " ".join(section.split())
    signature = signature.replace("100000000.0", "1e8")
    assert f"**Class:** `{type(rule).__name__}({signature})`, {rule.severity}" in one_line
    for part in ("**Fires when:**", "**Clears when:**", "**What to do:**"):
        assert section.count(part) == 1
    clears = one_line.split("**Clears when:**")[1].split("**What to do:**")[0]
    assert re.search(rf"\b{rule.clears_after} steps in a row", clears)


def test_no_section_is_of_a_rule_that_is_not_there() -> None:
    assert set(SECTIONS) == {rule.id for rule in default_rules()}


def test_every_cause_at_hand_is_listed() -> None:
    table = PAGE.split("## Causes that are at hand")[1]
    listed = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert set(listed) <= set(REMEDIES)
    assert listed == [
        "frozen", "not-in-optimizer", "no-backward", "zeroed", "clipped-to-zero", "clip-overflow", "stale", "leaked",
        "shortcut",
    ]  # fmt: skip
