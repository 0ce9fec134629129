"""How norms went over a whole run, in a few characters a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.blocks import FloatArray

__all__ = ["Trend"]

_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
_NOTHING, _ASCII_NOTHING = "·", " "


class Trend:
    """The mean logarithm of each line's norm in equal shares of the run, at most ``SHARES`` of them.

    A share holds one step, then two, four, ...: neighbours are joined when there is no room. What is drawn depends
    on the steps alone, not on how they came in blocks.

    Args:
        lines: how many lines there are.
    """

    SHARES = 12

    def __init__(self, lines: int) -> None:
        self._first = 0
        self._size = 1
        self._sums = np.zeros((self.SHARES, lines))
        self._counts = np.zeros((self.SHARES, lines))
        self._filled = 0

    def add(self, steps: Sequence[int], norms: FloatArray) -> None:
        """Take in the norms of some steps, ``[steps, lines]``; what is 0 or not finite leaves a gap."""
        self._first = self._first or steps[0]
        # A run that was begun again counts anew: what is before the first step is taken for the first.
        places = np.maximum(np.asarray(steps) - self._first, 0)
        while places.max() // self._size >= self.SHARES:
            self._halve()
        there = np.isfinite(norms) & (norms > 0.0)
        logs = np.log10(norms, out=np.zeros_like(norms), where=there)
        np.add.at(self._sums, places // self._size, logs)
        np.add.at(self._counts, places // self._size, there)
        self._filled = max(self._filled, int(places.max()) // self._size + 1)

    def drawn(self, line: int, ascii_only: bool) -> str:
        """A character for each share: its height within the line's own range, which spans a decade at least."""
        bars, nothing = (_ASCII_BARS, _ASCII_NOTHING) if ascii_only else (_BARS, _NOTHING)
        counts = self._counts[: self._filled, line]
        heights = [s / c if c else math.nan for s, c in zip(self._sums[:, line], counts, strict=False)]
        known = [height for height in heights if not math.isnan(height)]
        if not known:
            return nothing * len(heights)
        # Half a decade to either side of the middle: the noise of batches shall look flat.
        low, high = min(known), max(known)
        room = max(high - low, 1.0)
        base = (low + high - room) / 2
        top = len(bars) - 1
        return "".join(nothing if math.isnan(h) else bars[round((h - base) / room * top)] for h in heights)

    def _halve(self) -> None:
        half = self.SHARES // 2
        for table in (self._sums, self._counts):
            table[:half] = table[0::2] + table[1::2]
            table[half:] = 0.0
        self._size *= 2
        self._filled = (self._filled + 1) // 2
