"""The gradient panel of a film: the norm of each line against decisions, before clipping and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from examples.carla_td3.history import History, Line

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["INKS", "WORDS", "Panel"]

# The whole of an optimizer, its CNN, its MLP; thin and pale before clipping.
COLOURS = ("#222222", "#0072b2", "#d55e00")
PALE = ("#aaaaaa", "#9cc7e3", "#f2bd99")
GRID, WORDS, CRITICAL, WARNING = "#e4e4e4", "#444444", "#c00000", "#a06000"
INKS = (*COLOURS, *PALE, GRID, WORDS, CRITICAL, WARNING)
MARGIN, LEGEND, HEADING, ALERTS = 34, 178, 18, 32


class Panel:
    """Draws the sides of an agent one below the other.

    Args:
        history: of the run.
        first: decision at its left edge.
        last: at its right edge.
        box: left, top, right and bottom of where it is drawn, in pixels.
    """

    def __init__(self, history: History, first: int, last: int, box: tuple[int, int, int, int]) -> None:
        self._history = history
        left, top, right, bottom = box
        self._corner = left, bottom - ALERTS
        height = (self._corner[1] - top) / len(history.sides)
        self._plots = [
            Plot(
                side,
                lines,
                first,
                max(last, first + 1),
                (left, top + row * height, right, top + (row + 1) * height),
            )
            for row, (side, lines) in enumerate(history.sides.items())
        ]

    def draw(self, draw: ImageDraw, decision: int) -> None:
        """As it stands after this decision."""
        for plot in self._plots:
            plot.draw(draw, decision)
        for row, words in enumerate(self._history.firing(decision)[:2]):
            colour = CRITICAL if words.startswith("CRITICAL") else WARNING
            draw.text((self._corner[0], self._corner[1] + 15 * row), words, fill=colour, font_size=12)


class Plot:
    """The lines of one side; arguments as those of the panel."""

    def __init__(
        self, side: str, lines: Sequence[Line], first: int, last: int, box: tuple[float, float, float, float]
    ) -> None:
        self._side, self._lines, self._span = side, lines, (first, last)
        self._edge, top, right, bottom = box
        self._left, self._top, self._right, self._bottom = (
            *(self._edge + MARGIN, top + HEADING),
            *(right - LEGEND, bottom - 8),
        )
        shown = [norm for line in lines for at, *norms in line.points if first <= at <= last for norm in norms]
        logs = [math.log10(norm) for norm in shown if 0 < norm < math.inf]
        # One decade more below, so that what is exactly 0 lies apart.
        self._low = math.floor(min(logs, default=-1.0)) - 1
        self._high = max(math.ceil(max(logs, default=0.0)), self._low + 2)

    def draw(self, draw: ImageDraw, decision: int) -> None:
        """As it stands after this decision."""
        self._axes(draw)
        # The whole, which is the root of its parts' squares, lies behind them.
        for index, line in enumerate(self._lines):
            known = [point for point in line.points if point[0] <= decision]
            for at, colour, width in ((1, PALE[index], 1), (2, COLOURS[index], 2)):
                places = [
                    (self._x(point[0]), self._y(point[at]))
                    for point in known
                    if point[0] >= self._span[0] and not math.isnan(point[at])
                ]
                draw.line(places, fill=colour, width=width)
            now = f"{known[-1][1]:.3g} -> {known[-1][2]:.3g}" if known else "no update yet"
            place = self._right + 8, self._top + 28 * index
            draw.text(place, f"{line.name}\n  {now}", fill=COLOURS[index], font_size=11, spacing=1)

    def _axes(self, draw: ImageDraw) -> None:
        title = f"{self._side}: gradient norm, pale before clipping"
        draw.text((self._edge, self._top - HEADING), title, fill=WORDS, font_size=11)
        for decade in range(self._low, self._high + 1, max(1, (self._high - self._low) // 4)):
            y = self._y(10.0**decade)
            draw.line([(self._left, y), (self._right, y)], fill=GRID)
            # Where the lowest line lies is what is exactly 0.
            draw.text((self._edge, y - 6), f"1e{decade}" if decade > self._low else "0", fill=WORDS, font_size=10)

    def _x(self, decision: int) -> float:
        first, last = self._span
        return self._left + (decision - first) / (last - first) * (self._right - self._left)

    def _y(self, norm: float) -> float:
        """0 lies on the lower edge, infinity on the upper one."""
        log = math.log10(norm) if 0 < norm < math.inf else self._high if norm > 0 else self._low
        return self._bottom - (log - self._low) / (self._high - self._low) * (self._bottom - self._top)
