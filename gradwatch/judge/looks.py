"""How a rule is led through steps: one record, or a block of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import cast

from gradwatch.blocks import Block
from gradwatch.judge.episodes import Episodes
from gradwatch.judge.finding import Finding
from gradwatch.judge.rule import GoingOn, Rule, Screening
from gradwatch.records import StepRecord

__all__ = ["Look", "Looks"]

# Index among the steps that are judged, number of the step, and what was found there.
_Looked = tuple[int, int, "Iterable[Finding] | None"]


class Look:
    """How a rule looks at one record."""

    def __init__(self, record: StepRecord) -> None:
        self._record = record
        self.index, self.step = 0, record.step

    def __call__(self, rule: Rule, episodes: Episodes) -> Iterator[_Looked]:
        """What the rule finds in it."""
        yield 0, self.step, rule.look(self._record)


class Looks:
    """How a rule looks at a block: over what is well where it can do so, and at one record after another else.

    While one of its episodes is open each step counts, since what is well may end it; unless the rule sees for
    itself where it goes on as it was.

    Attributes:
        index: of the step from which on a rule looks now.
    """

    def __init__(self, block: Block, screening: Container[int]) -> None:
        self._block = block
        self._steps = len(block)
        self._screening = screening
        self._records: dict[int, StepRecord] = {}
        self.index = 0

    @property
    def step(self) -> int:
        """Its number."""
        return self._block.rows[self.index].step

    def __call__(self, rule: Rule, episodes: Episodes) -> Iterator[_Looked]:
        """The steps that may change something, and what the rule finds in them."""
        self.index = index = 0
        while index < self._steps:
            index, found = self._next(rule, episodes, index)
            if index == self._steps:
                return
            yield index, self._block.rows[index].step, found
            index += 1
            self.index = min(index, self._steps - 1)

    def _next(self, rule: Rule, episodes: Episodes, index: int) -> tuple[int, Iterable[Finding] | None]:
        """The next step that may change something, and what the rule finds there."""
        if id(rule) in self._screening:
            if not episodes:
                return self._further(cast(Screening, rule).look_over(self._block, index), index)
            goes_on = all(episode.alert is not None and not episode.well for episode in episodes.values())
            if goes_on and hasattr(rule, "look_on"):
                return self._further(cast(GoingOn, rule).look_on(self._block, index), index)
        return index, rule.look(self._record(index))

    def _further(
        self, went: tuple[int, Iterable[Finding] | None], start: int
    ) -> tuple[int, Iterable[Finding] | None]:
        """A rule that does not go on would be asked for ever."""
        index, found = went
        if not start <= index <= self._steps:
            raise ValueError(f"it was to go on from step {start} of {self._steps}, and has come to {index!r}")
        return index, found

    def _record(self, index: int) -> StepRecord:
        if index not in self._records:
            self._records[index] = self._block[index]
        return self._records[index]
