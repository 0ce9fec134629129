"""Steps of several blocks in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from gradwatch.blocks.block import Block
from gradwatch.records import StepRecord

__all__ = ["Steps"]


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
