"""Causes that the record of a step shows by itself, without a diagnostic backward.

Each function gives a cause only where the numbers of the record prove it, and None otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from gradwatch.causes import cause
from gradwatch.paths import ROOT, owner_of
from gradwatch.records import Cause, ClipCall, GroupNorms, StepRecord

__all__ = ["members", "owned", "silence", "where_of"]

# Gradients whose norm is above this after scaling do not become exactly 0 by it: float16 ends at 6e-8.
_SURELY_NOT_ROUNDED_AWAY = 1e-6


def members(record: StepRecord, module: str | None) -> list[str]:
    """The parameters of a module, by their names; empty where names do not tell, as in overlapping modules."""
    return list(record.parameters) if module is None else _members(record.parameters, record.modules, module)


def _members(parameters: Iterable[str], lines: Iterable[str], module: str) -> list[str]:
    if module == ROOT:
        return [name for name in parameters if owner_of(name) == ROOT]
    # What a module owns itself may be a line beside those of its parts.
    parts = tuple(f"{line}." for line in lines if line.startswith(f"{module}."))
    return [name for name in parameters if name.startswith(f"{module}.") and not name.startswith(parts)]


def owned(record: StepRecord, owners: Sequence[str | None]) -> list[str]:
    """The parameters that some modules own themselves; all of their members where a record tells of no owners."""
    if not record.owners:
        return [name for owner in owners for name in members(record, owner)]
    by_owner = _by_owner(tuple(record.parameters))
    if len(owners) == 1:
        return list(by_owner.get(owners[0], ()))
    those = {name for owner in owners for name in by_owner.get(owner, ())}
    return [name for name in record.parameters if name in those]


# The names are the same at each step that is told of: these two are worked out once for a list of them.
@lru_cache(maxsize=16)
def _of_lines(parameters: tuple[str, ...], lines: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    return {line: frozenset(_members(parameters, lines, line)) for line in lines}


@lru_cache(maxsize=16)
def _by_owner(parameters: tuple[str, ...]) -> Mapping[str | None, Sequence[str]]:
    found: dict[str | None, list[str]] = {}
    for name in parameters:
        found.setdefault(owner_of(name), []).append(name)
    return found


def silence(record: StepRecord, where: str, names: Collection[str], norms: GroupNorms) -> Cause | None:
    """Why a gradient is exactly 0 or missing, where that is at hand.

    Args:
        record: the step.
        where: whose gradient it is: a module, or the optimizer.
        names: the parameters; empty where names do not tell.
        norms: of all of them together, NaN where they are missing.
    """
    if names and set(names) <= set(record.frozen):
        return cause("frozen", where, parameters=len(names))
    if norms.norm_before > 0.0:
        return _erased(record, where, norms)
    if record.backward_passes == 0 and not record.skipped:
        return cause("no-backward", where, backward_passes=0, missing=len(set(names) & set(record.missing)))
    return None


def _erased(record: StepRecord, where: str, norms: GroupNorms) -> Cause:
    """Its gradient was there after backward and is not at the step: by clipping, or by something else."""
    evidence: dict[str, float | str] = {
        "norm_before": norms.norm_before,
        "norm_after": "missing" if math.isnan(norms.norm_after) else norms.norm_after,
    }
    for call in record.clips:
        kind = _erased_by(call)
        if kind is not None:
            evidence["limit"] = call.limit
            if call.norm_returned is not None:
                evidence["norm_returned"] = call.norm_returned
            return cause(kind, where, **evidence)
    return cause("zeroed", where, **evidence)


def _erased_by(call: ClipCall) -> str | None:
    """What a clip call did that leaves nothing, if it did."""
    before, returned = call.scope_before, call.norm_returned
    if returned is not None and not math.isfinite(returned):
        return "clip-overflow" if before is not None and math.isfinite(before) else "clipped-to-zero"
    if before is None or call.scope_after != 0.0 or before == 0.0:
        return None
    left = min(call.limit, before * call.limit / returned if returned else call.limit)
    return None if left > _SURELY_NOT_ROUNDED_AWAY else "clipped-to-zero"


def where_of(record: StepRecord, names: Iterable[str]) -> str:
    """The module whose parameters these are, the optimizer where they are of several or of none."""
    named = set(names)
    found = _of_lines(tuple(record.parameters), tuple(record.modules)).items()
    return next((module for module, those in found if named <= those), record.optimizer)
