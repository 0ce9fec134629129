"""The rule on gradients that are not there: exactly zero, or missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gradwatch.blocks import AFTER, BEFORE, Block
from gradwatch.judge.rule import Finding
from gradwatch.judge.scale import DEAD
from gradwatch.judge.silence import Modules, flags, modules_of, named, sorted_out
from gradwatch.judge.silent import Known, look_into, norms_of, words_of
from gradwatch.judge.thresholds import checked
from gradwatch.judge.zero_memory import Memory
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.shapes import Named

__all__ = ["Zero"]


class Zero:
    """A module's gradient is exactly 0, or it has none at all: its parameters do not learn.

    Without modules the rule looks at the optimizer as a whole. Where modules are trained in turn or drawn at
    random, a silence must be longer than chance explains. It is a warning rather than critical where it may be
    meant: the module is frozen, and others are not; for up to ``unreached_after`` steps, no backward has reached
    it, or other modules pause as well, as where layers are dropped at random; or the norm of the whole optimizer
    has faded to 0, as it does when a loss is satisfied, and no activation was found dead. Parameters without any
    inside a module that learns are a warning as well, and so is a module that is 0 in most steps, where a look
    finds a dead activation in one of these.

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

    @checked
    def __init__(
        self, *, fires_after: int = 3, clears_after: int = 3, unreached_after: int = 10, faded: float = 0.1
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._unreached_after = unreached_after
        self._faded = faded
        # Whether the first steps are over, of which each is looked at as soon as it is there.
        self.is_settled = False
        self._memories: dict[str, Memory] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding for each module without a gradient; a skipped step tells nothing."""
        memory = self._memory_of(record.optimizer)
        if record.skipped:
            return None
        modules, silent, low = sorted_out(record, memory.rounding)
        self._meet(memory, modules)
        ill = memory.take(modules, silent, low, record.norm_before)
        self._settle_if_due(memory)
        # Of what is found of one module the last counts.
        return [
            *memory.left_out.look(record),
            *memory.unreached.look(record),
            *self._of_silent(record, memory, modules, silent, ill),
            *memory.flickers.findings(record, modules, memory.naming),
        ]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step with a module that is silent for too long."""
        memory, modules = self._memory_of(block.layout.optimizer), modules_of(block)
        self._meet(memory, modules)
        flagged, logarithms = flags(block, memory.rounding), block.logarithms
        common = block.common
        calm = flagged is None and common.complete and not (common.skipped or common.unusual)
        if calm and logarithms is not None and memory.is_quiet:
            memory.take_calm(modules, logarithms[start:])
            self._settle_if_due(memory)
            return len(block), ()
        norms = None if memory.is_bare else block.finest_norms(AFTER)
        for index, norm in enumerate(block.wholes[BEFORE][start:], start):
            row = block.rows[index]
            if row.skipped:
                continue
            if norms is not None and not memory.rounding.is_settled:
                memory.rounding.take(modules, norms[index], block.wholes[AFTER][index])
            silent, low = [named(modules, kind[index]) for kind in flagged] if flagged else ((), ())
            ill = memory.take(modules, silent, low, norm)
            self._settle_if_due(memory)
            looks = memory.unreached.looks or not block.complete
            unreached = looks and memory.unreached.take_in(block, index)
            if ill or unreached or memory.flickers.shown or row.left_out or memory.left_out:
                record = block[index]
                findings = [
                    *memory.left_out.look(record),
                    *memory.unreached.findings(record),
                    *self._of_silent(record, memory, modules, silent, ill),
                    *memory.flickers.findings(record, modules, memory.naming),
                ]
                if findings:
                    return index, findings
        return len(block), ()

    def look_on(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step at which not all is as it was, and take all of them in."""
        memory = self._memory_of(block.layout.optimizer)
        # Of the step before the first it is not known here what it was like.
        index = start + (memory.take_alike(block, start) if start else 0)
        self._settle_if_due(memory)
        return index, () if index == len(block) else self.look(block[index])

    def suspects(self, optimizer: str) -> tuple[str, ...]:
        """The modules of which a look must tell whether they have a gradient at all."""
        memory = self._memories.get(optimizer)
        return () if memory is None else memory.rounding.suspects + memory.flickers.suspects

    def answered(self, optimizer: str, causes: Mapping[str, Cause]) -> None:
        """What a look has found of them."""
        memory = self._memory_of(optimizer)
        memory.rounding.answered(causes)
        memory.flickers.answered(causes)
        self._settle()

    def _memory_of(self, optimizer: str) -> Memory:
        memory = self._memories.get(optimizer)
        if memory is None:
            memory = Memory(self.fires_after, self.clears_after, self._unreached_after)
            self._memories[optimizer] = memory
            self.is_settled = False
        return memory

    def _meet(self, memory: Memory, modules: Modules) -> None:
        """These are the modules now: the first that ever are there have their first steps before them."""
        is_bare = modules == (None,)
        if memory.is_bare != is_bare:
            memory.is_bare, self.is_settled = is_bare, False

    def _settle(self) -> None:
        """Until the first steps are over, and while anybody is suspected, each step is looked at at once."""
        known = self._memories.values()
        self.is_settled = bool(known) and all(m.is_settled and not m.flickers.suspects for m in known)

    def _settle_if_due(self, memory: Memory) -> None:
        if memory.flickers.suspects or not self.is_settled:
            self._settle()

    def _of_silent(
        self,
        record: StepRecord,
        memory: Memory,
        modules: Modules,
        silent: Modules,
        ill: Mapping[str | None, int],
    ) -> Iterator[Finding]:
        if not ill and not memory.naming:
            return
        faded = len(silent) == len(modules) and memory.has_faded(self._faded)
        zeros = set(silent)
        looked_at = [m for m, beyond in ill.items() if memory.is_due(m, beyond, m in zeros)]
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
            # A pause like those of others is no death: it teaches how long pauses are.
            memory.dead |= dict.fromkeys(those if doubt != "paused" and self._is_death(memory, those) else ())
            severity: Severity = "critical" if doubt is None else "warning"
            # A loss that is satisfied is not flat; and of what is flat nothing comes back.
            by = DEAD if doubt == "faded" else frozenset[str]()
            yield Finding(path, 0.0, 0.0, message, severity, known.cause, at_once=True, critical_by=by)

    def _is_death(self, memory: Memory, modules: Iterable[str | None]) -> bool:
        """Whether these were alive, and a backward pass that reaches them leaves nothing there."""
        return all(memory.presences.was_heard(m) and not memory.known[m].unreached for m in modules)

    remembers = Named(Memory.remembers)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by optimizer."""
        return {name: memory.state_dict() for name, memory in self._memories.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._memories, self.is_settled = {}, False
        for name, saved in state.items():
            self._memory_of(name).load_state_dict(saved)
        self._settle()

    def _doubt(self, record: StepRecord, memory: Memory, module: str | None, faded: bool) -> str | None:
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


def _known_of(
    record: StepRecord,
    memory: Memory,
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
