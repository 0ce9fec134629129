"""A path in, what contradicts out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradwatch.audit.breach import Breach
from gradwatch.audit.curves import Curve, Log, Norms
from gradwatch.audit.events import runs
from gradwatch.audit.jsonl import logs_of
from gradwatch.audit.laws import breaches
from gradwatch.audit.pairing import log_of
from gradwatch.audit.remarks import remarks
from gradwatch.errors import ArgumentError

__all__ = ["Audit", "audit"]


@dataclass(frozen=True)
class Audit:
    """What was found in one run of a log.

    Attributes:
        log: what was read.
        breaches: what contradicts, the worst first.
        remarks: what contradicts nothing and should be known.
        steps: at how many steps there is a norm.
        norms: how many curves of norms were looked at.
    """

    log: Log
    breaches: Sequence[Breach]
    remarks: Sequence[str]
    steps: int
    norms: int


def audit(path: str | os.PathLike[str]) -> list[Audit]:
    """Each run in a log.

    Args:
        path: a folder of TensorBoard with any below it, one event file, or a JSONL file of gradwatch.

    Raises:
        ArgumentError: it cannot be read, or no norm of a gradient is in it.
        MissingExtraError: it is of TensorBoard, which is not installed.
    """
    return [_audited(log) for log in _logs(Path(path))]


def _logs(path: Path) -> list[Log]:
    if not path.is_dir() and "tfevents" not in path.name:
        return logs_of(path)
    if not path.exists():
        raise ArgumentError(f"There is no file {str(path)!r}.")
    found = runs(path)
    logs = [log_of(run, run.folder if len(found) > 1 else "") for run in found]
    held = [log for log in logs if log.norms]
    if not held:
        unread = sorted({tag for log in logs for tag in log.unread})
        said = f" (not understood: {', '.join(unread[:3])})" if unread else ""
        raise ArgumentError(
            f"No tag in {str(path)!r} is read as the norm of a gradient{said}: one such as "
            "'actor/grad_norm_before_clip' would be."
        )
    return held


def _audited(log: Log) -> Audit:
    held = [curve for norms in log.norms for curve in _curves(norms)]
    steps = len(np.unique(np.concatenate([curve.steps for curve in held])))
    return Audit(log, breaches(log), remarks(log), steps, len(held))


def _curves(norms: Norms) -> Iterator[Curve]:
    yield from (*norms.sides.values(), *norms.sums.values())
    for parts in norms.parts:
        for part in parts.members:
            yield from _curves(part)
