"""Steps of several blocks in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple, overload

from gradwatch.blocks.block import Block
from gradwatch.blocks.once import once
from gradwatch.records import StepRecord

__all__ = ["Alike", "Steps", "optimizer_of"]

_pairs = attrgetter("pairs")


class Alike(NamedTuple):
    """Steps that one sequence holds, a block or some records alike.

    Attributes:
        records: the sequence.
        places: where in it each step is.
        at: where each is among the steps of all sequences.
    """

    records: Sequence[StepRecord]
    places: list[int]
    at: list[int]


class Steps(Sequence[StepRecord]):
    """Steps of several blocks in the order of time; a record is made when it is first read, and once.

    Nobody who is handed them can change them for another.

    Args:
        pairs: for each step the block that holds it, or another sequence of records alike, and its place there.
    """

    def __init__(self, pairs: Iterable[tuple[Sequence[StepRecord], int]]) -> None:
        self.pairs = tuple(pairs)
        self._made: list[StepRecord | None] = []

    @classmethod
    def of(cls, records: Sequence[StepRecord]) -> Steps:
        """The same steps; of records made by hand, which need not be alike, each is a sequence of its own."""
        if isinstance(records, Steps):
            return records
        if isinstance(records, Block):
            return cls(zip(repeat(records), range(len(records)), strict=False))
        return cls(((record,), 0) for record in records)

    @classmethod
    def joined(cls, several: Iterable[Steps]) -> Steps:
        """One after another; no record is made."""
        filled = [steps for steps in several if steps.pairs]
        # What one has worked out is there for all who are handed it.
        return filled[0] if len(filled) == 1 else cls(chain.from_iterable(map(_pairs, filled)))

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

    @once
    def alike(self) -> Sequence[Alike]:
        """The same steps by the sequence that holds them; no record of a block is made."""
        found: dict[int, Alike] = {}
        ids = list(map(id, map(itemgetter(0), self.pairs)))
        # Mostly a block after the other: a step for itself is no call of Python.
        for number, run in groupby(range(len(ids)), ids.__getitem__):
            at = list(run)
            known = found.get(number)
            if known is None:
                known = found[number] = Alike(self.pairs[at[0]][0], [], [])
            known.places.extend(map(itemgetter(1), self.pairs[at[0] : at[-1] + 1]))
            known.at.extend(at)
        return tuple(found.values())

    def newest(self) -> dict[str, tuple[Sequence[StepRecord], int]]:
        """The last pair of each optimizer, by its name; no record of a block is made."""
        return {optimizer_of(*pair): pair for pair in self._last}

    @once
    def sequences(self) -> list[Sequence[StepRecord]]:
        """What holds them, each once."""
        return [records for records, _ in self._last]

    @once
    def _last(self) -> Iterable[tuple[Sequence[StepRecord], int]]:
        """The last pair of each sequence."""
        return dict(zip(map(id, map(itemgetter(0), self.pairs)), self.pairs, strict=True)).values()


def optimizer_of(block: Sequence[StepRecord], place: int) -> str:
    """The optimizer of a step, by the sequence that holds it."""
    return block.layout.optimizer if isinstance(block, Block) else block[place].optimizer
