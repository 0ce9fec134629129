"""Draw the last screen of a run from its JSONL file: ``python docs/console_picture.py RUN.jsonl OUT.svg``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from gradwatch.incidents import Incidents
from gradwatch.records import Alert, Cause, GroupNorms, StepRecord, clip_ratio
from gradwatch.sinks.story import Story
from gradwatch.sinks.table import Picture


def number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity") else value


def norms(pair: Any) -> GroupNorms:
    both = pair if isinstance(pair, list) else [pair, pair]
    return GroupNorms(*map(number, both))


def main(run: str, picture: str) -> None:
    newest: dict[str, StepRecord] = {}
    incidents = Incidents()
    names: dict[str, list[str]] = {}
    for line in Path(run).read_text(encoding="utf-8").splitlines():
        entry = {name: number(value) for name, value in json.loads(line).items()}
        kind = entry.pop("kind")
        if kind == "step":
            pairs = dict(zip(names[entry["optimizer"]], entry.pop("modules"), strict=True))
            ratio = clip_ratio(entry["norm_before"], entry["norm_after"])
            modules = {name: norms(pair) for name, pair in pairs.items()}
            newest[entry["optimizer"]] = StepRecord(**entry, clip_ratio=ratio, modules=modules)
        elif kind == "run":
            incidents.began, names = entry["time"], entry["modules"]
        elif kind == "alert":
            cause = entry["cause"] and Cause(**entry["cause"])
            incidents.take(Alert(**{**entry, "cause": cause}))
    screen = Console(record=True, width=118, file=io.StringIO())
    screen.print(Picture(newest.values(), incidents.all()))
    for incident in incidents.all():
        screen.print(Story(incident))
    screen.save_svg(picture, title="gradwatch")


if __name__ == "__main__":
    main(*sys.argv[1:3])
