"""What rules remember stays bounded, whatever the run does."""

from __future__ import annotations

import json
import math
import random
import sys
from typing import Any

from gradwatch.judge.judge import Judge
from gradwatch.records import StepRecord
from gradwatch.rules import default_rules
from tests.judge.healthy import NAN, record_of


def wild(step: int, rng: random.Random) -> StepRecord:
    """Ten modules that grow, die, come back, explode and are skipped."""
    level = math.exp(3 * math.sin(step / 300) + rng.gauss(0, 1)) * (1e4 if step % 997 < 4 else 1.0)
    norms = {f"m{i}": level * rng.choice((1.0, 1.0, 1.0, 1e-9, 0.0, NAN)) for i in range(10)}
    other: dict[str, Any] = {"stale": ("m0.weight",)} if step % 501 == 0 else {}
    other.update({"skipped": True, "nonfinite": ("m1.weight",)} if step % 211 < 12 else {})
    return record_of(step, norms, 1.0, **other)


def size_of(value: object, seen: set[int]) -> int:
    """Bytes of all that can be reached from it, but for the record of the last step and classes."""
    if id(value) in seen or isinstance(value, (StepRecord, type)):
        return 0
    seen.add(id(value))
    inner = list(value.items()) if isinstance(value, dict) else []
    members = [member for pair in inner for member in pair]
    if not isinstance(value, (str, bytes, dict)) and hasattr(value, "__iter__"):
        members += list(value)
    members += list(getattr(value, "__dict__", {}).values())
    members += [getattr(value, name, None) for name in getattr(value, "__slots__", ())]
    return sys.getsizeof(value) + sum(size_of(member, seen) for member in members)


def test_nothing_grows_between_a_thousand_steps_and_a_hundred_thousand() -> None:
    rules, rng = default_rules(), random.Random(1)
    judge = Judge(rules)
    bytes_at, state_at = {}, {}
    for step in range(1, 100_001):
        judge.judge(wild(step, rng) if step <= 1000 or step > 99_000 or step % 10 == 0 else _plain(step))
        if step in (1000, 100_000):
            bytes_at[step] = size_of([judge, *rules], set())
            state_at[step] = len(json.dumps(judge.state_dict()))
    assert bytes_at[1000] > 10_000
    assert bytes_at[100_000] < 1.1 * bytes_at[1000]
    assert state_at[100_000] < 1.1 * state_at[1000]


_PLAIN = record_of(1, {f"m{i}": 1.0 for i in range(10)}, 1.0)


def _plain(step: int) -> StepRecord:
    return _PLAIN
