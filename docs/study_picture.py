"""Draw the actor's gradient in runs of the reference workload, and print a table of them.

``python docs/study_picture.py OUT.svg RUN_FOLDER...``: a picture for each run, with the norm before clipping,
what the optimizer consumed in all and of the MLP, and where gradwatch spoke.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.carla_td3.history import History, Line
from examples.carla_td3.options import Options, parse

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 420, 240, 44, 30, 40, 12
LOWEST, HIGHEST = -12, 8
LINES = (("whole, before clipping", "#999999"), ("whole, consumed", "#222222"), ("MLP, consumed", "#d55e00"))
ALERTS = {"critical": "#c00000", "warning": "#a06000"}
COLUMNS = (
    "Q heads judge on the actor's features",
    "LayerNorm",
    "clipping",
    "first said of the actor, at its update",
    "norm before clipping, highest",
    "MLP exactly 0",
    "actor loss at the end",
    "actions saturated, spread",
)


class Run:
    """What is told of a run."""

    def __init__(self, folder: Path) -> None:
        self.options: Options = parse(["--resume", str(folder), "--prometheus-port", "0", "--device", "cpu"])
        self._events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        self._events.Reload()
        history = History(folder)
        self.whole, _, self.mlp = history.sides["actor"]
        self.alerts: list[dict[str, Any]] = [alert for alert in history.alerts if alert["optimizer"] == "actor"]

    @property
    def name(self) -> str:
        """Its settings that differ, in words."""
        o = self.options
        parts = ("actor's features" if o.shared_features else "critic's own features",)
        return ", ".join(
            (*parts, "LayerNorm" if o.layer_norm else "no LayerNorm", "clipped" if o.actor_clip else "unclipped")
        )

    def last(self, tag: str) -> float:
        """The newest value of a curve in TensorBoard."""
        return float(self._events.Scalars(tag)[-1].value)

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        o = self.options
        silent = [number for number, (_, _, after) in enumerate(self.mlp.points, 1) if after == 0.0]
        updates = len(self.mlp.points)
        return (
            *("yes" if switch else "no" for switch in (o.shared_features, o.layer_norm, o.actor_clip)),
            self._first_said(),
            f"{max(before for _, before, _ in self.whole.points):.2g}",
            f"first at {silent[0]}, in {len(silent)} of {updates}" if silent else "never",
            f"{self.last('train/actor_loss'):.3g}",
            f"{self.last('eval/saturated'):.0%}, {self.last('eval/action_spread'):.3f}",
        )

    def _first_said(self) -> str:
        for alert in self.alerts:
            if alert["state"] == "firing":
                same = [
                    a["cause"] for a in self.alerts if (a["rule"], a["module"]) == (alert["rule"], alert["module"])
                ]
                cause = next((cause for cause in same if cause), None)
                because = f": `{cause['kind']}` at `{cause['where']}`" if cause else ""
                return f"{alert['step']}, `{alert['rule']}` at `{alert['module'] or 'actor'}`{because}"
        return "nothing"


def picture(run: Run) -> list[str]:
    """The drawing of one run, at the origin."""
    updates = len(run.whole.points)

    def place(update: float, norm: float) -> tuple[float, float]:
        log = min(HIGHEST, max(LOWEST, math.log10(norm))) if norm > 0 else LOWEST
        x = LEFT + (update - 1) / max(1, updates - 1) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - (log - LOWEST) / (HIGHEST - LOWEST) * (HEIGHT - BOTTOM - TOP)

    parts = [text(LEFT, 14, run.name, "#222", weight="bold")]
    for decade in range(LOWEST, HIGHEST + 1, 4):
        x, y = place(1, 10.0**decade)
        parts.append(f'<path d="M{x} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(x - 6, y + 4, f"1e{decade}" if decade > LOWEST else "0", anchor="end"))
    for update in (1, updates):
        parts.append(text(place(update, 1)[0], HEIGHT - BOTTOM + 16, str(update), anchor="middle"))
    parts.append(text((LEFT + WIDTH) / 2, HEIGHT - BOTTOM + 16, "update of the actor", anchor="middle"))
    for row, alert in enumerate(alert for alert in run.alerts if alert["state"] == "firing"):
        x, top = place(alert["step"], 10.0**HIGHEST)
        colour = ALERTS[alert["severity"]]
        parts.append(f'<path d="M{x:.1f} {top}V{HEIGHT - BOTTOM}" stroke="{colour}" stroke-dasharray="3 3"/>')
        parts.append(text(x + 3, top + 10 + 12 * (row % 3), alert["rule"], colour))
    sides: tuple[tuple[Line, int], ...] = ((run.whole, 1), (run.whole, 2), (run.mlp, 2))
    for (line, side), (_, colour) in zip(sides, LINES, strict=True):
        places = [place(update, point[side]) for update, point in enumerate(line.points, 1)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return parts


def text(
    x: float, y: float, words: str, colour: str = "#444", anchor: str = "start", weight: str = "normal"
) -> str:
    style = (
        f'font-family="sans-serif" font-size="11" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    )
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{words}</text>'


def drawn(runs: list[Run]) -> str:
    """All of them, with one legend above."""
    columns = min(2, len(runs))
    size = columns * WIDTH, -(-len(runs) // columns) * HEIGHT + 24
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}">']
    parts.append(f'<rect width="{size[0]}" height="{size[1]}" fill="#fff"/>')
    parts += [text(LEFT + 130 * index, 14, name, colour) for index, (name, colour) in enumerate(LINES)]
    for index, run in enumerate(runs):
        x, y = index % columns * WIDTH, index // columns * HEIGHT + 24
        parts += [f'<g transform="translate({x} {y})">', *picture(run), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def main(path: str, folders: list[str]) -> None:
    runs = [Run(Path(folder)) for folder in folders]
    Path(path).write_text(drawn(runs), encoding="utf-8")
    for cells in (COLUMNS, ["---"] * len(COLUMNS), *(run.row() for run in runs)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
