"""Logs of others, written as they would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


def write(folder: Path, curves: Mapping[str, Sequence[float]], steps: Sequence[int] | None = None) -> Path:
    """Each curve at steps 1, 2, ... or at those given."""
    with SummaryWriter(str(folder)) as writer:
        for tag, values in curves.items():
            for step, value in zip(steps or range(1, len(values) + 1), values, strict=True):
                writer.add_scalar(tag, value, step)
    return folder


def one_file(folder: Path) -> Path:
    (file,) = folder.glob("*tfevents*")
    return file
