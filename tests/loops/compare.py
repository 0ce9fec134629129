"""Records against the truth, in words."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

from gradwatch import ClipCall, GroupNorms, StepRecord
from tests.loops.truth import Clip, Truth

# What is promised for the norms of float32 gradients.
TOLERANCE = 1e-6


def contradictions(records: Sequence[StepRecord], truths: Sequence[Truth], since: float) -> list[str]:
    """Everything in which the records, all that there are, differ from the truths."""
    steps = [(record.optimizer, record.step) for record in records]
    expected = [(truth.optimizer, truth.step) for truth in truths]
    if steps != expected:
        return [f"records of {steps}, steps were {expected}"]
    return [
        f"step {truth.step} of {truth.optimizer!r}: {fault}"
        for record, truth in zip(records, truths, strict=True)
        for fault in (*_faults(record, truth), *_time(record, since))
    ]


def _faults(record: StepRecord, truth: Truth) -> Iterator[str]:
    yield from _number("norm_before", record.norm_before, truth.before.whole)
    yield from _number("norm_after", record.norm_after, truth.after.whole)
    yield from _number("clip_ratio", record.clip_ratio, truth.clip_ratio)
    yield from _equal("max_norm", record.max_norm, truth.max_norm)
    yield from _equal("clipped", record.clipped, truth.clipped)
    yield from _equal("backward_passes", record.backward_passes, truth.passes)
    yield from _equal("skipped", record.skipped, truth.skipped)
    yield from _equal("loss_scale", record.loss_scale, truth.loss_scale)
    yield from _equal("missing", sorted(record.missing), sorted(truth.after.missing))
    nonfinite = truth.before.nonfinite | truth.after.nonfinite
    yield from _equal("nonfinite", sorted(record.nonfinite), sorted(nonfinite))
    yield from _equal("number of clip calls", len(record.clips), len(truth.clips))
    for told, expected in zip(record.clips, truth.clips, strict=False):
        yield from _equal("clip call", _told(told), _expected(expected))
    yield from _groups("modules", record.modules, truth.before.modules, truth.after.modules)
    yield from _groups("parameters", record.parameters, truth.before.parameters, truth.after.parameters)


def _told(call: ClipCall) -> tuple[object, ...]:
    return call.function, call.limit, call.norm_type, repr(call.norm_returned)


def _expected(clip: Clip) -> tuple[object, ...]:
    return clip.function, clip.limit, clip.norm_type, repr(clip.norm_returned)


def _groups(
    what: str,
    told: Mapping[str, GroupNorms],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Iterator[str]:
    yield from _equal(f"names of {what}", sorted(told), sorted(after))
    for name in told.keys() & after.keys():
        yield from _number(f"{what}[{name!r}].norm_before", told[name].norm_before, before.get(name, math.nan))
        yield from _number(f"{what}[{name!r}].norm_after", told[name].norm_after, after[name])


def _number(what: str, told: float, true: float) -> Iterator[str]:
    same = told == true or (math.isnan(told) and math.isnan(true))
    if not same and not math.isclose(told, true, rel_tol=TOLERANCE, abs_tol=0.0):
        yield f"{what} is {told!r}, the truth is {true!r}"


def _equal(what: str, told: object, true: object) -> Iterator[str]:
    if told != true:
        yield f"{what} is {told!r}, the truth is {true!r}"


def _time(record: StepRecord, since: float) -> Iterator[str]:
    if not since <= record.time <= time.time():
        yield f"time is {record.time}"
