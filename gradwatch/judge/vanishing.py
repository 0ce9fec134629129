"""The rule on gradients that are there, and too small to teach anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gradwatch.blocks import AFTER, Block, FloatArray
from gradwatch.judge.naming import Naming
from gradwatch.judge.rule import Finding
from gradwatch.records import Severity, StepRecord

__all__ = ["Vanishing"]


# How fast the usual share is followed.
_FOLLOWING = 0.02


class _Memory:
    """What is remembered of one optimizer.

    Attributes:
        modules: names of the modules.
        usual: logarithm of the usual share of each, ``[modules]``; NaN where none is known.
        naming: under which names those are told of that have vanished.
    """

    def __init__(self, clears_after: int) -> None:
        self.modules: tuple[str, ...] = ()
        self.usual: FloatArray = np.zeros(0)
        self.naming = Naming(clears_after)

    def follow(self, logarithms: FloatArray, gaps: bool) -> None:
        """Take in the share of each module.

        Args:
            logarithms: ``[modules]``, NaN where it tells nothing.
            gaps: there may be such, or modules of which nothing is known.
        """
        if not gaps:
            self.usual = self.usual * (1.0 - _FOLLOWING) + _FOLLOWING * logarithms
            return
        before = np.where(np.isnan(self.usual), logarithms, self.usual)
        after = before * (1.0 - _FOLLOWING) + _FOLLOWING * logarithms
        self.usual = np.where(np.isnan(logarithms), before, after)

    def known(self) -> dict[str, float]:
        """The usual share of each module of which it is known."""
        pairs = zip(self.modules, self.usual.tolist(), strict=True)
        return {name: usual for name, usual in pairs if not math.isnan(usual)}

    def rename(self, modules: tuple[str, ...]) -> None:
        """Modules have come, or were taken away: what is known of these is forgotten."""
        known = self.known()
        self.modules = modules
        self.usual = np.array([known.get(name, math.nan) for name in modules], dtype=np.float64)


class Vanishing:
    """A module's gradient has all but vanished while the optimizer's has not.

    As training converges every norm falls, and a module that always had a small share of the whole falls below
    any limit in the end: that is none. A module counts whose share of the optimizer's norm is below ``share``,
    and below a tenth of what it usually was while its norm was above the limit.

    Args:
        limit: norm consumed below which it has vanished.
        share: share of the optimizer's norm above which it has not.
        fires_after: steps running before the alert.
        clears_after: steps running above the limit before the episode is over.
    """

    id = "vanishing"
    severity: Severity = "warning"
    wants_cause = True

    # The part of the usual share that is no loss.
    _LOSS = 0.1

    def __init__(
        self, *, limit: float = 1e-7, share: float = 0.01, fires_after: int = 5, clears_after: int = 5
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._limit = limit
        self._share = share
        self._memories: dict[str, _Memory] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding for each module whose gradient has vanished."""
        whole = record.norm_after
        if record.skipped or not whole < math.inf:
            return None
        modules = record.owners or record.modules
        norms = np.array([[norms.norm_after for norms in modules.values()]])
        memory = self._memory_of(record.optimizer, tuple(modules))
        if modules and whole >= self._limit:
            memory.follow(self._logarithms(norms, np.array([whole]))[0], gaps=True)
        told = self._told(memory, norms[0], whole, tuple(record.modules))
        return [self._finding(path, norm, whole) for path, norm in told]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step in which a module's gradient has vanished."""
        memory: _Memory | None = None
        norms, wholes = block.finest_norms(AFTER), block.norms(AFTER)
        logarithms = self._logarithms(norms, wholes)
        gaps = bool(np.isnan(logarithms).any())
        low = np.logical_or.reduce((norms > 0.0) & (norms < self._limit), axis=1)
        for index, whole in enumerate(wholes[start:].tolist(), start):
            if block.rows[index].skipped or not whole < math.inf:
                continue
            if memory is None:
                memory = self._memory_of(block.layout.optimizer, block.layout.finest.names)
                gaps = gaps or bool(np.isnan(memory.usual).any())
            if memory.modules and whole >= self._limit:
                memory.follow(logarithms[index], gaps)
            if low[index] or memory.naming:
                told = self._told(memory, norms[index], whole, block.layout.lines.names)
                if told:
                    return index, [self._finding(path, norm, whole) for path, norm in told]
        return len(block), ()

    def state_dict(self) -> dict[str, Any]:
        """The logarithm of the usual share of each module, and the names of those that have vanished."""
        return {
            optimizer: {"usual": memory.known(), "names": memory.naming.state_dict()}
            for optimizer, memory in self._memories.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for optimizer, saved in state.items():
            memory = self._memory_of(optimizer, tuple(saved["usual"]))
            memory.usual = np.array(list(saved["usual"].values()), dtype=np.float64)
            memory.naming.load_state_dict(saved["names"])

    def _memory_of(self, optimizer: str, modules: tuple[str, ...]) -> _Memory:
        memory = self._memories.get(optimizer)
        if memory is None:
            memory = self._memories[optimizer] = _Memory(self.clears_after)
        if memory.modules != modules:
            memory.rename(modules)
        return memory

    def _logarithms(self, norms: FloatArray, wholes: FloatArray) -> FloatArray:
        """Of the shares of the modules, ``[steps, modules]``; NaN where the norm is not above the limit."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms: FloatArray = np.log(np.where(norms >= self._limit, norms, np.nan) / wholes[:, None])
            return logarithms

    def _told(
        self, memory: _Memory, norms: FloatArray, whole: float, lines: Sequence[str]
    ) -> list[tuple[str | None, float]]:
        """What has vanished: the name under which it is told, and its norm."""
        ill: dict[str | None, float] = {}
        below = min(self._limit, whole * self._share)
        if whole >= self._limit:
            for place in np.flatnonzero((norms > 0.0) & (norms < below)).tolist():
                norm = float(norms[place])
                if self._has_lost(norm / whole, float(memory.usual[place])):
                    ill[memory.modules[place]] = norm
        if not ill and not memory.naming:
            return []
        told = memory.naming.take(dict.fromkeys(ill), memory.modules, lines)
        return [(path, math.hypot(*(ill[module] for module in modules))) for path, modules in told.items()]

    def _has_lost(self, share: float, usual: float) -> bool:
        return math.isnan(usual) or share < self._LOSS * math.exp(usual)

    def _finding(self, module: str | None, norm: float, whole: float) -> Finding:
        message = (
            f"the gradient of {module} has all but vanished: its norm is {norm:.3g}, where the optimizer consumes "
            f"{whole:.3g} in all"
        )
        return Finding(module, norm, self._limit, message)
