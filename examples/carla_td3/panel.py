"""The gradient panel of a film: the norm of each line against decisions, before clipping and after it."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
        self._box = box
        self._span = (first, max(last, first + 1))
        self._decades = {side: _decades(lines, first, last) for side, lines in history.sides.items()}

    def draw(self, draw: ImageDraw, decision: int) -> None:
        """As it stands after this decision."""
        left, top, right, bottom = self._box
        height = (bottom - top - ALERTS) / len(self._history.sides)
        for row, (side, lines) in enumerate(self._history.sides.items()):
            plot = (left + MARGIN, top + row * height + HEADING, right - LEGEND, top + (row + 1) * height - 8)
            self._axes(draw, plot, side)
            # The whole, which is the root of its parts' squares, lies behind them.
            for index, line in enumerate(lines):
                self._curve(draw, plot, side, line, index, decision)
                self._legend(draw, plot, line, index, decision)
        for row, words in enumerate(self._history.firing(decision)[:2]):
            colour = CRITICAL if words.startswith("CRITICAL") else WARNING
            draw.text((left, bottom - ALERTS + 15 * row), words, fill=colour, font_size=12)

    def _axes(self, draw: ImageDraw, plot: tuple[float, float, float, float], side: str) -> None:
        low, high = self._decades[side]
        draw.text(
            (self._box[0], plot[1] - HEADING), f"{side}: gradient norm, pale before", fill=WORDS, font_size=11
        )
        for decade in range(low, high + 1, max(1, (high - low) // 4)):
            y = self._height(plot, side, 10.0**decade)
            draw.line([(plot[0], y), (plot[2], y)], fill=GRID)
            # Where the lowest line lies is what is exactly 0.
            draw.text((self._box[0], y - 6), f"1e{decade}" if decade > low else "0", fill=WORDS, font_size=10)

    def _curve(
        self,
        draw: ImageDraw,
        plot: tuple[float, float, float, float],
        side: str,
        line: Line,
        index: int,
        decision: int,
    ) -> None:
        first, last = self._span
        shown = [point for point in line.points if first <= point[0] <= min(decision, last)]
        for at, colour, width in ((1, PALE[index], 1), (2, COLOURS[index], 2)):
            places = [
                (
                    plot[0] + (point[0] - first) / (last - first) * (plot[2] - plot[0]),
                    self._height(plot, side, point[at]),
                )
                for point in shown
                if not math.isnan(point[at])
            ]
            if len(places) > 1:
                draw.line(places, fill=colour, width=width)

    def _legend(
        self, draw: ImageDraw, plot: tuple[float, float, float, float], line: Line, index: int, decision: int
    ) -> None:
        known = [point for point in line.points if point[0] <= decision]
        now = f"{known[-1][1]:.3g} -> {known[-1][2]:.3g}" if known else "no update yet"
        place = (plot[2] + 8, plot[1] + 28 * index)
        draw.text(place, f"{line.name}\n  {now}", fill=COLOURS[index], font_size=11, spacing=1)

    def _height(self, plot: tuple[float, float, float, float], side: str, norm: float) -> float:
        """0 lies on the lower edge, and what is beyond the upper one on that."""
        low, high = self._decades[side]
        share = (math.log10(norm) - low) / (high - low) if 0 < norm < math.inf else float(norm > 0)
        return plot[3] - min(1.0, max(0.0, share)) * (plot[3] - plot[1])


def _decades(lines: Iterable[Line], first: int, last: int) -> tuple[int, int]:
    """Powers of ten below and above all norms that are shown."""
    shown = [norm for line in lines for at, *norms in line.points if first <= at <= last for norm in norms]
    logs = [math.log10(norm) for norm in shown if 0 < norm < math.inf]
    low, high = math.floor(min(logs, default=-1.0)), math.ceil(max(logs, default=0.0))
    # One decade more below, so that what is exactly 0 lies apart.
    return low - 1, max(high, low + 1)
