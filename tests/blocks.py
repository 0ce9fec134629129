"""Blocks that no training loop made, and blocks made again from the records of one that did."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from gradwatch.blocks import Block, Facts, Layout, NotedClip, StepRow
from gradwatch.judge.at_hand import members
from gradwatch.judge.judge import Judge
from gradwatch.paths import ROOT, owner_of
from gradwatch.records import Alert, Cause, RankNorms, StepRecord
from gradwatch.rules import Rule, default_rules

MARKS = ("unwritten", "stale", "leaked", "missed_by_clip", "clipped_between", "frozen")


def layout_of(
    names: Sequence[str],
    lines: Sequence[str] = (),
    optimizer: str = "actor",
    owners: bool = True,
    epsilon: float = 0.0,
) -> Layout:
    """Parameters by their names: a line is what begins with its name, an owner what a name has above its last dot."""
    by_line = {line: [i for i, name in enumerate(names) if name.startswith(f"{line}.")] for line in lines}
    by_owner: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        by_owner.setdefault(owner_of(name), []).append(i)
    if ROOT in lines:
        by_line[ROOT] = by_owner.get(ROOT, [])
    return Layout(
        optimizer,
        names,
        {line: np.array(columns) for line, columns in by_line.items() if columns},
        {owner: np.array(columns) for owner, columns in by_owner.items()} if owners else {},
        np.full(len(names), epsilon),
    )


def facts_of(layout: Layout, missing: Sequence[str] = (), **marks: Sequence[str]) -> Facts:
    """All gradients but the missing ones are there; the marks name parameters."""

    def flags(names: Sequence[str]) -> np.ndarray:
        return np.array([name in names for name in layout.names], dtype=bool)

    there = ~flags(missing)
    return Facts(there, there, **{mark: flags(marks.get(mark, ())) for mark in MARKS})


def blocks_of(records: Iterable[StepRecord], sizes: Iterator[int]) -> Iterator[Block]:
    """Steps, oldest first, in blocks of at most these sizes; what a record does not tell is guessed."""
    for (optimizer, names, lines), alike in groupby(records, key=_kept_in):
        layout = layout_of(names, lines, optimizer)
        left = list(alike)
        while left:
            size = next(sizes)
            yield _block(layout, left[:size])
            left = left[size:]


def _kept_in(record: StepRecord) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return record.optimizer, tuple(record.parameters), tuple(record.modules)


def judged_alike(
    blocks: Iterable[Block], rules: Callable[[], list[Rule]] = default_rules, answer: Cause | None = None
) -> list[Alert]:
    """What is said of these steps; the same of blocks as of their records one by one, or else an AssertionError.

    The answer is what a look finds of whoever is suspected at the end of a block.
    """
    together, one_by_one = Judge(rules()), Judge(rules())
    told = []
    for number, block in enumerate(blocks):
        alerts = together.judge_block(block)
        # A NaN is not equal to itself; its words are.
        assert repr(alerts) == repr([alert for record in block for alert in one_by_one.judge(record)])
        assert repr(together.active) == repr(one_by_one.active)
        assert together.in_suspense == one_by_one.in_suspense
        if number % 4 == 0:
            assert repr(together.state_dict()) == repr(one_by_one.state_dict())
        told += alerts
        suspects = together.suspects(block.layout.optimizer)
        assert suspects == one_by_one.suspects(block.layout.optimizer)
        for judge in (together, one_by_one):
            if answer is not None and suspects:
                judge.answered(block.layout.optimizer, dict.fromkeys(suspects, answer))
    assert repr(together.state_dict()) == repr(one_by_one.state_dict())
    return told


def _block(layout: Layout, records: Sequence[StepRecord]) -> Block:
    norms = [[tuple(record.parameters[name]) for name in layout.names] for record in records]
    before, after = (
        np.array(norms, dtype=np.float64).reshape(len(records), len(layout.names), 2).transpose(2, 0, 1)
    )
    return Block(layout, [_row(layout, record) for record in records], before.copy(), after.copy())


def _row(layout: Layout, record: StepRecord) -> StepRow:
    facts = facts_of(layout, record.missing, **{mark: getattr(record, mark) for mark in MARKS})
    clips = tuple(
        NotedClip(
            call.function,
            call.limit,
            call.norm_type,
            call.norm_returned if call.norm_given is None else call.norm_given,
            _scope(layout, record, call.scope_before),
            tuple(layout.places[name] for name in call.repeated if name in layout.places),
        )
        for call in record.clips
    )
    other = (
        record.backward_passes,
        clips,
        record.skipped,
        record.loop_step,
        record.loss_scale,
        record.left_out,
        record.clipped_instead,
        record.lost_passes,
        record.compared,
        record.lost,
    )
    return StepRow(record.step, record.time, facts, *other)


def _scope(layout: Layout, record: StepRecord, norm: float | None) -> np.ndarray:
    """The line of that norm, or else all of the parameters; none where there is no norm."""
    if norm is None:
        return np.zeros(0, dtype=np.intp)
    for line, norms in record.modules.items():
        names = members(record, line)
        if names and math.isclose(norms.norm_before, norm, rel_tol=1e-12):
            return np.array([layout.places[name] for name in names])
    return np.arange(len(layout.names))


def made_up_blocks(seed: int, steps: int, optimizer: str = "actor") -> Iterator[Block]:
    """A run in which everything happens: ills begin and end, also in the midst of a block; some blocks hold one step."""
    return _Life(random.Random(seed), optimizer).blocks(steps)


NAMES = (
    "cnn.0.weight", "cnn.0.bias", "cnn.2.weight", "cnn.2.bias", "cnn.gain", "mlp.h.0.w", "mlp.h.0.b",
    "mlp.h.1.w", "mlp.h.1.b", "head.weight", "head.bias", "temperature",
)  # fmt: skip

LAYOUTS = (
    (NAMES, ("cnn", "mlp", "head", ROOT), True),
    (NAMES, ("cnn", "mlp", "head", ROOT), False),
    (NAMES[:5], ("cnn",), True),
    (("group0.param0", "group0.param1"), (), False),
    # Lines that overlap.
    (NAMES[5:], ("mlp", "mlp.h.1", "head"), True),
)

# The factor of each ill on the norms that it strikes.
STRUCK = {"zero": 0.0, "tiny": 1e-9, "nan": math.nan, "inf": math.inf, "huge": 1e5, "wild": 30.0, "faint": 1e-3}
CLIPS = (
    "none",
    "usual",
    "usual",
    "tight",
    "broken",
    "part",
    "twice",
    "value",
    "overflow",
    "infinite",
    "inf-norm",
    "early",
    "negative",
    "nothing",
    "turned",
    "rest",
    "scaled",
)


class _Life:
    def __init__(self, rng: random.Random, optimizer: str) -> None:
        self._rng = rng
        names, lines, owners = rng.choice(LAYOUTS)
        self._layout = layout_of(names, lines, optimizer, owners, rng.choice((0.0, 2.0**-7)))
        self._ills: dict[str, tuple[float, int]] = {}
        self._missing: dict[str, int] = {}
        self._marked: dict[str, int] = {}
        self._clip, self._skipping, self._growing, self._level = "none", 0, 0, 1.0
        self._calm = 0
        self._scopes = (
            np.arange(len(names)),
            np.arange(1),
            np.arange(max(len(names) // 2, 1)),
            np.zeros(0, dtype=np.intp),
        )

    def blocks(self, steps: int) -> Iterator[Block]:
        done = 0
        while done < steps:
            size = self._rng.choice((1, 1, 2, 3, 7, 16, 16, 16))
            made = [self._step(done + i + 1) for i in range(size)]
            before, after = (np.array([step[side] for step in made]) for side in (1, 2))
            yield Block(self._layout, [step[0] for step in made], before, after)
            done += size

    def _part(self) -> list[str]:
        """A parameter, what an owner or a line holds, or everything."""
        groups = [self._layout.owners.columns, self._layout.lines.columns]
        some = [list(columns) for group in groups for columns in group.values()]
        places = self._rng.choice([[0], *some, range(len(self._layout.names))])
        return [self._layout.names[place] for place in places]

    def _happen(self) -> None:
        rng = self._rng
        self._calm -= 1
        if self._calm > 0 or rng.random() < 0.7:
            return
        lasts = rng.choice((1, 2, 3, 4, 5, 6, 12, 40, 120))
        what = rng.choice(("ill", "ill", "missing", "mark", "clip", "clip", "skip", "grow", "calm", "calm"))
        if what == "ill":
            self._ills |= dict.fromkeys(self._part(), (rng.choice(list(STRUCK.values())), lasts))
        elif what == "missing":
            self._missing |= dict.fromkeys(self._part(), lasts)
        elif what == "mark":
            self._marked = dict.fromkeys(rng.sample(MARKS, 2), lasts)
        elif what == "clip":
            self._clip = rng.choice(CLIPS)
        elif what == "skip":
            self._skipping = lasts
        elif what == "grow":
            self._growing = 60
        else:
            self._calm = rng.choice((20, 60, 150))
            self._clip, self._growing, self._level = "usual", 0, 1.0

    def _step(self, step: int) -> tuple[StepRow, np.ndarray, np.ndarray]:
        self._happen()
        rng, names = self._rng, self._layout.names
        self._level *= 1.4 if self._growing > 0 else 1.0
        before = np.array(
            [self._level * math.exp(rng.gauss(0, 0.3)) * self._ills.get(n, (1.0, 0))[0] for n in names]
        )
        missing = [name for name in names if name in self._missing]
        marked = {mark: rng.sample(names, 1) for mark in self._marked}
        if missing and rng.random() < 0.5:
            marked["unwritten"] = missing
        there = np.array([name not in missing for name in names])
        whole = math.sqrt(sum(norm * norm for norm in before[there].tolist()))
        clips, factor = self._clipped(before, whole)
        skipped = self._skipping > 0
        left = [norm * factor for norm in before.tolist()]
        if self._clip == "rest":
            left[1:] = before[1:].tolist()
        after = np.array([math.nan if skipped else norm for norm in left])
        lost = (3 if step % 83 < 6 else 1) if step % 83 < 8 and left == before.tolist() else 0
        row = StepRow(
            step,
            float(step),
            facts_of(self._layout, missing, **marked) if missing or marked else self._usual,
            rng.choice((1, 1, 1, 2, 0)) if missing or marked else 1,
            clips,
            skipped,
            7 * step if step % 5 else None,
            1024.0 if self._clip == "scaled" else rng.choice((None, 1024.0)) if skipped else None,
            {"mlp": ("mlp.extra",)} if rng.random() < 0.02 or step % 97 < 5 else None,
            "critic" if step % 89 < 4 else None,
            lost,
            None if step % 16 else RankNorms(step - 16, 1, 1.0, 1.0 + (step % 160 < 80), 1e-7),
            tuple(names[:1]) if lost and step % 166 < 8 else (),
        )
        self._age()
        return row, before, after

    @property
    def _usual(self) -> Facts:
        if not hasattr(self, "_kept"):
            self._kept = Facts.usual(len(self._layout.names))
        return self._kept

    def _age(self) -> None:
        self._skipping -= 1
        self._growing -= 1
        self._ills = {name: (factor, left - 1) for name, (factor, left) in self._ills.items() if left > 1}
        self._missing = {name: left - 1 for name, left in self._missing.items() if left > 1}
        self._marked = {name: left - 1 for name, left in self._marked.items() if left > 1}

    def _clipped(self, before: np.ndarray, whole: float) -> tuple[tuple[NotedClip, ...], float]:
        """The calls, and what is left of the gradients by them."""
        everything, one, half, none = self._scopes
        limit = 1e-3 if self._clip == "tight" else 1.0
        held = min(1.0, limit / whole) if whole > 0.0 else 1.0
        usual = NotedClip("clip_grad_norm_", limit, 2.0, whole, everything)
        return {
            "none": ((), 1.0),
            "usual": ((usual,), held),
            "tight": ((usual,), held),
            "broken": ((usual,), 1.0),
            "part": ((usual._replace(columns=half),), self._rng.choice((1.0, held))),
            "twice": ((usual._replace(columns=half), usual._replace(columns=one, repeated=(0,))), held),
            "value": ((NotedClip("clip_grad_value_", 0.5, None, None, everything),), held),
            "overflow": ((usual._replace(norm_returned=math.inf),), 0.0),
            "infinite": ((usual._replace(limit=math.inf),), 1.0),
            "inf-norm": ((usual._replace(norm_type=math.inf, norm_returned=whole / 2),), 1.0),
            "early": ((usual._replace(norm_returned=self._rng.choice((0.0, whole / 3, None))),), held),
            "nothing": ((usual._replace(columns=none, norm_returned=0.0),), 1.0),
            "rest": ((usual._replace(columns=one),), min(1.0, limit / (before.item(0) or 1.0))),
            "scaled": ((usual._replace(norm_returned=whole * 1024.0),), held),
            "turned": ((NotedClip("clip_grad_value_", -0.5, None, None, everything),), held),
            "negative": ((usual._replace(limit=-1.0), usual._replace(columns=none)), held),
        }[self._clip]
