"""What lies in the files of a run, counted without the readers that would take longer than the run."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path


def in_jsonl(path: Path) -> tuple[int, int, int]:
    """Steps in a row from 1 on, alerts, and lines that are no JSON, over all files into which a run was rotated."""
    steps = alerts = bad = 0
    older = sorted(path.parent.glob(f"{path.name}.*"), key=lambda one: -int(one.suffix[1:]))
    for file in (*older, path):
        with file.open(encoding="utf-8") as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                except ValueError:
                    bad += 1
                    continue
                steps += line["kind"] == "step" and line["step"] == steps + 1
                alerts += line["kind"] == "alert"
    return steps, alerts, bad


def in_event_files(folder: Path, optimizer: str) -> tuple[int, int]:
    """Events with scalars, and alerts in words."""
    scalars = texts = 0
    curve, word = f"gradwatch/{optimizer}/norm_before".encode(), f" of {optimizer} (".encode()
    for file in folder.iterdir():
        for event in _events(file):
            scalars += curve in event
            texts += word in event
    return scalars, texts


def _events(file: Path) -> Iterator[bytes]:
    with file.open("rb") as records:
        while head := records.read(12):
            (length,) = struct.unpack("<Q", head[:8])
            yield records.read(length)
            records.read(4)
