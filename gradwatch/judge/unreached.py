"""Parameters without a gradient inside modules that learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gradwatch.blocks import Block, Facts, Layout
from gradwatch.judge.presence import Presences
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.paths import owner_of
from gradwatch.printing import called
from gradwatch.records import StepRecord

__all__ = ["Unreached"]


class _Missing(NamedTuple):
    """Parameters without a gradient that require one, and those of them whose module has others with one."""

    names: tuple[str, ...]
    beside: tuple[str, ...]

    @classmethod
    def of(cls, record: StepRecord) -> _Missing:
        frozen, silent = set(record.frozen), set(record.missing_owners)
        names = tuple(name for name in record.missing if name not in frozen)
        owners = [owner_of(name) for name in names]
        beside = (
            name
            for name, owner in zip(names, owners, strict=True)
            if owner in record.owners and owner not in silent
        )
        return cls(names, tuple(beside))


class Unreached:
    """The parameters of one optimizer that are missing while others of the same module have a gradient.

    They may be drawn at random, as experts in one list are: a silence must then be longer than chance explains, as
    with modules. Where every parameter always has a gradient, a step costs nothing here.

    Args:
        after: steps running without a gradient before one is told of.

    Attributes:
        looks: whether any has ever been missing, so that each step counts.
    """

    def __init__(self, after: int) -> None:
        self.looks = False
        self._presences = Presences(after)
        # What is missing is a function of these two, which many steps share.
        self._last: tuple[Layout, Facts, _Missing] | None = None

    def take_in(self, block: Block, index: int) -> bool:
        """One more step; whether there may be findings in it."""
        return self._taken(block.layout.names, self._missing(block, index))

    def take_on(self, block: Block, index: int, steps: int) -> None:
        """So many more steps that are like this one, in which there was nothing to be found."""
        self._taken(block.layout.names, self._missing(block, index), steps)

    def may_find(self, block: Block, index: int) -> bool:
        """Whether something may be found in a step like this one, for however long it goes on."""
        return bool(self._missing(block, index).beside)

    def _missing(self, block: Block, index: int) -> _Missing:
        layout, facts = block.layout, block.rows[index].facts
        if facts.complete:
            return _Missing((), ())
        if self._last is None or self._last[0] is not layout or self._last[1] is not facts:
            self._last = layout, facts, _Missing.of(block[index])
        return self._last[2]

    def look(self, record: StepRecord) -> list[Finding]:
        """One more step, as a record: its findings."""
        missing = _Missing.of(record) if record.missing else _Missing((), ())
        return list(self.findings(record)) if self._taken(tuple(record.parameters), missing) else []

    def findings(self, record: StepRecord) -> Iterator[Finding]:
        """A warning for each module that learns but for some of its parameters, in the step just taken in."""
        by_owner: dict[str, list[str]] = {}
        for name in _Missing.of(record).beside:
            if self._is_silent_for_too_long(name):
                by_owner.setdefault(owner_of(name), []).append(name)
        for owner, names in by_owner.items():
            message = (
                f"the gradient of {listed(names)} is missing: .grad is None, while other parameters of "
                f"{called(owner)} have one, so nothing is learned there"
            )
            yield Finding(owner, 0.0, 0.0, message, "warning", at_once=True)

    def _taken(self, names: Sequence[str], missing: _Missing, steps: int = 1) -> bool:
        self.looks = self.looks or bool(missing.names)
        if not self.looks:
            return False
        self._presences.take(names, missing.names, steps=steps)
        return any(self._is_silent_for_too_long(name) for name in missing.beside)

    def _is_silent_for_too_long(self, name: str) -> bool:
        return self._presences.silence(name) >= self._presences.patience(name)

    def state_dict(self) -> list[list[Any]] | None:
        """What is remembered, as plain values."""
        return self._presences.state_dict() if self.looks else None

    def load_state_dict(self, state: list[list[Any]] | None) -> None:
        """Go on from what ``state_dict`` gave."""
        if state is not None:
            self.looks = True
            self._presences.load_state_dict(state)
