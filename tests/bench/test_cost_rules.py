"""What a look of all ten rules costs. Run with ``pytest -m bench -s``."""

from __future__ import annotations

import time

import pytest

from gradwatch.judge.judge import Judge
from gradwatch.rules import default_rules
from tests.judge.healthy import HEALTHY, record_of, records

MODULES = 10


def microseconds(judge: Judge, made: list) -> float:
    """Per record, the best of several runs: another process may take the core meanwhile."""
    best = float("inf")
    for start in range(0, len(made), 500):
        begun = time.perf_counter()
        for record in made[start : start + 500]:
            judge.judge(record)
        best = min(best, time.perf_counter() - begun)
    return best / 500 * 1e6


@pytest.mark.bench
def test_all_rules_on_ten_modules() -> None:
    steps = [sum(norms.values()) for norms, _ in zip(HEALTHY["steady"][0](1), range(5000), strict=False)]
    healthy = [record_of(i, {f"m{m}": norm for m in range(MODULES)}, 1.0) for i, norm in enumerate(steps, 1)]
    ill = [
        record_of(i, {f"m{m}": norm * (m > 0) for m in range(MODULES)}, 1e-3) for i, norm in enumerate(steps, 1)
    ]
    heads = list(records(HEALTHY["five heads drawn"][0](1), 1.0, 5000))
    for name, made in (("healthy", healthy), ("one module dead, clipping saturated", ill), ("heads drawn", heads)):
        judge = Judge(default_rules())
        early = microseconds(judge, made[:2500])
        late = microseconds(judge, made[2500:])
        print(f"\n{name}: {early:.1f} us a step, later {late:.1f}")
        assert late < 3 * early
