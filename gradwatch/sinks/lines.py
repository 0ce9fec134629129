"""The lines of a block: byte for byte those of its records, and no record is made for most of them.

What the steps of a training loop have in common is a form, and a line is that form with the numbers of its step.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, BY_GIVEN_NORM, Block, Columns, FloatArray, NotedClip
from gradwatch.records import GroupNorms, StepRecord
from gradwatch.sinks.encoding import BLANK, encoded, line

__all__ = ["BlockLines"]

# What these say does not depend on the norms of a step, unlike what is stale or leaked.
_SAME_IN_ALL = frozenset({"unwritten", "frozen"})


class BlockLines:
    """Writes blocks, and keeps the forms that it has met."""

    # One for each way in which steps differ in more than numbers; what is another each time has none.
    MOST_FORMS = 64

    def __init__(self) -> None:
        self._forms: dict[Hashable, str] = {}

    def of(self, block: Block) -> list[str]:
        """A line for each step."""
        alike: dict[Hashable, list[int]] = {}
        for index in range(len(block)):
            alike.setdefault(_key(block, index), []).append(index)
        numbers, lines = _Numbers(block), [""] * len(block)
        for key, indices in alike.items():
            form = self._form(key, block, indices[0])
            filled = None if form is None else map(form.__mod__, zip(*numbers.of(indices), strict=True))
            for index in indices:
                lines[index] = line("step", block[index]) if filled is None else next(filled)
        return lines

    def _form(self, key: Hashable, block: Block, index: int) -> str | None:
        """The form of such steps; None where they have none."""
        if key is not None and key not in self._forms and len(self._forms) < self.MOST_FORMS:
            self._forms[key] = _form(block[index])
        return self._forms.get(key)


def _key(block: Block, index: int) -> Hashable:
    """All that a line says besides its numbers, and which of these there are; None where more depends on them."""
    row = block.rows[index]
    if block.nonfinite[index] or row.compared is not None or not row.facts.marks <= _SAME_IN_ALL:
        return None
    limit, clipped = block.clipping[index]
    return (
        block.layout,
        None if row.facts.as_usual else row.facts,
        limit is None,
        clipped,
        *[_key_of(clip, block) for clip in row.clips],
        row.backward_passes,
        row.lost_passes,
        row.lost,
        row.skipped,
        row.loss_scale is None,
        row.loop_step is None,
        row.left_out and tuple(row.left_out.items()),
        row.clipped_instead,
    )


def _key_of(clip: NotedClip, block: Block) -> Hashable:
    function, _, norm_type, returned, columns, repeated = clip
    return function, norm_type, returned is None, len(columns) == 0, block.rounding(columns), repeated


def _form(record: StepRecord) -> str:
    """A line with ``%s`` in place of each number, in the order of ``_Numbers.of``."""
    blank: Any = BLANK
    norms = GroupNorms(blank, blank)
    clips = [
        replace(
            clip,
            limit=blank,
            norm_returned=clip.norm_returned if clip.norm_returned is None else blank,
            scope_before=clip.scope_before if clip.scope_before is None else blank,
            scope_after=clip.scope_after if clip.scope_after is None else blank,
            norm_given=clip.norm_given if clip.norm_given is None else blank,
        )
        for clip in record.clips
    ]
    empty = replace(
        record,
        step=blank,
        time=blank,
        norm_before=blank,
        norm_after=blank,
        clip_ratio=blank,
        max_norm=record.max_norm if record.max_norm is None else blank,
        clips=tuple(clips),
        modules=dict.fromkeys(record.modules, norms),
        parameters=dict.fromkeys(record.parameters, norms),
        loss_scale=record.loss_scale if record.loss_scale is None else blank,
        loop_step=record.loop_step if record.loop_step is None else blank,
    )
    return line("step", empty).replace("%", "%%").replace(encoded(blank), "%s")


class _Numbers:
    """The numbers of a block in words."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._words: dict[int, tuple[FloatArray, list[str]]] = {}
        before, after = [np.hstack((block.line_norms(s), block.parameter_norms(s))).T for s in (BEFORE, AFTER)]
        first = _in_words(before.ravel())
        # Where nothing was clipped both sides are the same, and words take longer than all the rest.
        second = first if before.tobytes() == after.tobytes() else _in_words(after.ravel())
        size = len(block)
        places = range(0, len(first), size)
        self._tables = [words[place : place + size] for place in places for words in (first, second)]
        self._wholes = self._norms(BEFORE), self._norms(AFTER), _in_words(np.array(block.clip_ratios))

    def of(self, indices: Sequence[int]) -> Iterator[Iterable[str]]:
        """Those of some steps with one form: one field after the other, and in each one step after the other."""
        block = self._block
        rows = [block.rows[index] for index in indices]
        yield [repr(row.step) for row in rows]
        yield [repr(row.time) for row in rows]
        yield from (_picked(words, indices) for words in self._wholes)
        yield from _where_given([block.clipping[index][0] for index in indices])
        for clips in zip(*[row.clips for row in rows], strict=True):
            yield [encoded(clip.limit) for clip in clips]
            norms, were_given = [clip.norm_returned for clip in clips], clips[0].function == BY_GIVEN_NORM
            yield from () if were_given else _where_given(norms)
            if len(clips[0].columns):
                for side in (BEFORE, AFTER):
                    yield [self._norms(side, clip.columns)[i] for clip, i in zip(clips, indices, strict=True)]
            yield from _where_given(norms) if were_given else ()
        yield from (_picked(words, indices) for words in self._tables)
        yield from _where_given([row.loss_scale for row in rows])
        yield from _where_given([row.loop_step for row in rows])

    def _norms(self, side: int, columns: Columns | None = None) -> Sequence[str]:
        block = self._block
        norms = block.norms(side) if columns is None else block.scope_norms(side, columns)
        # The block has one array for it: of all columns it is that of the global norm. It is kept here too, so
        # that its number is no other's: a thread that works it out at the same time may put its own in its place.
        known = self._words.get(id(norms))
        if known is None:
            known = self._words[id(norms)] = norms, _in_words(norms)
        return known[1]


def _picked(words: Sequence[str], indices: Sequence[int]) -> Sequence[str]:
    return words if len(indices) == len(words) else [words[index] for index in indices]


def _where_given(numbers: Sequence[float | None]) -> Iterator[Iterable[str]]:
    """A field, unless it is None, in all steps alike."""
    if numbers[0] is not None:
        yield map(encoded, numbers)


def _in_words(numbers: FloatArray) -> list[str]:
    return list(map(repr if np.isfinite(numbers).all() else encoded, numbers.tolist()))
