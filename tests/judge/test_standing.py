"""What stays silent for long is judged by blocks too, and no otherwise than by its records."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from gradwatch.blocks import Block, Facts, NotedClip, StepRow
from gradwatch.causes import cause
from gradwatch.judge.judge import Judge
from gradwatch.records import OUTSIDE, Cause, StepRecord
from gradwatch.rules import ClipBroken, Finding, Leaked, Vanishing, Zero
from tests.blocks import facts_of, judged_alike, layout_of

MODULES = ("cnn.0", "cnn.2", "mlp.h.0", "mlp.h.1", "head", "value")
NAMES = tuple(f"{module}.{name}" for module in MODULES for name in ("weight", "bias"))
HOW = ("zero", "zero", "missing", "frozen", "frozen", "tiny")


class Standing:
    """A run in which modules fall silent for long; now and then something else happens in a step."""

    def __init__(self, seed: int, how: tuple[str, ...] = HOW) -> None:
        self._rng = random.Random(seed)
        self._how = how
        lines = self._rng.choice([("cnn", "mlp", "head", "value"), ()])
        self._layout = layout_of(NAMES, lines, owners=bool(lines) and self._rng.random() < 0.8)
        # By module, how it is silent, and for how many steps more.
        self._silent: dict[str, tuple[str, int]] = {}
        self._missing: dict[str, int] = {}
        self._leaving_out = 0
        self._known: dict[object, Facts] = {}

    def blocks(self, steps: int) -> Iterator[Block]:
        done = 0
        while done < steps:
            size = self._rng.choice((1, 2, 16, 16, 16, 40))
            made = [self._step(done + i + 1) for i in range(size)]
            norms = np.array([one for _, one in made])
            yield Block(self._layout, [row for row, _ in made], norms, norms.copy())
            done += size

    def _step(self, step: int) -> tuple[StepRow, list[float]]:
        rng = self._rng
        if rng.random() < 0.02:
            lasts = rng.choice((2, 30, 150, 300))
            self._silent |= dict.fromkeys(
                rng.sample(MODULES, rng.choice((1, 1, 2, 5, 6))), (rng.choice(self._how), lasts)
            )
        if rng.random() < 0.004:
            self._missing[rng.choice(NAMES)] = rng.choice((5, 40))
        awake = rng.choice(MODULES) if rng.random() < 0.004 else None
        how = {module: kind for module, (kind, _) in self._silent.items() if module != awake}
        kinds = [how.get(name.rpartition(".")[0], "") for name in NAMES]
        factors = {"zero": 0.0, "tiny": 1e-9, "small": 1e-4}
        norms = [math.exp(rng.gauss(0, 0.3)) * factors.get(kind, 1.0) for kind in kinds]
        if rng.random() < 0.003:
            norms = [rng.choice((0.0, math.nan, 1e9, 1e-3)) * norm for norm in norms]
        row = StepRow(
            step,
            float(step),
            self._facts(kinds),
            rng.choice((1, 1, 1, 0)),
            skipped=rng.random() < 0.003,
            left_out=self._left_out(),
        )
        self._silent = {module: (kind, left - 1) for module, (kind, left) in self._silent.items() if left > 1}
        self._missing = {name: left - 1 for name, left in self._missing.items() if left > 1}
        return row, norms

    def _left_out(self) -> dict[str, tuple[str, ...]] | None:
        self._leaving_out -= 1
        if self._rng.random() < 0.004:
            self._leaving_out = self._rng.choice((1, 40))
        extra = {"head": ("head.extra",)} if self._rng.random() < 0.01 else {}
        if self._leaving_out > 0:
            # At first a backbone of several lines, of which one stays.
            blocks = {f"block{i}": (f"block{i}.extra",) for i in range(5 if self._leaving_out > 10 else 1)}
            return {"mlp": ("mlp.extra", "mlp.more"), **blocks, **extra}
        return extra or None

    def _facts(self, kinds: list[str]) -> Facts:
        """One and the same object for steps that are alike, as the ledger has it."""
        missing = [n for n, kind in zip(NAMES, kinds, strict=True) if kind in ("missing", "frozen")]
        missing += [name for name in self._missing if name not in missing]
        frozen = [name for name, kind in zip(NAMES, kinds, strict=True) if kind == "frozen"]
        key = tuple(missing), tuple(frozen)
        if key not in self._known:
            self._known[key] = facts_of(self._layout, missing, unwritten=missing, frozen=frozen)
        return self._known[key]


OPTIONS: list[dict[str, int]] = [
    {},
    {"clears_after": 7},
    {"unreached_after": 2, "fires_after": 5},
    {"unreached_after": 40},
]
ANSWERS = (None, cause("dead-relu", "head"), cause("unknown", "head"), cause("constant", "head"))


# A smaller seed is no simpler run.
@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32), st.sampled_from(OPTIONS), st.sampled_from(ANSWERS))
# One that was told as dead has come back to stay while others go on.
@example(1377, OPTIONS[1], ANSWERS[0])
@example(1433, OPTIONS[1], ANSWERS[2])
def test_a_block_with_silent_modules_is_judged_as_its_records_are(
    seed: int, options: dict[str, int], answer: Cause | None
) -> None:
    judged_alike(Standing(seed).blocks(400), lambda: [Zero(**options)], answer)


FADING = ("tiny", "tiny", "tiny", "small", "small", "zero")


@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32), st.sampled_from((5, 20, 100)), st.sampled_from(ANSWERS))
def test_a_block_with_modules_that_have_vanished_is_judged_as_its_records_are(
    seed: int, critical_after: int, answer: Cause | None
) -> None:
    judged_alike(Standing(seed, FADING).blocks(400), lambda: [Vanishing(critical_after=critical_after)], answer)


@pytest.mark.parametrize("kind", ["zero", "missing", "frozen"])
def test_what_stays_as_it_was_is_looked_at_once_a_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fine-tuning whose frozen half the optimizer holds, or layers that are dead."""
    looked: list[int] = []
    look = Zero.look

    def counted(rule: Zero, record: StepRecord) -> list[Finding] | None:
        looked.append(record.step)
        return look(rule, record)

    layout = layout_of(NAMES, ("cnn", "mlp", "head", "value"))
    silent = [name for name in NAMES if name.startswith("cnn.")]
    gone = () if kind == "zero" else silent
    facts = facts_of(layout, gone, unwritten=gone, frozen=silent if kind == "frozen" else ())
    norms = np.tile([0.0 if name in silent else 1.0 for name in NAMES], (16, 1))
    monkeypatch.setattr(Zero, "look", counted)
    judge = Judge([Zero()])
    for first in range(1, 1025, 16):
        rows = [StepRow(step, float(step), facts, 1) for step in range(first, first + 16)]
        judge.judge_block(Block(layout, rows, norms, norms))
    assert [alert.module for alert in judge.active] == ["cnn"]
    # Once a block, for the first steps of the silence, and once in each 64.
    assert 64 <= len(looked) < 64 + 16 + 16


def test_the_first_steps_count_though_what_is_left_out_goes_on() -> None:
    """Both lie in one block, as where a device has them."""
    layout = layout_of(("a.weight", "b.weight"), ("a", "b"))
    facts, norms = Facts.usual(2), np.tile([1.0, 1e-6], (16, 1))
    rows = [StepRow(step, float(step), facts, left_out={"b": ("b.extra",)}) for step in range(1, 17)]
    judged_alike([Block(layout, rows, norms, norms)], lambda: [Zero(fires_after=1)])


def test_what_has_vanished_is_over_also_in_a_run_that_is_resumed_when_all_is_well() -> None:
    layout = layout_of(("a.weight", "b.weight"), ("a", "b"))

    def block(first: int, small: float) -> Block:
        rows = [StepRow(step, float(step), Facts.usual(2)) for step in range(first, first + 16)]
        norms = np.tile([1.0, small], (16, 1))
        return Block(layout, rows, norms, norms)

    judge, resumed = (Judge([Vanishing(critical_after=10)]) for _ in range(2))
    for first in (1, 17):
        judge.judge_block(block(first, 1e-9))
    resumed.load_state_dict(judge.state_dict())
    (over,) = resumed.judge_block(block(33, 1.0))
    assert (over.state, over.severity, over.step) == ("resolved", "critical", 37)


def test_a_module_of_those_that_had_vanished_that_is_well_for_a_while_and_then_zero() -> None:
    """What was told of then is told of no more, and so is no streak of its own."""
    layout = layout_of(("mlp.h.0.w", "mlp.h.1.w", "head.w"), ("mlp", "head"))

    def block(first: int) -> Block:
        steps = range(first, first + 2)
        ones = [1.0 if step >= 124 else 1e-9 for step in steps]
        others = [1.0 if step in (121, 122, 123) else 1e-9 if step < 125 else 0.0 for step in steps]
        norms = np.array([ones, others, [1.0, 1.0]]).T
        return Block(layout, [StepRow(step, float(step), Facts.usual(3)) for step in steps], norms, norms)

    assert judged_alike([block(first) for first in range(1, 140, 2)], lambda: [Vanishing()])


class LeftOutBlocks:
    """A head that is trained, and blocks of 16 steps in which others are left out."""

    NAMES = tuple(f"block{i}" for i in range(5))

    def __init__(self) -> None:
        self._layout = layout_of(("head.weight",), ("head",))
        self._step = 1

    def block(self, names: Iterable[str], steps: int = 16) -> Block:
        left = {name: (f"{name}.weight",) for name in names}
        first, self._step = self._step, self._step + steps
        rows = [StepRow(step, float(step), Facts.usual(1), left_out=left) for step in range(first, first + steps)]
        return Block(self._layout, rows, np.ones((steps, 1)), np.ones((steps, 1)))


@pytest.mark.parametrize("steps", [15, 16])
def test_the_others_are_named_anew_where_the_one_whose_name_they_bear_is_left_out_no_more(steps: int) -> None:
    made = LeftOutBlocks()
    blocks = [made.block(made.NAMES, steps), made.block(made.NAMES[1:], 40)]
    told = judged_alike(blocks, lambda: [Zero()])
    assert [(alert.state, alert.module) for alert in told] == [
        ("firing", "block0"),
        ("firing", "block1"),
        ("resolved", "block0"),
    ]


def test_what_no_module_holds_is_not_told_of_under_the_name_of_one() -> None:
    made, judge = LeftOutBlocks(), Judge([Zero()])
    told = judge.judge_block(made.block([*made.NAMES[:3], OUTSIDE]))
    assert [alert.module for alert in told] == [*made.NAMES[:3], OUTSIDE]


def test_a_run_that_is_resumed_goes_on_with_the_names_of_what_is_left_out() -> None:
    made, judge, resumed = LeftOutBlocks(), Judge([Zero()]), Judge([Zero()])
    judge.judge_block(made.block(made.NAMES[:1]))
    judge.judge_block(made.block(made.NAMES))
    assert [alert.module for alert in judge.active] == ["block0", "block1"]
    resumed.load_state_dict(judge.state_dict())
    assert resumed.judge_block(made.block(made.NAMES)) == []
    assert [alert.module for alert in resumed.active] == ["block0", "block1"]


def test_a_dead_module_of_which_something_is_left_out_is_told_as_dead() -> None:
    layout = layout_of(("block.bias", "head.weight"), ("block", "head"))
    rows = [
        StepRow(step, float(step), Facts.usual(2), 1, left_out={"block": ("block.weight",)})
        for step in range(1, 81)
    ]
    norms = np.array([[0.0 if row.step > 32 else 1.0, 1.0] for row in rows])
    told = judged_alike([Block(layout, rows, norms, norms)], lambda: [Zero()])
    warning, over, critical = told
    assert (warning.severity, over.state, over.step) == ("warning", "resolved", 35)
    assert (critical.severity, critical.module, critical.cause) == ("critical", "block", None)


class Clipped:
    """Steps of two parameters of norm 3 each, of which clipping to 1 is given the first alone."""

    def __init__(self) -> None:
        self._layout = layout_of(("a.weight", "b.weight"), ("a", "b"))
        self._rows: list[StepRow] = []
        self._after: list[list[float]] = []

    def steps(self, many: int, left: float = 1.0, instead: str | None = None) -> None:
        """So many, of which each leaves so much of the first."""
        for _ in range(many):
            step = len(self._rows) + 1
            clip = NotedClip("clip_grad_norm_", 1.0, 2.0, 3.0, np.arange(1), ())
            self._rows.append(StepRow(step, float(step), Facts.usual(2), clips=(clip,), clipped_instead=instead))
            self._after.append([left, 3.0])

    def severities(self) -> list[tuple[int, str, str]]:
        block = Block(self._layout, self._rows, np.full((len(self._rows), 2), 3.0), np.array(self._after))
        told = judged_alike([block], lambda: [ClipBroken()])
        return [(alert.step, alert.severity, alert.state) for alert in told]


def test_a_part_that_is_left_out_becomes_critical_where_the_limit_is_not_kept() -> None:
    clipped = Clipped()
    clipped.steps(5)
    clipped.steps(5, left=2.0)
    assert clipped.severities() == [
        (1, "warning", "firing"),
        (6, "warning", "resolved"),
        (6, "critical", "firing"),
    ]


def test_calls_that_were_given_others_count_only_in_a_row_while_a_part_is_left_out() -> None:
    clipped = Clipped()
    clipped.steps(2)
    clipped.steps(2, instead="critic")
    clipped.steps(1)
    clipped.steps(1, instead="critic")
    assert clipped.severities() == [(1, "warning", "firing")]
    clipped.steps(2, instead="critic")
    assert clipped.severities()[1:] == [(8, "warning", "resolved"), (8, "critical", "firing")]


class OfOthers(Leaked):
    """What leaks into ``b`` alone is meant."""

    def look(self, record: StepRecord) -> Iterator[Finding]:
        return super().look(record) if set(record.leaked) - {"b.weight"} else iter(())

    def look_over(self, block: Block, start: int) -> tuple[int, list[Finding]]:
        for index in range(start, len(block)):
            found = list(self.look(block[index]))
            if found:
                return index, found
        return len(block), []


def test_a_rule_that_looks_otherwise_than_its_parent_goes_on_by_records() -> None:
    layout = layout_of(("a.weight", "b.weight"), ("a", "b"))
    both, one = (facts_of(layout, leaked=names) for names in (layout.names, layout.names[1:]))
    rows = [StepRow(step, float(step), both if step < 3 else one) for step in range(1, 17)]
    told = judged_alike([Block(layout, rows, np.ones((16, 2)), np.ones((16, 2)))], lambda: [OfOthers()])
    assert [(alert.state, alert.step) for alert in told] == [("firing", 1), ("resolved", 12)]
