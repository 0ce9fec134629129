"""Steps of one optimizer in a row, as arrays and as records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import gt, truediv
from typing import overload

import numpy as np

from gradwatch.blocks.arrays import AFTER, BEFORE, BoolArray, Columns, FloatArray, in_any
from gradwatch.blocks.layout import Layout
from gradwatch.blocks.norms import BlockNorms
from gradwatch.blocks.once import once
from gradwatch.blocks.record_parts import Scope, Tables, clip_call, what_is_odd
from gradwatch.blocks.rows import BY_VALUE, InCommon, NotedClip, StepRow, bytes_of, in_common
from gradwatch.records import StepRecord, clip_ratio

__all__ = ["Block"]


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
        self._given = before, after
        self._scopes: dict[int, Scope] = {}

    @classmethod
    def joined(cls, layout: Layout, rows: Sequence[StepRow], both: FloatArray) -> Block:
        """One of norms that lie in one array, those before clipping and then those after it."""
        block = cls(layout, rows, both[: len(rows)], both[len(rows) :])
        block._both = both
        return block

    def fresh(self) -> Block:
        """The same steps, with nothing kept of what was worked out of them: to be held for long."""
        return Block(self.layout, self.rows, *self._given)

    @property
    def nbytes(self) -> int:
        """About what it takes up while nothing is worked out of it, but for its layout."""
        before, after = self._given
        return before.nbytes + after.nbytes + bytes_of(self.rows, len(self.layout.names))

    @once
    def _both(self) -> FloatArray:
        return np.concatenate(self._given)

    @once
    def _norms(self) -> BlockNorms:
        present = None if self.complete else (self._present(BEFORE), self._present(AFTER))
        return BlockNorms(self.layout, self._both, present)

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

    @once
    def common(self) -> InCommon:
        """What its rows have in common."""
        return in_common(self.rows)

    @property
    def complete(self) -> bool:
        """Whether every gradient is there in each step, before and after."""
        return self.common.complete

    def norms(self, side: int) -> FloatArray:
        """The global norm on one side, ``[steps]``; NaN where there was no gradient at all."""
        return self._norms.whole(side)

    def parameter_norms(self, side: int) -> FloatArray:
        """``[steps, columns]``; NaN where there was no gradient."""
        return self._norms.masked(side)

    def line_norms(self, side: int) -> FloatArray:
        """The norm of each line, ``[steps, lines]``; NaN where it had no gradient at all."""
        return self._norms.lines(side)

    def owner_norms(self, side: int) -> FloatArray:
        """The norm of each module that owns parameters itself, ``[steps, owners]``."""
        return self._norms.owners(side)

    def finest_norms(self, side: int) -> FloatArray:
        """The norm of each group of ``layout.finest``, ``[steps, groups]``."""
        return self.owner_norms(side) if self.layout.owners.names else self.line_norms(side)

    @once
    def silent(self) -> BoolArray:
        """Which group of ``layout.finest`` consumed exactly 0, or nothing at all, ``[steps, groups]``."""
        silent: BoolArray = self.finest_norms(AFTER) == 0.0
        silent |= self._norms.absent(AFTER, self.layout.finest)
        return silent

    @once
    def silent_whole(self) -> BoolArray:
        """In which steps all that there is consumed exactly 0, or nothing at all, ``[steps]``."""
        silent: BoolArray = self.norms(AFTER) == 0.0
        silent |= self._norms.nothing(AFTER)
        return silent

    @once
    def clipping(self) -> list[tuple[float | None, bool]]:
        """The tightest finite limit of clipping by norm, if any; and whether it was in force."""
        calls = self.common.calls
        if calls == ():
            return [(None, False)] * len(self)
        if calls is not None and len(calls) == 1:
            function, limits, _, norms, columns, _ = calls[0]
            if norms is not None and all(_holds_a_norm(function, limit, columns) for limit in set(limits)):
                return list(zip(limits, map(gt, norms, limits), strict=True))
        return [self._clipping(index, row.clips) for index, row in enumerate(self.rows)]

    @once
    def clip_ratios(self) -> list[float]:
        """The norm after clipping over the norm before, see ``clip_ratio``."""
        before, after = self.wholes
        # Where no quotient is of 0 or Inf it is just that.
        return list(map(truediv, after, before) if self._norms.are_in_range else map(clip_ratio, before, after))

    def rounding(self, columns: Columns) -> float:
        """Machine epsilon of the coarsest type among some columns; 0 where there are none."""
        return self._scope(columns).rounding

    def scope_norms(self, side: int, columns: Columns) -> FloatArray:
        """The norm of some columns taken together, ``[steps]``; NaN where none of them had a gradient."""
        return self._norms.scope(side, columns)

    @once
    def are_finite(self) -> bool:
        """Whether no gradient in it held NaN or Inf, and no step was skipped."""
        return self._norms.are_in_range or all(all(map(math.isfinite, side)) for side in self.wholes)

    @once
    def nonfinite(self) -> BoolArray:
        """Whether any gradient of a step held NaN or Inf, ``[steps]``."""
        return np.zeros(len(self), dtype=bool) if self.are_finite else in_any(self._bad)

    @property
    def smallest(self) -> float:
        """No gradient has a smaller norm, on either side; 0 where one was missing, NaN where one is."""
        return self._norms.smallest

    @once
    def wholes(self) -> tuple[list[float], list[float]]:
        """``norms`` of both sides, as Python's own numbers."""
        both: list[float] = self._norms.wholes.tolist()
        return both[: len(self)], both[len(self) :]

    @once
    def logarithms(self) -> list[float] | None:
        """Those of the norms before clipping, ``[steps]``; None where one of these is 0 or not finite."""
        norms, _ = self.wholes
        return list(map(math.log, norms)) if all(norms) and all(map(math.isfinite, norms)) else None

    def _scope(self, columns: Columns) -> Scope:
        """What the clip calls that were given these columns have in common; looked up once a block."""
        known = self._scopes.get(id(columns))
        if known is None:
            norms = [self.scope_norms(side, columns).tolist() for side in (BEFORE, AFTER)]
            before, after = norms if len(columns) else [[None] * len(self)] * 2
            rounding = float(self.layout.rounding[columns].max(initial=0.0))
            # scope_norms keeps the array, so that its number is no other's.
            known = self._scopes[id(columns)] = Scope(before, after, rounding)
        return known

    # What records are made of, as Python's own numbers: for all steps of the block at once, where it is cheap.

    @once
    def _tables(self) -> tuple[Tables, Tables, Tables]:
        """The norms of its lines, of its owners and of its columns."""
        layout = self.layout
        return (
            Tables(layout.lines.places, self.line_norms),
            Tables(layout.owners.places, self.owner_norms),
            Tables(layout.places, self.parameter_norms),
        )

    @once
    def _any_bad(self) -> list[bool]:
        """Whether any gradient of a step held NaN or Inf, one for each."""
        flags: list[bool] = self.nonfinite.tolist()
        return flags

    @once
    def _bad(self) -> BoolArray:
        """Which gradient held NaN or Inf, on either side, ``[steps, columns]``.

        What a skipped step did not consume tells nothing.
        """
        skipped = np.array([row.skipped for row in self.rows])[:, None]
        # What is not there is 0 here, and finite.
        bad: BoolArray = ~np.isfinite(self._norms.norms(BEFORE))
        bad |= ~np.isfinite(self._norms.norms(AFTER)) & ~skipped
        return bad

    def _present(self, side: int) -> BoolArray:
        """Which gradients were there, ``[steps, columns]``."""
        flags = [row.facts.had_before if side == BEFORE else row.facts.has_after for row in self.rows]
        return np.array(flags, dtype=bool).reshape(len(self.rows), len(self.layout.names))

    def _record(self, index: int) -> StepRecord:
        row, layout = self.rows[index], self.layout
        before, after = self.wholes[BEFORE][index], self.wholes[AFTER][index]
        modules, owners, parameters = [table.at(index) for table in self._tables]
        clips = tuple(clip_call(layout, clip, self._scope(clip.columns), index) for clip in row.clips)
        max_norm, clipped = self.clipping[index]
        odd = {}
        if not row.facts.as_usual:
            odd = what_is_odd(layout, row.facts, self.parameter_norms(AFTER)[index])
        return StepRecord(
            optimizer=layout.optimizer,
            step=row.step,
            time=row.time,
            norm_before=before,
            norm_after=after,
            clip_ratio=self.clip_ratios[index],
            max_norm=max_norm,
            clipped=clipped,
            clips=clips,
            modules=modules,
            owners=owners,
            parameters=parameters,
            backward_passes=row.backward_passes,
            skipped=row.skipped,
            loss_scale=row.loss_scale,
            loop_step=row.loop_step,
            nonfinite=layout.named(self._bad[index]) if self._any_bad[index] else (),
            left_out=row.left_out or {},
            clipped_instead=row.clipped_instead,
            lost_passes=row.lost_passes,
            lost=row.lost,
            compared=row.compared,
            **odd,
        )

    def _clipping(self, index: int, clips: Sequence[NotedClip]) -> tuple[float | None, bool]:
        tightest, in_force = None, False
        for clip in clips:
            if not _holds_a_norm(clip.function, clip.limit, clip.columns):
                continue
            tightest = clip.limit if tightest is None else min(tightest, clip.limit)
            # The limit is held against the norm that torch was asked for, which need not be an L2 norm.
            norm = clip.norm_returned
            if norm is None:
                norm = float(self.scope_norms(BEFORE, clip.columns)[index])
            in_force = in_force or norm > clip.limit
        return tightest, in_force


def _holds_a_norm(function: str, limit: float, columns: Columns) -> bool:
    """Whether a clip call holds the norm of some of the gradients to this limit."""
    return function != BY_VALUE and math.isfinite(limit) and len(columns) > 0
