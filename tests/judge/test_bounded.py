"""What rules remember stays bounded, whatever the run does."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gradwatch.judge.judge import Judge
from gradwatch.records import ClipCall, StepRecord
from gradwatch.rules import default_rules
from tests.judge.healthy import NAN, noisy, record_of
from tests.reachable import reachable_bytes

OPTIMIZERS = ("actor", "critic", "entropy")
EARLY, LATE = 3_000, 60_000

# What each optimizer goes through in 250 steps: from which step on, for how many, and what is so in a record then.
LIFE: list[tuple[int, int, dict[str, Any]]] = [
    (20, 3, {"stale": ("m0.weight",)}),
    (50, 3, {"leaked": ("m1.weight",)}),
    (80, 12, {"skipped": True, "nonfinite": ("m1.weight",)}),
    (110, 5, {"left_out": {"m2": ("m2.bias",)}}),
    (140, 2, {"clips": (ClipCall("clip_grad_norm_", 1.0, 2.0, 2.0, 2.0, 2.0),)}),
    (155, 5, {"lost_passes": 3, "backward_passes": 4}),
    (170, 2, {"clips": (ClipCall("clip_grad_norm_", 1.0, 2.0, math.inf, 1e30, 0.0),)}),
]


def records() -> Iterator[StepRecord]:
    """Optimizers take turns; each falls ill, gets well and falls ill again."""
    rng = random.Random(1)
    for count in range(1, LATE + 1):
        yield replace(lived(count // len(OPTIMIZERS), rng), optimizer=OPTIMIZERS[count % len(OPTIMIZERS)])


def lived(step: int, rng: random.Random) -> StepRecord:
    """Noise; at the beginning of each life an explosion, at its end, and for two steps before, one module that vanishes and one that is 0."""
    phase = step % 250
    level = noisy(rng, 1e4 if phase < 4 else 1.0, 0.2)
    norms = {"m0": level, "m1": noisy(rng, level, 0.5), "m2": 0.1 * level, "m3": 0.1 * level}
    if phase > 220 or phase in (200, 201):
        norms |= {"m2": noisy(rng, 1e-9, 0.1), "m3": rng.choice((0.0, NAN))}
    ills = [what for since, lasts, what in LIFE if since <= phase < since + lasts]
    # Each second step is measured.
    return record_of(2 * step, norms, 1e-3 if step % 1000 > 800 else 1.0, **(ills[0] if ills else {}))


def test_nothing_grows_between_a_thousand_steps_and_sixty_thousand_records() -> None:
    rules = default_rules()
    judge = Judge(rules)
    kept, saved, fired = {}, {}, Counter[str]()
    for count, record in enumerate(records(), 1):
        fired.update(alert.rule for alert in judge.judge(record) if alert.state == "firing")
        if count in (EARLY, LATE):
            # Without the record of the last step, which is as large as it is.
            kept[count] = reachable_bytes(judge, rules, but=(StepRecord,))
            saved[count] = len(json.dumps(judge.state_dict()))
    assert kept[EARLY] > 30_000
    assert kept[LATE] < 1.05 * kept[EARLY]
    assert saved[LATE] < 1.05 * saved[EARLY]
    # Ranks are not compared in these records. Norms that rise again and again and a module that is silent again and again are known from the first time on.
    often = {rule.id for rule in rules} - {"growth", "diverged"}
    assert all(fired[rule] > 50 for rule in often), fired
