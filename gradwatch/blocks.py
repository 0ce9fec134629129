"""Steps in blocks: what was measured, as arrays, and the record of a step made when somebody reads it.

A training loop appends one ``StepRow`` a step. Rules of gradwatch's own look at the arrays of a whole block, and
sinks convert it in a thread of their own; a ``StepRecord`` of every step is made only for who asks for it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from gradwatch.records import ClipCall, NormTable, StepRecord, clip_ratio

__all__ = [
    "AFTER",
    "BEFORE",
    "Block",
    "BoolArray",
    "Columns",
    "Facts",
    "FloatArray",
    "Groups",
    "Layout",
    "NotedClip",
    "StepRow",
    "Steps",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Columns = npt.NDArray[np.intp]

# The two sides of clipping, as indices.
BEFORE, AFTER = 0, 1

BY_VALUE, BY_GIVEN_NORM = "clip_grad_value_", "clip_grads_with_norm_"

# What Facts says of a gradient beyond its being there.
_MARKS = ("unwritten", "stale", "leaked", "missed_by_clip", "clipped_between", "frozen")

# Between these the square of a norm loses nothing, and sums of many such squares stay in range.
_SMALLEST_TO_SQUARE, _LARGEST_TO_SQUARE = 1e-140, 1e140


class Groups:
    """Named groups of columns that may overlap: the lines of a report, or the modules that own parameters.

    Args:
        columns: name -> indices into a row; none of them empty.
    """

    def __init__(self, columns: Mapping[str, Columns]) -> None:
        self.columns = dict(columns)
        self.names = tuple(columns)
        self.places = {name: place for place, name in enumerate(self.names)}
        # All groups' columns one after another, and where each begins: for one reduction over all of them.
        self.index = np.concatenate([*columns.values(), np.zeros(0, dtype=np.intp)])
        self.starts = np.cumsum([0, *(len(some) for some in columns.values())])[:-1]

    def sums(self, values: FloatArray) -> FloatArray:
        """``[steps, columns]`` -> the sums of each group, ``[steps, groups]``."""
        if not self.names:
            return np.zeros((len(values), 0))
        return np.add.reduceat(values[:, self.index], self.starts, axis=1)

    def any(self, flags: BoolArray) -> BoolArray:
        """``[steps, columns]`` -> whether any column of each group is flagged, ``[steps, groups]``."""
        if not self.names:
            return np.zeros((len(flags), 0), dtype=bool)
        return np.logical_or.reduceat(flags[:, self.index], self.starts, axis=1)


class Layout:
    """What the columns of a row are: the parameters of one optimizer, and the groups they are reported in.

    Args:
        optimizer: name of the optimizer.
        names: name of each parameter, ``[columns]``.
        lines: the lines of the report: name -> columns.
        owners: the modules that own parameters themselves: path -> columns.
        rounding: machine epsilon of each parameter's type, ``[columns]``.
    """

    def __init__(
        self,
        optimizer: str,
        names: Sequence[str],
        lines: Mapping[str, Columns],
        owners: Mapping[str, Columns],
        rounding: FloatArray,
    ) -> None:
        self.optimizer = optimizer
        self.names = tuple(names)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.lines = Groups(lines)
        self.owners = Groups(owners)
        self.rounding = rounding

    @property
    def finest(self) -> Groups:
        """What verdicts on modules are about: the modules that own parameters; the lines where none are known."""
        return self.owners if self.owners.names else self.lines

    def named(self, flags: BoolArray) -> tuple[str, ...]:
        """The names of the columns that are flagged."""
        return tuple(self.names[place] for place in np.flatnonzero(flags).tolist()) if flags.any() else ()


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the gradients of a step besides their norms; each ``[columns]``, shared by steps alike.

    Attributes:
        had_before: there was a gradient before clipping.
        has_after: there was one at the step.
        unwritten: no backward pass has written it since the last step that was measured.
        stale: nor has anything else: it is as that step left it.
        leaked: an earlier step, of whatever optimizer, had used a part of it before the rest was added.
        missed_by_clip: a pass has written it after the last clip call that was given it.
        clipped_between: a clip call was given a part of it before a pass added the rest.
        frozen: the parameter requires no gradient.
    """

    had_before: BoolArray
    has_after: BoolArray
    unwritten: BoolArray
    stale: BoolArray
    leaked: BoolArray
    missed_by_clip: BoolArray
    clipped_between: BoolArray
    frozen: BoolArray

    @classmethod
    def usual(cls, columns: int) -> Facts:
        """Every gradient is there, was written for this step and is nobody else's."""
        yes, no = np.ones(columns, dtype=bool), np.zeros(columns, dtype=bool)
        return cls(yes, yes, no, no, no, no, no, no)

    @cached_property
    def complete(self) -> bool:
        """Every gradient is there, before and after."""
        return bool(self.had_before.all() and self.has_after.all())

    @cached_property
    def marks(self) -> frozenset[str]:
        """The names of those attributes, other than the first two, that hold for any gradient; usually none."""
        return frozenset(name for name in _MARKS if getattr(self, name).any())

    @property
    def as_usual(self) -> bool:
        """Complete, written for this step, and nobody else's."""
        return self.complete and not self.marks


class NotedClip(NamedTuple):
    """A clipping call: what it was asked for, the norm that it went by, and the columns that it was given.

    ``norm_returned`` is the norm that it computed, or, of a call that computes none, that it was given.
    ``columns`` is one and the same array for calls that are given the same parameters.
    """

    function: str
    limit: float
    norm_type: float | None
    norm_returned: float | None
    columns: Columns
    repeated: tuple[int, ...] = ()


class StepRow(NamedTuple):
    """What a block holds of one step besides its norms."""

    step: int
    time: float
    facts: Facts
    backward_passes: int = 1
    clips: tuple[NotedClip, ...] = ()
    skipped: bool = False
    loss_scale: float | None = None
    left_out: Mapping[str, tuple[str, ...]] | None = None
    clipped_instead: str | None = None
    lost_passes: int = 0


class Block(Sequence[StepRecord]):
    """Steps of one optimizer in a row, under one layout; as a sequence, their records, made when asked for.

    Args:
        layout: what the columns are.
        rows: one for each step, oldest first.
        before: norms before clipping, ``[steps, columns]``; any number where there was no gradient.
        after: norms that the optimizer consumed; NaN where a step was skipped.
    """

    def __init__(self, layout: Layout, rows: Sequence[StepRow], before: FloatArray, after: FloatArray) -> None:
        self.layout = layout
        self.rows = rows
        self._scopes: dict[int, _Scope] = {}
        self._given = before, after

    def fresh(self) -> Block:
        """The same steps, with nothing kept of what was worked out of them: to be held for long."""
        return Block(self.layout, self.rows, *self._given)

    @cached_property
    def _sides(self) -> tuple[_Side, _Side]:
        before, after = (_Side(self.layout, self._given[side], self._present(side)) for side in (BEFORE, AFTER))
        return before, after

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> StepRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StepRecord]: ...
    def __getitem__(self, index: int | slice) -> StepRecord | Sequence[StepRecord]:
        """The record of a step."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"The block has {len(self)} steps, but the one at {index} was asked for.")
        return self._record(index % len(self))

    def __iter__(self) -> Iterator[StepRecord]:
        return (self._record(index) for index in range(len(self)))

    def norms(self, side: int) -> FloatArray:
        """The global norm on one side, ``[steps]``; NaN where there was no gradient at all."""
        return self._sides[side].whole

    def parameter_norms(self, side: int) -> FloatArray:
        """``[steps, columns]``; NaN where there was no gradient."""
        return self._sides[side].masked

    def line_norms(self, side: int) -> FloatArray:
        """The norm of each line, ``[steps, lines]``; NaN where it had no gradient at all."""
        return self._sides[side].lines

    def owner_norms(self, side: int) -> FloatArray:
        """The norm of each module that owns parameters itself, ``[steps, owners]``."""
        return self._sides[side].owners

    def finest_norms(self, side: int) -> FloatArray:
        """The norm of each group of ``layout.finest``, ``[steps, groups]``."""
        return self.owner_norms(side) if self.layout.owners.names else self.line_norms(side)

    @cached_property
    def silent(self) -> BoolArray:
        """Which group of ``layout.finest`` consumed exactly 0, or nothing at all, ``[steps, groups]``."""
        silent: BoolArray = self.finest_norms(AFTER) == 0.0
        silent |= self._sides[AFTER].absent(self.layout.finest)
        return silent

    @cached_property
    def silent_whole(self) -> BoolArray:
        """In which steps all that there is consumed exactly 0, or nothing at all, ``[steps]``."""
        silent: BoolArray = self.norms(AFTER) == 0.0
        silent |= self._sides[AFTER].nothing
        return silent

    @cached_property
    def clipping(self) -> list[tuple[float | None, bool]]:
        """The tightest finite limit of clipping by norm, if any; and whether it was in force."""
        return [self._clipping(index, row.clips) for index, row in enumerate(self.rows)]

    def parameters(self, index: int) -> NormTable:
        """The norms of the parameters in one step, by name."""
        return self._tables[-1].at(index)

    def rounding(self, columns: Columns) -> float:
        """Machine epsilon of the coarsest type among some columns; 0 where there are none."""
        return self._scope(columns).rounding

    def scope_norms(self, side: int, columns: Columns) -> FloatArray:
        """The norm of some columns taken together, ``[steps]``; NaN where none of them had a gradient."""
        return self._sides[side].scope(columns)

    @cached_property
    def nonfinite(self) -> BoolArray:
        """Whether any gradient of a step held NaN or Inf, ``[steps]``."""
        if all(np.isfinite(self.norms(side)).all() for side in (BEFORE, AFTER)):
            return np.zeros(len(self), dtype=bool)
        return _in_any(self._bad)

    # What records are made of, as Python's own numbers: for all steps of the block at once, where it is cheap.

    @cached_property
    def _wholes(self) -> tuple[list[float], list[float]]:
        return self.norms(BEFORE).tolist(), self.norms(AFTER).tolist()

    @cached_property
    def _tables(self) -> tuple[_Tables, _Tables, _Tables]:
        layout = self.layout
        return (
            _Tables(layout.lines.places, self.line_norms),
            _Tables(layout.owners.places, self.owner_norms),
            _Tables(layout.places, self.parameter_norms),
        )

    @cached_property
    def _any_bad(self) -> list[bool]:
        flags: list[bool] = self.nonfinite.tolist()
        return flags

    @cached_property
    def _bad(self) -> BoolArray:
        """Which gradient held NaN or Inf, on either side; what a skipped step did not consume tells nothing."""
        before, after = self._sides
        skipped = np.array([row.skipped for row in self.rows])[:, None]
        # What is not there is 0 here, and finite.
        bad: BoolArray = ~np.isfinite(before.norms)
        bad |= ~np.isfinite(after.norms) & ~skipped
        return bad

    def _present(self, side: int) -> BoolArray | None:
        """Which gradients were there, ``[steps, columns]``; None where all of them were."""
        if all(row.facts.complete for row in self.rows):
            return None
        flags = [row.facts.had_before if side == BEFORE else row.facts.has_after for row in self.rows]
        return np.array(flags, dtype=bool).reshape(len(self.rows), len(self.layout.names))

    def _record(self, index: int) -> StepRecord:
        row, layout = self.rows[index], self.layout
        before, after = self._wholes[BEFORE][index], self._wholes[AFTER][index]
        modules, owners, parameters = [table.at(index) for table in self._tables]
        clips = tuple(self._clip_call(clip, index) for clip in row.clips)
        max_norm, clipped = self.clipping[index]
        return StepRecord(
            optimizer=layout.optimizer,
            step=row.step,
            time=row.time,
            norm_before=before,
            norm_after=after,
            clip_ratio=clip_ratio(before, after),
            max_norm=max_norm,
            clipped=clipped,
            clips=clips,
            modules=modules,
            owners=owners,
            parameters=parameters,
            backward_passes=row.backward_passes,
            skipped=row.skipped,
            loss_scale=row.loss_scale,
            nonfinite=layout.named(self._bad[index]) if self._any_bad[index] else (),
            left_out=row.left_out or {},
            clipped_instead=row.clipped_instead,
            lost_passes=row.lost_passes,
            **({} if row.facts.as_usual else self._what_is_odd(row.facts, index)),
        )

    def _what_is_odd(self, facts: Facts, index: int) -> dict[str, tuple[str, ...]]:
        """What is to be named of a step whose gradients were not all there, new and its own."""
        layout, named = self.layout, self.layout.named
        # A gradient of exactly 0 is neither stale nor leaked.
        consumed = facts.has_after & (self._sides[AFTER].norms[index] != 0.0)
        return {
            "missing": named(~facts.has_after),
            "missing_modules": _absent(layout.lines, facts),
            "missing_owners": _absent(layout.owners, facts),
            "unwritten": named(facts.unwritten),
            "stale": named(facts.stale & consumed),
            "leaked": named(facts.leaked & consumed),
            "frozen": named(facts.frozen),
            "missed_by_clip": named(facts.missed_by_clip & consumed),
            "clipped_between": named(facts.clipped_between & consumed),
        }

    def _clipping(self, index: int, clips: Sequence[NotedClip]) -> tuple[float | None, bool]:
        tightest, in_force = None, False
        for clip in clips:
            if clip.function == BY_VALUE or not math.isfinite(clip.limit) or not len(clip.columns):
                continue
            tightest = clip.limit if tightest is None else min(tightest, clip.limit)
            # The limit is held against the norm that torch was asked for, which need not be an L2 norm.
            norm = clip.norm_returned
            if norm is None:
                norm = float(self.scope_norms(BEFORE, clip.columns)[index])
            in_force = in_force or norm > clip.limit
        return tightest, in_force

    def _clip_call(self, clip: NotedClip, index: int) -> ClipCall:
        before, after, rounding = self._scope(clip.columns)
        norms = (None, clip.norm_returned) if clip.function == BY_GIVEN_NORM else (clip.norm_returned, None)
        return ClipCall(
            clip.function,
            clip.limit,
            clip.norm_type,
            norms[0],
            before[index],
            after[index],
            tuple(self.layout.names[place] for place in clip.repeated) if clip.repeated else (),
            rounding,
            norms[1],
        )

    def _scope(self, columns: Columns) -> _Scope:
        """What the clip calls that were given these columns have in common; looked up once a block."""
        known = self._scopes.get(id(columns))
        if known is None:
            norms = [self.scope_norms(side, columns).tolist() for side in (BEFORE, AFTER)]
            before, after = norms if len(columns) else [[None] * len(self)] * 2
            rounding = float(self.layout.rounding[columns].max(initial=0.0))
            # scope_norms keeps the array, so that its number is no other's.
            known = self._scopes[id(columns)] = _Scope(before, after, rounding)
        return known


class _Scope(NamedTuple):
    """Norms of what a clip call was given, one for each step of a block; None where that was nothing."""

    before: Sequence[float | None]
    after: Sequence[float | None]
    rounding: float


class _Tables:
    """The norms of a block by name, to be cut into a table for each step."""

    def __init__(self, places: Mapping[str, int], norms: Callable[[int], FloatArray]) -> None:
        self._places = places
        self._before, self._after = (array("d", norms(side).tobytes()) for side in (BEFORE, AFTER))

    def at(self, index: int) -> NormTable:
        """The table of one step; it holds no other step's numbers."""
        width = len(self._places)
        one = slice(index * width, (index + 1) * width)
        return NormTable(self._places, self._before[one], self._after[one])


class Steps(Sequence[StepRecord]):
    """Steps of several blocks in the order of time; a record is made when it is first read, and once.

    Nobody who is handed them can change them for another.

    Args:
        pairs: for each step the block that holds it, or any other sequence of records, and its place there.
    """

    def __init__(self, pairs: Iterable[tuple[Sequence[StepRecord], int]]) -> None:
        self.pairs = tuple(pairs)
        self._made: list[StepRecord | None] = []

    @classmethod
    def of(cls, records: Sequence[StepRecord]) -> Steps:
        """The same steps; a sequence that is no ``Steps`` yet must not be changed any more."""
        return records if isinstance(records, Steps) else cls((records, place) for place in range(len(records)))

    @classmethod
    def joined(cls, several: Iterable[Steps]) -> Steps:
        """One after another; no record is made."""
        return cls(pair for steps in several for pair in steps.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> StepRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...
    def __getitem__(self, index: int | slice) -> StepRecord | Steps:
        """The record of a step, or some of the steps."""
        if isinstance(index, slice):
            return Steps(self.pairs[index])
        block, place = self.pairs[index]
        if not self._made:
            # Not in the training thread, which makes these objects and reads none.
            self._made = [None] * len(self.pairs)
        record = self._made[index]
        if record is None:
            record = self._made[index] = block[place]
        return record

    def __iter__(self) -> Iterator[StepRecord]:
        return map(self.__getitem__, range(len(self.pairs)))

    def newest(self) -> dict[str, tuple[Sequence[StepRecord], int]]:
        """The last pair of each optimizer, by its name; no record of a block is made."""
        return {_optimizer(*pair): pair for pair in self.pairs}


def _optimizer(block: Sequence[StepRecord], place: int) -> str:
    return block.layout.optimizer if isinstance(block, Block) else block[place].optimizer


def _in_any(flags: BoolArray) -> BoolArray:
    """``[steps, columns]`` -> whether any column is flagged, ``[steps]``."""
    steps: BoolArray = np.asarray(flags.any(axis=1))
    return steps


class _Side:
    """The norms of a block on one side of clipping, and those of groups of them."""

    def __init__(self, layout: Layout, norms: FloatArray, present: BoolArray | None) -> None:
        self._layout = layout
        self._present = present
        self.norms = norms if present is None else np.where(present, norms, 0.0)
        self._scopes: dict[int, tuple[Columns, FloatArray]] = {}

    @cached_property
    def _squares(self) -> FloatArray:
        # A square that leaves the range is a value here, and is worked out anew.
        with np.errstate(all="ignore"):
            return self.norms * self.norms

    @cached_property
    def _odd(self) -> list[int]:
        """Steps in which a square may leave the range; nearly always none."""
        norms = self.norms
        fine = (norms == 0.0) | ((norms > _SMALLEST_TO_SQUARE) & (norms < _LARGEST_TO_SQUARE))
        return [] if fine.all() else np.flatnonzero(~fine.all(axis=1)).tolist()

    @cached_property
    def whole(self) -> FloatArray:
        return self._roots(np.add.reduce(self._squares, axis=1), np.arange(self.norms.shape[1]))

    @cached_property
    def lines(self) -> FloatArray:
        return self._by_group(self._layout.lines)

    @cached_property
    def owners(self) -> FloatArray:
        return self._by_group(self._layout.owners)

    @cached_property
    def masked(self) -> FloatArray:
        return self.norms if self._present is None else np.where(self._present, self.norms, np.nan)

    @cached_property
    def nothing(self) -> BoolArray:
        """In which steps there was no gradient at all, ``[steps]``."""
        if self._present is None:
            return np.zeros(len(self.norms), dtype=bool)
        return ~_in_any(self._present)

    def absent(self, groups: Groups) -> BoolArray:
        """Which groups have no gradient at all, ``[steps, groups]``."""
        if self._present is None:
            return np.zeros((len(self.norms), len(groups.names)), dtype=bool)
        return ~groups.any(self._present)

    def scope(self, columns: Columns) -> FloatArray:
        if len(columns) == self.norms.shape[1]:
            return self.whole
        known = self._scopes.get(id(columns))
        if known is None:
            sums = np.add.reduce(self._squares[:, columns], axis=1)
            # The array is kept with its norms, so that its number is no other's.
            known = self._scopes[id(columns)] = columns, self._roots(sums, columns)
        return known[1]

    def _by_group(self, groups: Groups) -> FloatArray:
        norms = np.sqrt(groups.sums(self._squares))
        for step in self._odd:
            norms[step] = [_scaled_norm(self.norms[step, columns]) for columns in groups.columns.values()]
        return norms if self._present is None else np.where(groups.any(self._present), norms, np.nan)

    def _roots(self, sums: FloatArray, columns: Columns) -> FloatArray:
        norms = np.sqrt(sums)
        for step in self._odd:
            norms[step] = _scaled_norm(self.norms[step, columns])
        if self._present is None:
            return norms
        return np.where(self._present[:, columns].any(axis=1), norms, np.nan)


def _scaled_norm(norms: FloatArray) -> float:
    """The norm of norms whose squares may leave the range: scaled by a power of two, which loses nothing."""
    largest = float(np.fmax.reduce(norms, initial=0.0))
    # Never below the normal range, where a division would overflow.
    usable = 0.0 < largest < math.inf
    scale = math.ldexp(1.0, max(math.frexp(largest)[1], -1000)) if usable else 1.0
    scaled = norms / scale
    return math.sqrt(float(np.add.reduce(scaled * scaled))) * scale


def _absent(groups: Groups, facts: Facts) -> tuple[str, ...]:
    """The groups of which no gradient was there at the step."""
    if facts.complete:
        return ()
    there = groups.any(facts.has_after[None])[0]
    return tuple(name for name, present in zip(groups.names, there.tolist(), strict=True) if not present)
