"""What the steps of late were like, and so which one is told of at once: a few comparisons, and no rule."""

from __future__ import annotations

import sys

from gradwatch.blocks import Facts

__all__ = ["OfLate"]


class OfLate:
    """Those of one optimizer."""

    # Times the norm of late from which a step is told of at once.
    FAR_ABOVE = 10.0

    # The square of a norm that is usual before any is known: each that is finite.
    ANY = sys.float_info.max / FAR_ABOVE**2

    # Odd steps of one kind that are told of at once before they count as usual: a rule may want to see several.
    ALIKE = 4

    # Where steps differ all the time, as with experts that are drawn, one in so many is told of at once.
    ONE_IN, AT_ONCE = 4, 16

    # Kinds that are remembered.
    MOST = 64

    def __init__(self) -> None:
        self._usual_square = self.ANY
        # Of the newest step; None where there was none since the last one was told of.
        self._newest_square: float | None = None
        # What was odd in the newest step, and in how many running it was so.
        self._running: tuple[tuple[Facts, int] | None, int] = None, 0
        # By this, how many steps there were of late.
        self._kinds: dict[tuple[tuple[Facts, int], int], int] = {}
        self._any_odd = False
        self._at_once = float(self.AT_ONCE)

    def is_broken_by(self, facts: Facts, faint: int, before: float, after: float) -> bool:
        """Take in a step: whether it is to be told of at once.

        Args:
            facts: what is known of its gradients besides norms.
            faint: how many are exactly 0, or nearly so.
            before: the sum of their squares before clipping.
            after: the same as they are consumed.
        """
        self._newest_square = before
        limit = self.FAR_ABOVE**2 * self._usual_square
        # Written so that NaN breaks it too.
        far_above = not (before <= limit and after <= limit)
        if faint or not facts.as_usual:
            return self._is_odd((facts, faint)) or far_above
        self._running = None, 0
        if self._at_once < self.AT_ONCE:
            self._at_once += 1 / self.ONE_IN
        return far_above

    def _is_odd(self, what: tuple[Facts, int]) -> bool:
        """Whether steps of this kind are not usual yet, and not too many were told of at once."""
        self._any_odd = True
        # What lasts is another thing than what comes and goes: it may be other gradients, and as many.
        before, steps = self._running
        self._running = kind = what, min(steps, self.ALIKE) + 1 if what == before else 1
        if kind not in self._kinds and len(self._kinds) >= self.MOST:
            self._kinds.clear()
        seen = self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if seen <= self.ALIKE and kind[1] <= self.ALIKE and self._at_once >= 1.0:
            self._at_once -= 1.0
            return True
        self._at_once = min(self._at_once + 1 / self.ONE_IN, self.AT_ONCE)
        return False

    def settled(self) -> None:
        """The newest step is told of, and nothing hangs on the next one: norms like its own are usual."""
        if self._usual_square == self.ANY:
            # Where only other optimizers' steps are told of, the first of this one is news.
            self._usual_square = 0.0
        if self._newest_square is None:
            return
        self._usual_square = max(self._newest_square, 0.9 * self._usual_square)
        self._newest_square = None
        if not self._any_odd:
            # None since the last one that was told of: what begins then is new.
            self._kinds.clear()
        self._any_odd = False
