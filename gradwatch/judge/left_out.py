"""Parameters that get a gradient at each step, and that no tracked optimizer holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from gradwatch.causes import REGISTER, cause
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import OUTSIDE, StepRecord

__all__ = ["LeftOut"]


class LeftOut:
    """Those of one optimizer's modules, and those of no module: a gradient that nobody consumes may be meant.

    Args:
        after: steps running before they are told of.
    """

    def __init__(self, after: int) -> None:
        self._after = after
        self._steps: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether there were any in the step before."""
        return bool(self._steps)

    def goes_on(self, left_out: Mapping[str, object] | None) -> bool:
        """Whether these are of the modules that are told of already, and of no others."""
        told = self._steps.keys() == (left_out or {}).keys()
        return told and all(steps >= self._after for steps in self._steps.values())

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """A warning for each module that has had some for long enough."""
        self._steps = {module: self._steps.get(module, 0) + 1 for module in record.left_out}
        for module, names in record.left_out.items():
            if self._steps[module] >= self._after:
                yield _finding(module, names)


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
