"""The rule on gradients that are not there: exactly zero, or missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradwatch.blocks import BEFORE, Block, BoolArray
from gradwatch.causes import REGISTER, cause
from gradwatch.judge.at_hand import owned, silence
from gradwatch.judge.naming import Naming
from gradwatch.judge.presence import Presences
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import OUTSIDE, Cause, GroupNorms, Severity, StepRecord

__all__ = ["Zero"]

_Modules = tuple["str | None", ...]

# How fast the level of norms is followed: about the last ten steps.
_FOLLOWING = 0.1


class _Memory:
    """What is remembered of one optimizer.

    Attributes:
        presences: how often each module has a gradient.
        level: logarithm of the norm of late; -inf before the first.
        highest: the highest that the level has been.
        known: what was found out of each silent module.
        naming: under which names silent modules are told of.
        told: what was found out of those that bear a name together, and which these were.
        left_out: steps running in which a module had parameters that no optimizer holds.
    """

    def __init__(self, clears_after: int) -> None:
        self.presences = Presences()
        self.level = self.highest = -math.inf
        self.known: dict[str | None, _Known] = {}
        self.naming = Naming(clears_after)
        self.told: dict[str | None, tuple[list[str | None], _Known]] = {}
        self.left_out: dict[str, int] = {}

    def follow(self, norm: float) -> None:
        if 0.0 < norm < math.inf:
            logarithm = math.log(norm)
            self.level = (
                logarithm if self.level == -math.inf else self.level + _FOLLOWING * (logarithm - self.level)
            )
            self.highest = max(self.highest, self.level)


class _Known(NamedTuple):
    """Why a module is silent, as far as its record shows, whether a backward reached it, and how it is silent."""

    cause: Cause | None
    unreached: bool
    how: str

    def reason(self, doubt: str | None) -> tuple[object, ...]:
        """The same for modules that are silent for one reason."""
        return self.how, self.unreached, self.cause and self.cause.kind, doubt


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
    severities: tuple[Severity, ...] = ("critical", "warning")
    wants_cause = True

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
        memory = self._memory_of(record.optimizer)
        modules, silent = _sorted_out(record)
        ill = self._taken(memory, modules, silent, record.norm_before)
        return [*self._of_silent(record, memory, modules, silent, ill), *self._of_left_out(record, memory)]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step with a module that is silent for too long."""
        modules, flags = _flags(block)
        quiet = not flags.any()
        for index, norm in enumerate(block.norms(BEFORE)[start:].tolist(), start):
            row = block.rows[index]
            if row.skipped:
                continue
            memory = self._memory_of(block.layout.optimizer)
            silent = () if quiet else tuple(modules[place] for place in np.flatnonzero(flags[index]).tolist())
            ill = self._taken(memory, modules, silent, norm)
            if ill or row.left_out or memory.left_out:
                record = block[index]
                findings = [
                    *self._of_silent(record, memory, modules, silent, ill),
                    *self._of_left_out(record, memory),
                ]
                if findings:
                    return index, findings
        return len(block), ()

    def _memory_of(self, optimizer: str) -> _Memory:
        memory = self._memories.get(optimizer)
        if memory is None:
            memory = self._memories[optimizer] = _Memory(self.clears_after)
        return memory

    def _taken(
        self, memory: _Memory, modules: _Modules, silent: _Modules, norm_before: float
    ) -> dict[str | None, int]:
        """The modules that have been silent for too long, and for how many steps beyond what is."""
        memory.presences.take(modules, silent)
        if len(silent) < len(modules):
            memory.follow(norm_before)
        if not silent:
            memory.known.clear()
            memory.told.clear()
        return dict(self._beyond(memory.presences, silent))

    def _beyond(self, presences: Presences, silent: _Modules) -> Iterator[tuple[str | None, int]]:
        for module in silent:
            lasts = presences.silence(module)
            if lasts >= self.fires_after:
                beyond = lasts - presences.patience(module, self.fires_after)
                if beyond >= 0:
                    yield module, beyond

    def _of_silent(
        self,
        record: StepRecord,
        memory: _Memory,
        modules: _Modules,
        silent: _Modules,
        ill: Mapping[str | None, int],
    ) -> Iterator[Finding]:
        if not ill and not memory.naming:
            return
        faded = len(silent) == len(modules) and self._has_faded(memory)
        looked_at = [module for module, beyond in ill.items() if self._is_due(memory, module, beyond)]
        for module in looked_at:
            memory.known[module] = _look_into(record, module, [module])
        doubts = {module: self._doubt(memory, module, memory.known[module], faded) for module in ill}
        reasons = {module: memory.known[module].reason(doubt) for module, doubt in doubts.items()}
        for path, those in memory.naming.take(reasons, modules, tuple(record.modules)).items():
            known = _known_of(record, memory, path, those, looked_at)
            # What is told as one may come to differ in time: the gravest counts.
            doubt = None if any(doubts[module] is None for module in those) else doubts[those[0]]
            message = _words(record, path, _norms_of(record, those), known, doubt)
            severity: Severity = "critical" if doubt is None else "warning"
            yield Finding(path, 0.0, 0.0, message, severity, known.cause, at_once=True)

    def _is_due(self, memory: _Memory, module: str | None, beyond: int) -> bool:
        return module not in memory.known or beyond <= self._CLOSELY or beyond % self._STRIDE == 0

    def _of_left_out(self, record: StepRecord, memory: _Memory) -> Iterator[Finding]:
        """A gradient is computed for these at each step, and nobody consumes it: that may be meant."""
        if not record.left_out and not memory.left_out:
            return
        memory.left_out = {module: memory.left_out.get(module, 0) + 1 for module in record.left_out}
        for module, names in record.left_out.items():
            if memory.left_out[module] >= self.fires_after:
                message = (
                    f"{listed(names)} of {module} gets a gradient and no tracked optimizer holds it, so nothing "
                    "is learned there"
                )
                outside = module == OUTSIDE
                where = module if outside else _common_path(names) or module
                remedy = REGISTER if outside else None
                found = cause("not-in-optimizer", where, remedy, parameters=len(names), first=names[0])
                yield Finding(module, 0.0, 0.0, message, "warning", found, at_once=True)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by optimizer."""
        return {
            name: {
                "presences": memory.presences.state_dict(),
                "names": memory.naming.state_dict(),
                "level": None if memory.level == -math.inf else [memory.level, memory.highest],
            }
            for name, memory in self._memories.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for name, saved in state.items():
            memory = self._memories[name] = _Memory(self.clears_after)
            memory.presences.load_state_dict(saved["presences"])
            memory.naming.load_state_dict(saved["names"])
            if saved["level"] is not None:
                memory.level, memory.highest = saved["level"]

    def _has_faded(self, memory: _Memory) -> bool:
        return memory.level < memory.highest + self._fade

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


def _sorted_out(record: StepRecord) -> tuple[_Modules, _Modules]:
    """The modules, and those of them without a gradient; None is the whole where there are none."""
    if not (record.owners or record.modules):
        none_at_all = bool(record.missing) and len(record.missing) == len(record.parameters)
        return (None,), ((None,) if none_at_all or record.norm_after == 0.0 else ())
    modules = record.owners or record.modules
    missing = record.missing_owners if record.owners else record.missing_modules
    return tuple(modules), tuple(
        name for name, norms in modules.items() if norms[1] == 0.0 or (missing and name in missing)
    )


def _flags(block: Block) -> tuple[_Modules, BoolArray]:
    """The same of a block: which of the modules has no gradient, ``[steps, modules]``."""
    modules = block.layout.finest.names
    return (modules, block.silent) if modules else ((None,), block.silent_whole[:, None])


def _norms_of(record: StepRecord, modules: Sequence[str | None]) -> GroupNorms:
    """Of all of them together; NaN where they are missing."""
    table = record.owners or record.modules
    if not table:
        return GroupNorms(record.norm_before, record.norm_after)
    sides = zip(*(table[module] for module in modules if module is not None), strict=True)
    return GroupNorms(*map(_together, sides))


def _together(norms: Sequence[float]) -> float:
    there = [norm for norm in norms if not math.isnan(norm)]
    return math.hypot(*there) if there else math.nan


def _look_into(record: StepRecord, path: str | None, modules: Sequence[str | None]) -> _Known:
    names, norms = owned(record, modules), _norms_of(record, modules)
    found = silence(record, record.optimizer if path is None else path, names, norms)
    return _Known(found, found is None and _unreached(record, names, norms), _how(norms))


def _known_of(
    record: StepRecord,
    memory: _Memory,
    path: str | None,
    modules: list[str | None],
    looked_at: Sequence[str | None],
) -> _Known:
    """What is known of the modules that are told of together, looked into as often as one of them is."""
    if modules == [path]:
        return memory.known[path]
    before = memory.told.get(path)
    if before is None or before[0] != modules or not set(modules).isdisjoint(looked_at):
        before = memory.told[path] = modules, _look_into(record, path, modules)
    return before[1]


def _how(norms: GroupNorms) -> str:
    if norms.norm_before > 0.0:
        return "erased"
    return "missing" if math.isnan(norms.norm_after) else "zero"


def _common_path(names: Sequence[str]) -> str:
    """The innermost module that all of these parameters are in."""
    paths = [name.split(".")[:-1] for name in names]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in alike)


def _unreached(record: StepRecord, names: Collection[str], norms: GroupNorms) -> bool:
    """No backward has written any of its gradients, though one ran."""
    if record.backward_passes == 0 or norms.norm_before > 0.0:
        return False
    if math.isnan(norms.norm_after):
        return True
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
