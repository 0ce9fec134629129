"""Gradients that are exactly 0 in most steps, and there in the others.

Each silence by itself is too short to be told: where modules come and go, a long one is usual. A loss that is
often satisfied does that, as a triplet's, and so does a module that is drawn now and then; nothing is wrong with
either. A tanh that is saturated for most batches does it too. The records cannot tell these apart, and a look at
the graph of such a step can.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gradwatch.judge.naming import Naming
from gradwatch.judge.plain import CAUSE, restored, saved_values
from gradwatch.judge.rule import Finding
from gradwatch.judge.scale import DEAD
from gradwatch.records import Cause, StepRecord
from gradwatch.shapes import COUNT, NAME, Listed, Maybe, Row

__all__ = ["Flickers"]


class Flickers:
    """The modules of one optimizer.

    A module is suspected where the median of its gradient of late is 0. It is told where a look finds that a dead
    activation is why, until it is 0 in less than a quarter of the steps.

    Args:
        clears_after: steps running without a finding before a name is given up.

    Attributes:
        shown: those of which a look has shown it, and how.
        suspects: those that are to be looked into.
    """

    WINDOW = 48
    _MASK = (1 << WINDOW) - 1

    # A look meets a step with a gradient as well as one without, and may tell nothing of a module that is drawn:
    # it is asked for again after so many steps, then after twice as many, and so on up to the second number.
    _AGAIN, _SELDOM = 32, 1024

    def __init__(self, clears_after: int) -> None:
        self.shown: dict[str | None, Cause] = {}
        self.suspects: tuple[str, ...] = ()
        self._naming = Naming(clears_after)
        # The last steps of each module that was 0 in any of them: a bit for each, the newest one last.
        self._steps: dict[str | None, int] = {}
        # By module: the step from which on it may be asked for again, and for how long it waited last.
        self._asked: dict[str | None, tuple[int, int]] = {}
        self._now = 0

    def take(self, silent: Collection[str | None], told: Container[str | None] = (), steps: int = 1) -> None:
        """Take in a step, or several that are alike.

        Args:
            silent: the modules without a gradient.
            told: those that are told of as silent already.
            steps: how many there are.
        """
        self._now += steps
        if not (self._steps or silent):
            return
        before, ones = {**dict.fromkeys(silent, 0), **self._steps}, (1 << steps) - 1
        shifted = {m: ((bits << steps) | (ones * (m in silent))) & self._MASK for m, bits in before.items()}
        self._steps = {module: bits for module, bits in shifted.items() if bits}
        zeros = {module: bits.bit_count() for module, bits in self._steps.items()}
        self.shown = {m: why for m, why in self.shown.items() if zeros.get(m, 0) >= self.WINDOW // 4}
        self.suspects = tuple(
            module
            for module, count in zeros.items()
            if count > self.WINDOW // 2 and module is not None and self._may_be_asked(module, told)
        )

    def are_told(self, told: Container[str | None]) -> bool:
        """Whether all that was 0 of late is told of as silent, so that nothing is found here."""
        return not self._naming and all(module in told for module in self._steps)

    def _may_be_asked(self, module: str, told: Container[str | None]) -> bool:
        return module not in self.shown and module not in told and self._now >= self._asked.get(module, (0, 0))[0]

    def answered(self, causes: Mapping[str, Cause]) -> None:
        """What a look has found of the suspects."""
        for module in [suspect for suspect in self.suspects if suspect in causes]:
            if causes[module].kind in DEAD:
                self.shown[module] = causes[module]
            else:
                wait = min(max(2 * self._asked.get(module, (0, 0))[1], self._AGAIN), self._SELDOM)
                self._asked[module] = self._now + wait, wait
        self.suspects = tuple(suspect for suspect in self.suspects if suspect not in causes)

    def findings(
        self, record: StepRecord, modules: Sequence[str | None], told: Container[str | None]
    ) -> Iterator[Finding]:
        """A warning for those that are shown, unless they are told of as silent already."""
        # Of a state that was saved, also what there is no more.
        reasons = {m: why.kind for m, why in self.shown.items() if m in modules and m not in told}
        for path, those in self._naming.take(reasons, modules, tuple(record.modules)).items():
            most = max(those, key=lambda module: self._steps[module].bit_count())
            message = (
                f"the gradient of {self._naming.words(path)} was exactly 0 in {self._steps[most].bit_count()} of "
                f"the last {self.WINDOW} steps, so nothing was learned there in those"
            )
            yield Finding(path, 0.0, 0.0, message, "warning", self.shown[most], at_once=True)

    remembers = Listed(Row(NAME, COUNT, Maybe(CAUSE)))

    def state_dict(self) -> list[list[Any]]:
        """What is remembered, as plain values; names are given anew."""
        shown = {module: saved_values(asdict(why)) for module, why in self.shown.items()}
        return [[module, bits, shown.get(module)] for module, bits in self._steps.items()]

    def load_state_dict(self, state: Sequence[Sequence[Any]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._steps = {module: bits & self._MASK for module, bits, _ in state}
        self.shown = {module: Cause(**restored(why)) for module, _, why in state if why is not None}
