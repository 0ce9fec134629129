"""The rule on gradients that are not there: exactly zero, or missing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, Block, BoolArray
from gradwatch.judge.left_out import LeftOut
from gradwatch.judge.naming import Naming
from gradwatch.judge.presence import Presences
from gradwatch.judge.rounding import Rounding
from gradwatch.judge.rule import Finding
from gradwatch.judge.scale import LIMIT, faint
from gradwatch.judge.silent import Known, look_into, norms_of, words_of
from gradwatch.judge.unreached import Unreached
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.shapes import COUNT, LOGARITHM, NAME, Fields, Listed, Maybe, Named, Row

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
        zeros: in how many steps each module was exactly 0 since it was last alive.
        dead: modules that were heard, have fallen silent and are told of: only health ends that.
        known: what was found out of each silent module.
        naming: under which names silent modules are told of.
        told: what was found out of those that bear a name together, and which these were.
        left_out: the parameters of its modules that no optimizer holds.
        unreached: the parameters that have no gradient inside modules that learn.
        rounding: the modules whose gradient may be nothing but rounding errors.
    """

    def __init__(self, fires_after: int, clears_after: int, unreached_after: int) -> None:
        self.presences = Presences()
        self.level = self.highest = -math.inf
        self.zeros: dict[str | None, int] = {}
        self.dead: dict[str | None, None] = {}
        self.known: dict[str | None, Known] = {}
        self.naming = Naming(clears_after)
        self.told: dict[str | None, tuple[list[str | None], Known]] = {}
        self.left_out = LeftOut(fires_after)
        self.unreached = Unreached(unreached_after)
        self.rounding = Rounding()

    def follow(self, norms: Iterable[float]) -> None:
        level, highest = self.level, self.highest
        for norm in norms:
            if 0.0 < norm < math.inf:
                logarithm = math.log(norm)
                level = logarithm if level == -math.inf else level + _FOLLOWING * (logarithm - level)
                if level > highest:
                    highest = level
        self.level, self.highest = level, highest

    @property
    def is_quiet(self) -> bool:
        """Nothing is or was of late silent, or left out, and the first steps are over."""
        ills = self.zeros or self.dead or self.naming or self.left_out or self.unreached.looks
        return not ills and self.rounding.is_settled


class Zero:
    """A module's gradient is exactly 0, or it has none at all: its parameters do not learn.

    Without modules the rule looks at the optimizer as a whole. Where modules are trained in turn or drawn at
    random, a silence must be longer than chance explains. It is a warning rather than critical where it may be
    meant: the module is frozen, and others are not; for up to ``unreached_after`` steps, no backward has reached
    it, or other modules pause as well, as where layers are dropped at random; or the norm of the whole optimizer
    has faded to 0, as it does when a loss is satisfied. Parameters without any inside a module that learns are a
    warning as well.

    What is next to nothing is no sign of life. An episode of what was alive before ends when it is alive in
    ``clears_after`` steps running, and teaches nothing of how long its silences usually are.

    Args:
        fires_after: steps running before the alert.
        clears_after: steps running with a gradient before the episode is over.
        unreached_after: steps running after which a module is critical that no backward reaches, or that others
            pause beside; and after which a parameter inside a module that learns is told of.
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
        memory = self._memory_of(record.optimizer)
        if record.skipped:
            return None
        modules, silent, low = _sorted_out(record, memory.rounding)
        ill = self._taken(memory, modules, silent, low, record.norm_before)
        return [
            *memory.unreached.look(record),
            *self._of_silent(record, memory, modules, silent, ill),
            *memory.left_out.look(record),
        ]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step with a module that is silent for too long."""
        memory = self._memory_of(block.layout.optimizer)
        modules, zeros, lows = _flags(block, memory.rounding)
        quiet = not lows.any()
        calm = quiet and block.complete and not (block.common.skipped or block.common.unusual)
        if calm and memory.is_quiet and start < len(block):
            memory.follow(block.norms(BEFORE)[start:].tolist())
            memory.presences.take(modules, (), steps=len(block) - start)
            return len(block), ()
        norms = block.finest_norms(AFTER) if block.layout.finest.names else None
        for index, norm in enumerate(block.norms(BEFORE)[start:].tolist(), start):
            row = block.rows[index]
            if row.skipped:
                continue
            if norms is not None and not memory.rounding.is_settled:
                memory.rounding.take(modules, norms[index], float(block.norms(AFTER)[index]))
            silent, low = ((), ()) if quiet else (_named(modules, zeros[index]), _named(modules, lows[index]))
            ill = self._taken(memory, modules, silent, low, norm)
            looks = memory.unreached.looks or not block.complete
            unreached = looks and memory.unreached.take_in(block, index)
            if ill or unreached or row.left_out or memory.left_out:
                record = block[index]
                findings = [
                    *memory.unreached.findings(record),
                    *self._of_silent(record, memory, modules, silent, ill),
                    *memory.left_out.look(record),
                ]
                if findings:
                    return index, findings
        return len(block), ()

    @property
    def is_settled(self) -> bool:
        """Whether the first steps are over, of which each is looked at as soon as it is there."""
        return bool(self._memories) and all(memory.rounding.is_settled for memory in self._memories.values())

    def suspects(self, optimizer: str) -> tuple[str, ...]:
        """The modules of which a look must tell whether they have a gradient at all."""
        memory = self._memories.get(optimizer)
        return () if memory is None else memory.rounding.suspects

    def answered(self, optimizer: str, causes: Mapping[str, Cause]) -> None:
        """What a look has found of them."""
        self._memory_of(optimizer).rounding.answered(causes)

    def _memory_of(self, optimizer: str) -> _Memory:
        memory = self._memories.get(optimizer)
        if memory is None:
            memory = self._memories[optimizer] = self._fresh()
        return memory

    def _fresh(self) -> _Memory:
        return _Memory(self.fires_after, self.clears_after, self._unreached_after)

    def _taken(
        self, memory: _Memory, modules: _Modules, silent: _Modules, low: _Modules, norm_before: float
    ) -> dict[str | None, int]:
        """The modules that have been silent for too long, and for how many steps beyond what is.

        Args:
            memory: of the optimizer.
            modules: all that could be silent.
            silent: those exactly 0, or missing.
            low: those, and what is next to nothing.
            norm_before: of the whole.
        """
        if len(silent) < len(modules):
            memory.follow([norm_before])
        if memory.dead:
            # Of a state that was saved, also what there is no more.
            memory.dead = {m: None for m in memory.dead if m in memory.naming and m in modules}
        # What was told as dead is not heard again until it has come back to stay.
        quiet = tuple(dict.fromkeys((*low, *memory.dead))) if memory.dead else low
        memory.presences.take(modules, quiet, memory.dead)
        if not quiet:
            if memory.zeros:
                memory.zeros, memory.known, memory.told = {}, {}, {}
            return {}
        zeros = set(silent)
        memory.zeros = {module: memory.zeros.get(module, 0) + (module in zeros) for module in quiet}
        return dict(self._beyond(memory, low, zeros))

    def _beyond(
        self, memory: _Memory, low: _Modules, zeros: Collection[str | None]
    ) -> Iterator[tuple[str | None, int]]:
        for module in low:
            lasts = memory.presences.silence(module)
            if module in memory.dead or module in memory.rounding.shown:
                yield module, lasts
            elif module in zeros and memory.zeros[module] >= self.fires_after:
                beyond = lasts - memory.presences.patience(module, self.fires_after)
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
        zeros = set(silent)
        looked_at = [m for m, beyond in ill.items() if self._is_due(memory, m, beyond, m in zeros)]
        for module in looked_at:
            memory.known[module] = look_into(record, module, [module], memory.rounding.shown)
        doubts = {module: self._doubt(record, memory, module, faded) for module in ill}
        reasons = {module: memory.known[module].reason(doubt) for module, doubt in doubts.items()}
        for path, those in memory.naming.take(reasons, modules, tuple(record.modules)).items():
            known = _known_of(record, memory, path, those, looked_at)
            # What is told as one may come to differ in time: the gravest counts.
            doubt = None if any(doubts[module] is None for module in those) else doubts[those[0]]
            what = None if path is None else memory.naming.words(path)
            message = words_of(record, what, norms_of(record, those), known, doubt)
            memory.dead |= dict.fromkeys(those if self._is_death(memory, those) else ())
            severity: Severity = "critical" if doubt is None else "warning"
            yield Finding(path, 0.0, 0.0, message, severity, known.cause, at_once=True)

    def _is_death(self, memory: _Memory, modules: Iterable[str | None]) -> bool:
        """Whether these were alive, and a backward pass that reaches them leaves nothing there."""
        return all(memory.presences.was_heard(m) and not memory.known[m].unreached for m in modules)

    def _is_due(self, memory: _Memory, module: str | None, beyond: int, is_zero: bool) -> bool:
        # What is told now may have been known for long: of one that was missing once, and then next to nothing.
        closely = beyond <= self._CLOSELY or beyond % self._STRIDE == 0 or module not in memory.naming
        return module not in memory.known or (is_zero and closely)

    remembers = Named(
        Fields(
            presences=Presences.remembers,
            names=Naming.remembers,
            zeros=Listed(Row(NAME, COUNT)),
            dead=Listed(NAME),
            unreached=Maybe(Presences.remembers),
            rounding=Rounding.remembers,
            level=Maybe(Row(LOGARITHM, LOGARITHM)),
        )
    )

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by optimizer."""
        return {
            name: {
                "presences": memory.presences.state_dict(),
                "names": memory.naming.state_dict(),
                "zeros": [[module, steps] for module, steps in memory.zeros.items()],
                "dead": list(memory.dead),
                "unreached": memory.unreached.state_dict(),
                "rounding": memory.rounding.state_dict(),
                "level": None if memory.level == -math.inf else [memory.level, memory.highest],
            }
            for name, memory in self._memories.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._memories = {}
        for name, saved in state.items():
            memory = self._memories[name] = self._fresh()
            memory.presences.load_state_dict(saved["presences"])
            memory.naming.load_state_dict(saved["names"])
            memory.zeros, memory.dead = dict(map(tuple, saved["zeros"])), dict.fromkeys(saved["dead"])
            memory.unreached.load_state_dict(saved["unreached"])
            memory.rounding.load_state_dict(saved.get("rounding", {}))
            if saved["level"] is not None:
                memory.level, memory.highest = saved["level"]

    def _has_faded(self, memory: _Memory) -> bool:
        return memory.level < memory.highest + self._fade

    def _doubt(self, record: StepRecord, memory: _Memory, module: str | None, faded: bool) -> str | None:
        """Why it may be meant; None where nothing speaks for that."""
        known = memory.known[module]
        if known.cause is not None:
            some_learn = len(record.frozen) < len(record.parameters)
            return "frozen" if known.cause.kind == "frozen" and some_learn else None
        if faded:
            return "faded"
        if memory.presences.silence(module) > self._unreached_after:
            return None
        if known.unreached:
            return "unreached"
        return "paused" if memory.presences.pauses_like_others(module) else None


def _sorted_out(record: StepRecord, rounding: Rounding) -> tuple[_Modules, _Modules, _Modules]:
    """The modules; those of them without a gradient; and these with those that are next to nothing.

    None is the whole where there are no modules. Of the first steps it is noted which may be but rounding.
    """
    if not (record.owners or record.modules):
        none_at_all = bool(record.missing) and len(record.missing) == len(record.parameters)
        silent: _Modules = (None,) if none_at_all or record.norm_after == 0.0 else ()
        return (None,), silent, silent
    modules = record.owners or record.modules
    missing = record.missing_owners if record.owners else record.missing_modules
    norms, wholes = np.array([[norms[1] for norms in modules.values()]]), np.array([record.norm_after])
    zeros = (norms[0] == 0.0) | np.array([name in missing for name in modules], dtype=bool)
    names = tuple(modules)
    if not rounding.is_settled:
        rounding.take(names, norms[0], record.norm_after)
    if rounding.shown:
        zeros |= rounding.silent(names, norms, wholes)[0]
    lows = zeros | faint(norms, wholes)[0]
    return names, _named(names, zeros), _named(names, lows)


def _flags(block: Block, rounding: Rounding) -> tuple[_Modules, BoolArray, BoolArray]:
    """The same of a block, ``[steps, modules]``."""
    modules, zeros = block.layout.finest.names, block.silent
    if not modules:
        return (None,), block.silent_whole[:, None], block.silent_whole[:, None]
    norms = block.finest_norms(AFTER)
    if rounding.shown:
        zeros = zeros | rounding.silent(modules, norms, block.norms(AFTER))
    # One look tells that nothing is that small; nearly always.
    lows = zeros | faint(norms, block.norms(AFTER)) if (norms < LIMIT).any() else zeros
    return modules, zeros, lows


def _named(modules: _Modules, flags: BoolArray) -> _Modules:
    return tuple(modules[place] for place in np.flatnonzero(flags).tolist())


def _known_of(
    record: StepRecord,
    memory: _Memory,
    path: str | None,
    modules: list[str | None],
    looked_at: Sequence[str | None],
) -> Known:
    """What is known of the modules that are told of together, looked into as often as one of them is."""
    if modules == [path]:
        return memory.known[path]
    before = memory.told.get(path)
    if before is None or before[0] != modules or not set(modules).isdisjoint(looked_at):
        before = memory.told[path] = modules, look_into(record, path, modules, memory.rounding.shown)
    return before[1]
