"""The rule on gradients that are there, and too small to teach anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradwatch.blocks import AFTER, Block, BoolArray, FloatArray
from gradwatch.judge.rule import Finding
from gradwatch.judge.scale import DEAD, LIMIT, SHARE, faint
from gradwatch.judge.shares import logarithms
from gradwatch.judge.thresholds import checked
from gradwatch.judge.vanishing_memory import Memory
from gradwatch.printing import called
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.shapes import Named

__all__ = ["Vanishing"]


# By name, the places of the modules that are told of under it.
_Told = dict["str | None", list[int]]


class Vanishing:
    """A module's gradient has all but vanished while the optimizer's has not.

    As training converges every norm falls, and a module that always had a small share of the whole falls below
    any limit in the end: that is none. A module counts whose share of the optimizer's norm is below ``share``,
    and below a tenth of what it usually was while its norm was above the limit. A step in which it is exactly 0
    goes on with what has begun so.

    Above the limit size proves nothing: a module that has lost three decades of its usual share is suspected, and
    counts where a look at the graph finds the activation dead that the gradient passes. That may pass, as in an
    agent that has seen few states: it is a warning for as long as any other.

    Args:
        limit: norm consumed below which it has vanished.
        share: share of the optimizer's norm above which it has not.
        fires_after: steps running before the alert.
        clears_after: steps running above the limit before the episode is over.
        critical_after: steps running after which it is critical: as many as the windows of ``growth`` and
            ``clip-saturated``; at once where it is below the limit and an activation is found dead.
    """

    id = "vanishing"
    severity: Severity = "warning"
    severities: tuple[Severity, ...] = ("warning", "critical")
    wants_cause = True

    @checked
    def __init__(
        self,
        *,
        limit: float = LIMIT,
        share: float = SHARE,
        fires_after: int = 5,
        clears_after: int = 5,
        critical_after: int = 100,
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._limit = limit
        self._share = share
        self._critical_after = critical_after
        # Whoever may be dead is looked at closely, until a look has told.
        self.is_settled = True
        self._memories: dict[str, Memory] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding for each module whose gradient has vanished; where the whole has, nothing is told."""
        whole = record.norm_after
        if record.skipped or not self._limit <= whole < math.inf:
            return None
        modules = record.owners or record.modules
        missing = record.missing_owners if record.owners else record.missing_modules
        norms = np.array([[norms.norm_after for norms in modules.values()]])
        silent = (norms[0] == 0.0) | np.array([name in missing for name in modules], dtype=bool)
        memory = self._memory_of(record.optimizer, tuple(modules))
        wholes = np.array([whole])
        if modules:
            memory.shares.follow(self._sizes(norms, wholes)[0])
        low = faint(norms, wholes, self._limit, self._share)[0]
        told = self._told(memory, norms[0], low, silent, whole, tuple(record.modules))
        return self._found(memory, told, norms[0], silent, whole)

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step in which a module's gradient has vanished."""
        if self._all_are_well(block, start):
            return len(block), ()
        return self._looked(block, start, goes_on=False)

    def look_on(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step in which others have vanished than before, or not all are critical."""
        return self._looked(block, start, goes_on=True)

    def _looked(self, block: Block, start: int, goes_on: bool) -> tuple[int, Iterable[Finding]]:
        """The first step of which something is to be said, where some of what there is goes on."""
        memory: Memory | None = None
        norms, wholes = block.finest_norms(AFTER), block.norms(AFTER)
        sizes = self._sizes(norms, wholes)
        low = faint(norms, wholes, self._limit, self._share)
        for index, whole in enumerate(wholes[start:].tolist(), start):
            if block.rows[index].skipped or not self._limit <= whole < math.inf:
                continue
            if memory is None:
                memory = self._memory_of(block.layout.optimizer, block.layout.finest.names)
            if memory.modules:
                memory.shares.follow(sizes[index])
            silent, lines = block.silent[index], block.layout.lines.names
            told = self._told(memory, norms[index], low[index], silent, whole, lines)
            is_news = not self._go_on(memory, told) if goes_on else told
            if is_news:
                return index, self._found(memory, told, norms[index], silent, whole)
        return len(block), ()

    def _all_are_well(self, block: Block, start: int) -> bool:
        """Take the steps in, where each module is above the limit in all of them, and was before."""
        if block.common.skipped or not block.are_finite:
            return False
        norms, wholes = block.finest_norms(AFTER)[start:], block.norms(AFTER)[start:]
        # None is smaller than what it is made of. Written so that NaN is not well.
        if not (
            block.smallest > self._limit
            or (norms.min(initial=math.inf) >= self._limit and wholes.min() >= self._limit)
        ):
            return False
        memory = self._memory_of(block.layout.optimizer, block.layout.finest.names)
        largest = max(block.wholes[AFTER])
        return memory.is_clear and memory.shares.stay_well(norms, wholes, block.smallest, largest)

    def suspects(self, optimizer: str) -> tuple[str, ...]:
        """The modules whose share has fallen so far that an activation may be dead."""
        memory = self._memories.get(optimizer)
        return () if memory is None else memory.shares.suspects

    def answered(self, optimizer: str, causes: Mapping[str, Cause]) -> None:
        """What a look has found of them."""
        if optimizer in self._memories:
            self._memories[optimizer].shares.answered(causes)
            self._settle()

    def weighed(self, optimizer: str, module: str | None, cause: Cause) -> Cause:
        """A dead activation is why, where it took most of what the module has lost since it was well."""
        memory = self._memories.get(optimizer)
        if memory is None or cause.kind not in DEAD:
            return cause
        own = [place for place, name in enumerate(memory.modules) if f"{name}.".startswith(f"{module}.")]
        return memory.shares.weighed(own, cause)

    remembers = Named(Memory.remembers)

    def state_dict(self) -> dict[str, Any]:
        """The usual share of each module, names and streaks of those that have vanished."""
        return {optimizer: memory.state_dict() for optimizer, memory in self._memories.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._memories = {}
        for optimizer, saved in state.items():
            modules = tuple(dict.fromkeys((*saved["shares"], *saved["streaks"])))
            self._memory_of(optimizer, modules).load_state_dict(saved)
        self._settle()

    def _settle(self) -> None:
        self.is_settled = all(memory.shares.is_settled for memory in self._memories.values())

    def _memory_of(self, optimizer: str, modules: tuple[str, ...]) -> Memory:
        memory = self._memories.get(optimizer)
        if memory is None:
            memory = self._memories[optimizer] = Memory(self.fires_after, self.clears_after)
        if memory.modules != modules:
            memory.rename(modules)
        return memory

    def _sizes(self, norms: FloatArray, wholes: FloatArray) -> FloatArray:
        """As ``Shares`` takes them, ``[steps, modules, 2]``; NaN where the norm is not above the limit."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return logarithms(np.where(norms >= self._limit, norms, np.nan), wholes)

    def _told(
        self,
        memory: Memory,
        norms: FloatArray,
        low: BoolArray,
        silent: BoolArray,
        whole: float,
        lines: Sequence[str],
    ) -> _Told:
        """Take in a step: under which names those are told of that have vanished, and their places.

        Args:
            memory: of the optimizer.
            norms: consumed, ``[modules]``.
            low: which of these are next to nothing, ``[modules]``.
            silent: those exactly 0 or missing, ``[modules]``.
            whole: the optimizer's norm.
            lines: no name is higher than these.
        """
        dead = memory.shares.take(norms, whole)
        self._settle()
        if memory.is_clear and not low.any():
            return {}
        memory.streaks.take(self._that_have_lost(memory, norms, low, whole) | dead, silent)
        if memory.is_clear:
            return {}
        lasts = {memory.modules[place]: place for place in np.flatnonzero(memory.streaks.steps).tolist()}
        shown = memory.shares.dead
        reasons: dict[str | None, str] = {m: shown[m].kind if m in shown else "" for m in lasts}
        told = memory.naming.take(reasons, memory.modules, lines)
        return {path: [lasts[module] for module in those if module is not None] for path, those in told.items()}

    def _found(
        self, memory: Memory, told: _Told, norms: FloatArray, silent: BoolArray, whole: float
    ) -> list[Finding]:
        memory.told, found = {}, []
        for path, places in told.items():
            norm = math.hypot(*(float(norms[place]) for place in places if not silent[place]))
            steps = int(memory.streaks.steps[places].max())
            finding = self._finding(path, memory.naming.words(path), norm, whole, steps)
            why = memory.why(places)
            memory.told[path] = why, finding.severity == "critical"
            if why is not None and norm > 0.0:
                by = finding.critical_by if norm < self._limit else frozenset[str]()
                limit = memory.shares.limit(places, whole)
                finding = replace(finding, threshold=limit, cause=why, at_once=True, critical_by=by)
            if steps >= self.fires_after or finding.at_once:
                memory.streaks.tell(places)
            found.append(finding)
        return found

    def _go_on(self, memory: Memory, told: _Told) -> bool:
        """Whether the same are told of as at the step before, when all were critical for the same reasons."""
        # Of a state that was saved it is not known who was told of at the step before.
        if not told or {path: (memory.why(places), True) for path, places in told.items()} != memory.told:
            return False
        if any(memory.streaks.steps[places].max() < self.fires_after for places in told.values()):
            return False
        for places in told.values():
            memory.streaks.tell(places)
        return True

    def _that_have_lost(self, memory: Memory, norms: FloatArray, low: BoolArray, whole: float) -> BoolArray:
        """Of those that are faint, those that were not always."""
        lost = low.copy()
        for place in np.flatnonzero(low).tolist():
            lost[place] = memory.shares.have_lost(norms[place] / whole, place)
        return lost

    def _finding(self, module: str | None, what: str, norm: float, whole: float, steps: int) -> Finding:
        message = (
            f"the gradient of {called(what)} has all but vanished: its norm is {norm:.3g}, where the optimizer "
            f"consumes {whole:.3g} in all"
        )
        # What is exactly 0 by now is for the rule ``zero`` to tell.
        if norm == 0.0:
            return Finding(module, norm, self._limit, message)
        if steps < self._critical_after:
            return Finding(module, norm, self._limit, message, critical_by=DEAD)
        return Finding(module, norm, self._limit, f"{message}. It has been so for {steps} steps", "critical")
