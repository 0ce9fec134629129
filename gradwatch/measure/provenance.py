"""What is known of one optimizer's gradients between two events, and what each event leads to.

A loop repeats a few events in a few states, so that the functions of ``gradwatch.measure.events`` are computed at
the first sight and remembered: ``Provenance`` is such a state, and knows where it was led by what.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradwatch.blocks import BoolArray
from gradwatch.measure.events import (
    BEGUN_ANEW,
    MEASURED,
    OUTDATED,
    TOUCHED,
    WRITTEN,
    Consumed,
    Flags,
    Numbers,
    has,
)

__all__ = ["Consumed", "Provenance", "Seen"]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What follows from one event.

    Attributes:
        state: what is known then.
        places: the columns to measure before clipping now, int64, as ``kernel.norms`` takes them; b"" for none.
        look_at: columns whose values alone can tell whether they were zeroed.
        consumed: where the event is a step.
        erased: of what was written and not used yet, the columns that are gone, and those whose values tell
            whether they were zeroed; None where all of it is as it was.
        written: where the event is the end of a pass, the columns that it wrote.
    """

    state: Provenance
    places: bytes = b""
    look_at: tuple[int, ...] = ()
    consumed: Consumed | None = None
    erased: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    written: frozenset[int] = frozenset()


class Provenance(dict[tuple[Any, ...], Seen]):
    """What is known of each gradient of one optimizer, between two events: event -> what follows from it.

    An event is a function of ``events``, and its further arguments; what follows is worked out when it is asked
    for the first time. What is known never changes.

    Args:
        flags: ``[columns]``.
        losses: number of the loss whose pass wrote each last, ``[columns]``.
    """

    # A loop that never repeats an event, such as one with experts that are drawn, must not fill memory.
    MOST_KNOWN = 64

    def __init__(self, flags: Flags, losses: Numbers, known: dict[bytes, Provenance] | None = None) -> None:
        super().__init__()
        self.flags = flags
        self.losses = losses
        self._known = {self._key: self} if known is None else known

    @classmethod
    def unknown(cls, columns: int) -> Provenance:
        """Nothing is known yet of so many gradients; what it was led to is known to every tracker."""
        known = _begun.get(columns)
        if known is None:
            if len(_begun) >= _MOST_BEGUN:
                _begun.clear()
            known = _begun[columns] = {}
        new = cls(np.zeros(columns, dtype=np.uint32), np.zeros(columns, dtype=np.int64), known)
        return known.setdefault(new._key, new)

    @property
    def _key(self) -> bytes:
        return self.flags.tobytes() + self.losses.tobytes()

    def __missing__(self, event: tuple[Any, ...]) -> Seen:
        function, *arguments = event
        flags, losses, rest = function(self.flags.copy(), self.losses, *arguments)
        if len(self._known) >= self.MOST_KNOWN or len(self) >= self.MOST_KNOWN:
            self._forget()
        new = Provenance(flags, losses, self._known)
        seen = self[event] = Seen(self._known.setdefault(new._key, new), **rest)
        return seen

    def _forget(self) -> None:
        # Each of them: who rests in an old one would hold all that others were led to from there.
        for state in (self, *self._known.values()):
            state.clear()
        self._known.clear()

    @cached_property
    def unwritten(self) -> tuple[int, ...]:
        """The columns that no backward pass has written since the last step that was measured."""
        return tuple(np.flatnonzero(~has(self.flags, WRITTEN)).tolist())  # numpy: no device is read

    @cached_property
    def outdated(self) -> tuple[int, ...]:
        """The columns that were clipped after they were measured."""
        # numpy: no device is read
        return tuple(np.flatnonzero(has(self.flags, MEASURED) & has(self.flags, OUTDATED)).tolist())

    @property
    def is_touched(self) -> bool:
        """Whether the pass that runs now has written any."""
        return bool(has(self.flags, TOUCHED).any())

    def is_begun_anew(self, column: int) -> bool:
        """Whether nothing is left of what this gradient was at its last clip call."""
        return bool(self.flags[column] & BEGUN_ANEW)

    def with_columns(self, columns: Numbers, known: BoolArray) -> Provenance:
        """The same for other columns: those of a new list of parameters.

        Args:
            columns: the old column of each new one.
            known: whether there was one.
        """
        flags, losses = self.flags[columns].copy(), self.losses[columns].copy()
        flags[~known], losses[~known] = 0, 0
        return Provenance(flags, losses)


# By the number of columns, what is known of them; whatever an optimizer is, what follows from an event depends on
# nothing else.
_begun: dict[int, dict[bytes, Provenance]] = {}
_MOST_BEGUN = 32
