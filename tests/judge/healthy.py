"""Norms of loops in which nothing is wrong, and that look ill: made up, with fixed seeds.

Each function gives, step by step, the norm of every module before clipping; NaN is a missing gradient.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping

from gradwatch.records import ClipCall, GroupNorms, StepRecord

Norms = dict[str, float]
NAN = math.nan


def records(
    steps: Iterator[Norms], limit: float | None = None, count: int = 10**9, **other: object
) -> Iterator[StepRecord]:
    """The records of such a loop, clipped by torch to the limit."""
    for step, norms in enumerate(itertools.islice(steps, count), 1):
        yield record_of(step, norms, limit, **other)


def record_of(step: int, norms: Norms, limit: float | None = None, **other: object) -> StepRecord:
    before = math.sqrt(sum(norm * norm for norm in norms.values() if not math.isnan(norm)))
    missing = tuple(name for name, norm in norms.items() if math.isnan(norm))
    factor = 1.0 if limit is None or before <= limit else limit / before
    after = before * factor
    table = {name: GroupNorms(norm, norm * factor) for name, norm in norms.items()}
    values: dict[str, object] = {
        "max_norm": limit,
        "clipped": factor < 1.0,
        "clips": () if limit is None else (ClipCall("clip_grad_norm_", limit, 2.0, before, before, after),),
        "modules": table,
        "parameters": {f"{name}.weight": pair for name, pair in table.items()},
        "missing": tuple(f"{name}.weight" for name in missing),
        "missing_modules": missing,
        "unwritten": tuple(f"{name}.weight" for name in missing),
        **other,
    }
    return StepRecord("agent", step, float(step), before, after, after / before if before else 1.0, **values)  # type: ignore[arg-type]


def noisy(random: random.Random, level: float, sigma: float) -> float:
    return level * math.exp(random.gauss(0.0, sigma))


def steady(seed: int, sigma: float = 0.5, level: float = 1.0) -> Iterator[Norms]:
    rng = random.Random(seed)
    while True:
        yield {name: noisy(rng, level * scale, sigma) for name, scale in (("body", 1.0), ("head", 0.3))}


def heavy_tailed(seed: int) -> Iterator[Norms]:
    """Reinforcement learning: Student's t with 3 degrees of freedom on top of a wide lognormal."""
    rng = random.Random(seed)
    while True:
        wild = abs(rng.gauss(0, 1)) / math.sqrt(rng.gammavariate(1.5, 2.0) / 3)
        common = noisy(rng, 1.0, 1.0) * (0.1 + wild)
        yield {"actor": common * noisy(rng, 0.3, 0.3), "critic": common}


def large(seed: int) -> Iterator[Norms]:
    return steady(seed, 0.3, 500.0)


def warm_up_spikes(seed: int) -> Iterator[Norms]:
    """Norms 30 times the usual in the first steps and at times later, for a step or two."""
    rng = random.Random(seed)
    for step in itertools.count(1):
        spike = 30.0 if step <= 3 or rng.random() < 0.003 else 1.0
        yield {"body": noisy(rng, spike, 0.4), "head": noisy(rng, 0.3 * spike, 0.4)}


def converging(seed: int) -> Iterator[Norms]:
    """Down to 1e-6 over some thousand steps, one module always with a thousandth of the whole."""
    rng = random.Random(seed)
    for step in itertools.count(1):
        level = max(1e-6, math.exp(-step / 200))
        yield {"body": noisy(rng, level, 0.3), "norm": noisy(rng, level * 1e-3, 0.3)}


def to_exactly_zero(seed: int) -> Iterator[Norms]:
    """A small data set is learned by heart: ever smaller, then exactly 0 for good."""
    rng = random.Random(seed)
    for step in itertools.count(1):
        level = math.exp(-step / 20)
        yield {name: noisy(rng, level, 0.5) if level > 1e-9 else 0.0 for name in ("body", "head")}


def satisfied_at_times(seed: int) -> Iterator[Norms]:
    """A hinge loss: more and more batches violate no margin, and give no gradient at all."""
    rng = random.Random(seed)
    for step in itertools.count(1):
        violated = rng.random() < max(0.05, math.exp(-step / 500))
        yield {name: noisy(rng, 1.0, 0.5) if violated else 0.0 for name in ("body", "head")}


def heads_drawn(seed: int, heads: int = 5, absent: float = NAN) -> Iterator[Norms]:
    rng = random.Random(seed)
    names = [f"head{i}" for i in range(heads)]
    while True:
        drawn = rng.choice(names)
        yield {
            "trunk": noisy(rng, 1.0, 0.5),
            **{name: noisy(rng, 0.3, 0.5) if name == drawn else absent for name in names},
        }


def heads_in_turn(seed: int, absent: float = NAN, every: int = 2) -> Iterator[Norms]:
    rng = random.Random(seed)
    for step in itertools.count():
        present = step % every
        yield {
            "trunk": noisy(rng, 1.0, 0.5),
            **{f"head{i}": noisy(rng, 0.3, 0.5) if i == present else absent for i in range(every)},
        }


def auxiliary_loss(seed: int) -> Iterator[Norms]:
    """Computed in every eighth step only."""
    rng = random.Random(seed)
    for step in itertools.count():
        yield {"body": noisy(rng, 1.0, 0.5), "auxiliary": noisy(rng, 1.0, 0.5) if step % 8 == 0 else NAN}


def low_rank(seed: int) -> Iterator[Norms]:
    """LoRA: B starts from 0, so that A has no gradient in the first step and a growing one after it."""
    rng = random.Random(seed)
    for step in itertools.count():
        grown = 1 - math.exp(-step / 100)
        yield {"A": noisy(rng, grown, 0.3) if step else 0.0, "B": noisy(rng, 1.0, 0.3)}


def restarts(seed: int) -> Iterator[Norms]:
    """Learning-rate restarts: down by a factor of five in a cycle of 400 steps, and back at once."""
    rng = random.Random(seed)
    for step in itertools.count():
        level = math.exp(-math.log(5) * (step % 400) / 400)
        yield {"body": noisy(rng, level, 0.4), "head": noisy(rng, 0.2 * level, 0.4)}


def oscillating(seed: int, period: int = 300) -> Iterator[Norms]:
    """A GAN: up and down by a factor of 30."""
    rng = random.Random(seed)
    for step in itertools.count():
        level = math.exp(1.7 * math.sin(2 * math.pi * step / period))
        yield {"body": noisy(rng, level, 0.4), "head": noisy(rng, 0.5 * level, 0.4)}


def drifting(seed: int) -> Iterator[Norms]:
    """A random walk of the logarithm, held near 0."""
    rng = random.Random(seed)
    walk = 0.0
    while True:
        walk = 0.995 * walk + rng.gauss(0.0, 0.08)
        yield {"body": noisy(rng, math.exp(walk), 0.3), "head": noisy(rng, 0.3, 0.3)}


def rollouts(seed: int) -> Iterator[Norms]:
    """PPO: each batch of experience brings a value loss of its own, small or large, which falls while it is reused."""
    rng = random.Random(seed)
    for rollout in itertools.count():
        level = 200.0 * math.exp(-rollout / 2) if rollout < 8 else noisy(rng, 20.0, 1.0)
        for step in range(160):
            reused = 0.3 + 0.7 * math.exp(-step / 20)
            yield {"policy": noisy(rng, 0.3, 0.3), "value": noisy(rng, level * reused, 0.3)}


def sparse_units(seed: int) -> Iterator[Norms]:
    """60 % of the units are silent for a sample, an embedding's rows for most: norms are small, and not 0."""
    rng = random.Random(seed)
    while True:
        yield {"embedding": noisy(rng, 0.01, 1.0), "body": noisy(rng, 0.4, 0.5)}


def often_clipped(seed: int) -> Iterator[Norms]:
    return steady(seed, 0.8, 0.65)


def leaving_a_plateau(seed: int) -> Iterator[Norms]:
    """A transformer from its own initialisation under a warm-up: quiet, then thirty times that, and as wide again."""
    rng = random.Random(seed)
    for step in itertools.count():
        left = min(max((step - 80) / 60, 0.0), 1.0)
        yield {"body": noisy(rng, 0.5 * 30**left, 0.2 + 0.6 * left), "head": noisy(rng, 0.3 * 20**left, 0.3)}


HEALTHY: Mapping[str, tuple[Callable[[int], Iterator[Norms]], float | None]] = {
    "steady": (steady, 10.0),
    "heavy tails": (heavy_tailed, 1.0),
    "large and steady": (large, None),
    "large and clipped to a tenth": (large, 50.0),
    "warm-up spikes": (warm_up_spikes, 1.0),
    "converging": (converging, 1.0),
    "to exactly 0": (to_exactly_zero, 1.0),
    "satisfied at times": (satisfied_at_times, 1.0),
    "five heads drawn": (heads_drawn, 1.0),
    "twenty heads drawn, zeros": (lambda seed: heads_drawn(seed, 20, 0.0), None),
    "two heads in turn": (heads_in_turn, 1.0),
    "six heads in turn, zeros": (lambda seed: heads_in_turn(seed, 0.0, 6), None),
    "auxiliary loss": (auxiliary_loss, 1.0),
    "LoRA": (low_rank, 1.0),
    "restarts": (restarts, 1.0),
    "oscillating": (oscillating, 1.0),
    "drifting": (drifting, 1.0),
    "rollouts": (rollouts, 1.0),
    "sparse": (sparse_units, None),
    "often clipped": (often_clipped, 1.0),
    "leaving a plateau": (leaving_a_plateau, 1.0),
}
