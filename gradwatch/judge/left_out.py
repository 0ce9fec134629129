"""Parameters that get a gradient at each step, and that no tracked optimizer holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradwatch.causes import REGISTER, cause
from gradwatch.judge.naming import Naming
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import OUTSIDE, StepRecord
from gradwatch.shapes import COUNT, NAME, Fields, Listed, Row

__all__ = ["LeftOut"]


class LeftOut:
    """Those of one optimizer's modules, and those of no module: a gradient that nobody consumes may be meant.

    A backbone whose blocks are lines of the report is told of once, and not block by block.

    Args:
        after: steps running before they are told of.
        clears_after: steps running without any before a name is given up.
    """

    def __init__(self, after: int, clears_after: int) -> None:
        self._after = after
        self._steps: dict[str | None, int] = {}
        self._naming = Naming(clears_after)

    def __bool__(self) -> bool:
        """Whether there were any of late."""
        return bool(self._steps or self._naming)

    def goes_on(self, left_out: Mapping[str, object] | None) -> bool:
        """Whether these are of the modules that are told of already, and of no others."""
        told = self._steps.keys() == (left_out or {}).keys() and self._naming.are_borne_by(self._steps)
        return told and all(steps >= self._after for steps in self._steps.values())

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """A warning for the modules that have had some for long enough: one by one if they are few."""
        after, known = self._after, self._steps
        self._steps = {module: min(known.get(module, 0) + 1, after) for module in record.left_out}
        steps = self._steps.items()
        due: dict[str | None, bool] = {module: module == OUTSIDE for module, n in steps if n >= self._after}
        for path, modules in self._naming.take(due, tuple(due), tuple(record.left_out)).items():
            yield _finding(str(path), [name for module in modules for name in record.left_out[str(module)]])

    remembers = Fields(steps=Listed(Row(NAME, COUNT)), names=Naming.remembers)

    def state_dict(self) -> dict[str, Any]:
        """Who is left out, for how long, and under which names that is told."""
        return {"steps": [[module, n] for module, n in self._steps.items()], "names": self._naming.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._steps = dict(map(tuple, saved["steps"]))
        self._naming.load_state_dict(saved["names"])


def _finding(module: str, names: Sequence[str]) -> Finding:
    outside = module == OUTSIDE
    nobody = "no module and no tracked optimizer" if outside else "no tracked optimizer"
    where = module if outside else _common_path(names) or module
    why = cause("not-in-optimizer", where, REGISTER if outside else None, parameters=len(names), first=names[0])
    get, them = ("gets", "it") if len(names) == 1 else ("get", "them")
    message = f"{listed(names)} {get} a gradient and {nobody} holds {them}, so nothing is learned there"
    return Finding(module, 0.0, 0.0, message, "warning", why, at_once=True)


def _common_path(names: Sequence[str]) -> str:
    """The innermost module that all of these parameters are in."""
    paths = [name.split(".")[:-1] for name in names]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in alike)
