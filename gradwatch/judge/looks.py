"""How a rule is led through steps: one record, or a block of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gradwatch.blocks import Block
from gradwatch.judge.episodes import Episodes
from gradwatch.judge.finding import Finding
from gradwatch.judge.rule import Rule, Screening, goes_on
from gradwatch.records import StepRecord

__all__ = ["Look", "Looks"]

# Index among the steps that are judged, number of the step, and what was found there.
_Looked = tuple[int, int, "Iterable[Finding] | None"]

# The same without the number.
_Next = tuple[int, "Iterable[Finding] | None"]


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

    While one of its episodes is open each step counts, since what is well may end it; unless all of them fire, and
    the rule sees for itself where it goes on as it was.

    Attributes:
        index: of the step from which on a rule looks now.
    """

    def __init__(self, block: Block, screening: Mapping[int, Screening]) -> None:
        self._block = block
        self._steps = len(block)
        self._screening = screening
        self._records: dict[int, StepRecord] = {}
        self.index = 0

    @property
    def step(self) -> int:
        """Its number."""
        return self._block.rows[self.index].step

    def __call__(self, rule: Rule, episodes: Episodes) -> Iterable[_Looked]:
        """The steps that may change something, and what the rule finds in them."""
        self.index = 0
        screening = self._screening.get(id(rule))
        if screening is None or episodes:
            return self._from(self._next(rule, episodes, 0), rule, episodes)
        looked = screening.look_over(self._block, 0)
        # Nearly always there are none.
        return () if looked[0] == self._steps else self._from(self._further(looked, 0), rule, episodes)

    def _from(self, looked: _Next, rule: Rule, episodes: Episodes) -> Iterator[_Looked]:
        """The same, when it has been asked for the first of them."""
        index, found = looked
        while index < self._steps:
            yield index, self._block.rows[index].step, found
            if index + 1 == self._steps:
                return
            self.index = index + 1
            index, found = self._next(rule, episodes, self.index)

    def _next(self, rule: Rule, episodes: Episodes, start: int) -> _Next:
        """The next step that may change something, and what the rule finds there."""
        screening = self._screening.get(id(rule))
        if screening is not None:
            if not episodes:
                return self._further(screening.look_over(self._block, start), start)
            if goes_on(rule) and all(one.goes_on(rule.fires_after) for one in episodes.values()):
                return self._further(rule.look_on(self._block, start), start)
        return start, rule.look(self._record(start))

    def _further(self, looked: _Next, start: int) -> _Next:
        """A rule that does not go on would be asked for ever."""
        index, _ = looked
        if not start <= index <= self._steps:
            raise ValueError(f"it was to go on from step {start} of {self._steps}, and has come to {index!r}")
        return looked

    def _record(self, index: int) -> StepRecord:
        if index not in self._records:
            self._records[index] = self._block[index]
        return self._records[index]
