"""Draw how far runs of the reference workload drive, while they learn.

``python docs/learning_picture.py OUT.svg RUN_FOLDER...``: route completion of each evaluation against decisions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 320, 56, 44, 20, 110
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
TEXT = 'font-family="sans-serif" font-size="12" fill="#444"'


def curve(folder: Path) -> tuple[str, list[tuple[int, float]]]:
    """What the run is called, and (decision, route) of its evaluations."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    name = f"{config['preset']}, seed {config['seed']}"
    return name, [(event.step, event.value) for event in events.Scalars("eval/route")]


def main(picture: str, folders: list[str]) -> None:
    curves = [curve(Path(folder)) for folder in folders]
    last = max(step for _, points in curves for step, _ in points)

    def place(step: float, route: float) -> tuple[float, float]:
        x = LEFT + step / last * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - route * (HEIGHT - BOTTOM - TOP)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">']
    for tenth in range(0, 11, 2):
        x, y = place(0, tenth / 10)
        parts.append(f'<path d="M{x} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end" {TEXT}>{tenth * 10} %</text>')
    for step in range(0, last + 1, 500):
        x, y = place(step, 0)
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle" {TEXT}>{step}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle" {TEXT}>decisions</text>')
    parts.append(f'<text x="{LEFT}" y="12" {TEXT}>route driven, mean of an evaluation</text>')
    for index, ((name, points), colour) in enumerate(zip(curves, COLOURS, strict=False)):
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{40 + 18 * index}" {TEXT.replace("#444", colour)}>{name}</text>'
        )
    Path(picture).write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
