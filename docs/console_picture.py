"""Draw the console of a run from its JSONL file: ``python docs/console_picture.py RUN.jsonl OUT.svg``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from gradwatch.incidents import Incidents
from gradwatch.records import Alert, Cause, GroupNorms, StepRecord
from gradwatch.sinks.table import Picture


def number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity") else value


def main(run: str, picture: str) -> None:
    newest: dict[str, StepRecord] = {}
    incidents = Incidents()
    for line in Path(run).read_text(encoding="utf-8").splitlines():
        entry = {name: number(value) for name, value in json.loads(line).items()}
        kind = entry.pop("kind")
        if kind == "step":
            modules = {n: GroupNorms(*map(number, g.values())) for n, g in entry.pop("modules").items()}
            entry |= {"clips": (), "parameters": {}, "modules": modules}
            newest[entry["optimizer"]] = StepRecord(**entry)
        elif kind == "run":
            incidents.began = entry["time"]
        elif kind == "alert":
            cause = entry["cause"] and Cause(**entry["cause"])
            incidents.take(Alert(**{**entry, "cause": cause}))
    screen = Console(record=True, width=118, file=io.StringIO())
    screen.print(Picture(newest.values(), incidents.all()))
    screen.save_svg(picture, title="gradwatch")


if __name__ == "__main__":
    main(*sys.argv[1:3])
