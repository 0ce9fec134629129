"""The rule on gradients that are not there: exactly zero, or missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gradwatch.causes import cause
from gradwatch.judge.at_hand import members, silence
from gradwatch.judge.presence import Presences
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import Cause, GroupNorms, Severity, StepRecord

__all__ = ["Zero"]

# How fast the level of norms is followed: about the last ten steps.
_FOLLOWING = 0.1


class _Memory:
    """What is remembered of one optimizer.

    Attributes:
        presences: how often each module has a gradient.
        level: logarithm of the norm of late; -inf before the first.
        highest: the highest that the level has been.
        known: what was found out of each silent module.
        left_out: steps running in which a module had parameters that no optimizer holds.
    """

    def __init__(self) -> None:
        self.presences = Presences()
        self.level = self.highest = -math.inf
        self.known: dict[str | None, _Known] = {}
        self.left_out: dict[str, int] = {}

    def follow(self, norm: float) -> None:
        if 0.0 < norm < math.inf:
            logarithm = math.log(norm)
            self.level = (
                logarithm if self.level == -math.inf else self.level + _FOLLOWING * (logarithm - self.level)
            )
            self.highest = max(self.highest, self.level)


class _Known(NamedTuple):
    """Why a module is silent, as far as its record shows, and whether a backward reached it."""

    cause: Cause | None
    unreached: bool


class Zero:
    """A module's gradient is exactly 0, or it has none at all: its parameters do not learn.

    Without modules the rule looks at the optimizer as a whole. Where modules are trained in turn or drawn at
    random, a silence must be longer than chance explains. It is a warning rather than critical where it may be
    meant: the module is frozen; for up to ``unreached_after`` steps, no backward has reached it, or other modules
    pause as well, as where layers are dropped at random; or the norm of the whole optimizer has faded to 0, as it
    does when a loss is satisfied.

    Args:
        fires_after: steps running before the alert.
        clears_after: steps running with a gradient before the episode is over.
        unreached_after: steps running after which a module is critical that no backward reaches, or that others
            pause beside.
        faded: share of the highest norm below which the whole counts as faded.
    """

    id = "zero"
    severity: Severity = "critical"

    # The first steps of a silence are looked into; later only one in so many: it costs a look at every name.
    _CLOSELY, _STRIDE = 8, 64

    def __init__(
        self, *, fires_after: int = 3, clears_after: int = 3, unreached_after: int = 10, faded: float = 0.1
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._unreached_after = unreached_after
        self._fade = math.log(faded)
        self._memories: dict[str, _Memory] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding for each module without a gradient; a skipped step tells nothing."""
        if record.skipped:
            return None
        memory = self._memories.get(record.optimizer)
        if memory is None:
            memory = self._memories[record.optimizer] = _Memory()
        return [*self._of_silent(record, memory), *self._of_left_out(record, memory)]

    def _of_silent(self, record: StepRecord, memory: _Memory) -> list[Finding]:
        heard, silent = _sorted_out(record)
        memory.presences.take(heard, silent)
        if not silent:
            memory.follow(record.norm_before)
            memory.known.clear()
            return []
        if heard:
            memory.follow(record.norm_before)
        return list(self._findings(record, memory, silent, faded=not heard and self._has_faded(memory)))

    def _of_left_out(self, record: StepRecord, memory: _Memory) -> Iterator[Finding]:
        """A gradient is computed for these at each step, and nobody consumes it: that may be meant."""
        memory.left_out = {module: memory.left_out.get(module, 0) + 1 for module in record.left_out}
        for module, names in record.left_out.items():
            if memory.left_out[module] >= self.fires_after:
                message = (
                    f"{listed(names)} of {module} gets a gradient and no tracked optimizer holds it, so nothing "
                    "is learned there"
                )
                found = cause(
                    "not-in-optimizer", _common_path(names) or module, parameters=len(names), first=names[0]
                )
                yield Finding(module, 0.0, 0.0, message, "warning", found, at_once=True)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by optimizer."""
        return {
            name: {
                "presences": memory.presences.state_dict(),
                "level": None if memory.level == -math.inf else [memory.level, memory.highest],
            }
            for name, memory in self._memories.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for name, saved in state.items():
            memory = self._memories[name] = _Memory()
            memory.presences.load_state_dict(saved["presences"])
            if saved["level"] is not None:
                memory.level, memory.highest = saved["level"]

    def _has_faded(self, memory: _Memory) -> bool:
        return memory.level < memory.highest + self._fade

    def _findings(
        self, record: StepRecord, memory: _Memory, silent: Mapping[str | None, GroupNorms], faded: bool
    ) -> Iterator[Finding]:
        for module, norms in silent.items():
            lasts = memory.presences.silence(module)
            if lasts < self.fires_after:
                continue
            beyond = lasts - memory.presences.patience(module, self.fires_after)
            if beyond >= 0:
                known = memory.known.get(module)
                if known is None or beyond <= self._CLOSELY or beyond % self._STRIDE == 0:
                    found = silence(record, module, norms)
                    known = memory.known[module] = _Known(
                        found, found is None and _unreached(record, module, norms)
                    )
                doubt = self._doubt(memory, module, known, faded)
                yield self._finding(record, module, norms, known, doubt)

    def _finding(
        self, record: StepRecord, module: str | None, norms: GroupNorms, known: _Known, doubt: str | None
    ) -> Finding:
        message = _words(record, module, norms, known, doubt)
        severity: Severity = "critical" if doubt is None else "warning"
        return Finding(module, 0.0, 0.0, message, severity, known.cause, at_once=True)

    def _doubt(self, memory: _Memory, module: str | None, known: _Known, faded: bool) -> str | None:
        """Why it may be meant; None where nothing speaks for that."""
        if known.cause is not None:
            return "frozen" if known.cause.kind == "frozen" else None
        if faded:
            return "faded"
        if memory.presences.silence(module) > self._unreached_after:
            return None
        if known.unreached:
            return "unreached"
        return "paused" if memory.presences.pauses_like_others(module) else None


def _sorted_out(record: StepRecord) -> tuple[list[str | None], dict[str | None, GroupNorms]]:
    """The modules with a gradient, and the norms of those without; None is the whole where there are none."""
    if not record.modules:
        whole = GroupNorms(record.norm_before, record.norm_after)
        none_at_all = bool(record.missing) and len(record.missing) == len(record.parameters)
        return ([], {None: whole}) if none_at_all or whole.norm_after == 0.0 else ([None], {})
    missing = record.missing_modules
    heard: list[str | None] = []
    silent: dict[str | None, GroupNorms] = {}
    for name, norms in record.modules.items():
        if norms[1] == 0.0 or (missing and name in missing):
            silent[name] = norms
        else:
            heard.append(name)
    return heard, silent


def _common_path(names: Sequence[str]) -> str:
    """The innermost module that all of these parameters are in."""
    paths = [name.split(".")[:-1] for name in names]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in alike)


def _unreached(record: StepRecord, module: str | None, norms: GroupNorms) -> bool:
    """No backward has written any of its gradients, though one ran."""
    if record.backward_passes == 0 or norms.norm_before > 0.0:
        return False
    if math.isnan(norms.norm_after):
        return True
    names = members(record, module)
    return bool(names) and set(names) <= set(record.unwritten)


def _words(record: StepRecord, module: str | None, norms: GroupNorms, known: _Known, doubt: str | None) -> str:
    what = "the optimizer's gradient" if module is None else f"the gradient of {module}"
    if norms.norm_before > 0.0:
        left = "missing" if math.isnan(norms.norm_after) else "exactly 0"
        return f"{what} was {norms.norm_before:.3g} after backward and {left} at the step: it was erased between"
    if math.isnan(norms.norm_after):
        is_so = f"{what} is missing: .grad is None for each of its parameters"
    else:
        is_so = f"{what} is exactly 0"
    if doubt == "frozen":
        return f"{is_so}, since none of its parameters requires one: the optimizer holds it for nothing"
    if record.backward_passes == 0:
        return f"{is_so}: no backward pass has written it since the step before, so nothing is learned there"
    if known.unreached:
        return f"{is_so}: the loss does not reach it, so nothing is learned there"
    if doubt == "paused":
        return f"{is_so}, so nothing is learned there now; other modules pause as well, so it may be meant to"
    if doubt == "faded":
        return (
            f"{is_so}, as is that of all the optimizer holds: the norm has faded to 0, and nothing is learned now"
        )
    return f"{is_so}, so nothing is learned there"
