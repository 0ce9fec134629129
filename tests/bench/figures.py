"""``instructions.json``: what tracking added to a step when it was last written down, and on what."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

import gradwatch
from tests.bench.isolated import Isolated, tiny_mlp

__all__ = ["RENEW", "on_what", "write", "written", "written_on"]

RENEW = "renew the figure: python -m tests.bench.instructions --write"

FILE = Path(__file__).with_name("instructions.json")


def on_what() -> dict[str, str]:
    """The versions, without their last digits, on which calls and instructions depend."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {name: ".".join(version.split(".")[:2]) for name, version in versions.items()}


def written_on() -> dict[str, str]:
    """`on_what` of the figures."""
    made = _read()
    return {name: made[name] for name in on_what()}


def written(figure: str) -> float:
    """The figure, ``"calls"`` or ``"instructions"``, for the way of measuring that runs here."""
    return float(_read()["measured by"][_way()][figure])


def write(tool: str, **figures: float) -> None:
    """Write down all figures of the way of measuring that runs here; those of another way stay."""
    ways = _read()["measured by"] if FILE.exists() else {}
    ways[_way()] = figures
    made = {**on_what(), "tool": tool, "processor": _processor(), "measured by": ways}
    FILE.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _read() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return made


def _way() -> str:
    """``"native"`` or ``"pure"``, as ``health()`` names what measures; calls are the same whichever vectors it has."""
    isolated = Isolated(tiny_mlp())
    return gradwatch.track(isolated.optimizer, isolated.model).health().kernel.split()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()}, {models[0] if models else 'unknown'}"
