"""Of the causes that a look has found, by parameter and by module: the one that belongs to an alert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from gradwatch.causes import cause
from gradwatch.diagnose import Diagnosis
from gradwatch.measure.lines import Lines
from gradwatch.records import Cause

__all__ = ["Fitting"]


class Fitting:
    """Knows which parameters are a module's.

    Args:
        lines: the report's lines, and the modules that they are read from.
        parameters: name of an optimizer -> name and tensor of each parameter that it holds now.
    """

    def __init__(self, lines: Lines, parameters: Callable[[str], Mapping[str, Tensor]]) -> None:
        self._lines = lines
        self._parameters = parameters

    def to(self, diagnosis: Diagnosis, rule: str, optimizer: str, module: str | None) -> Cause | None:
        """What a finished look says of an alert of this rule, optimizer and module; None where that is nothing."""
        if rule != "vanishing":
            return self.among(diagnosis.causes, rule, optimizer, module)
        own = self.own(optimizer, module)
        faint = [diagnosis.faint[name] for name in own if name in diagnosis.faint]
        if faint:
            most = _most_common(faint)
            return most if most.kind != "unknown" or module is None else replace(most, where=module)
        found = self.among(diagnosis.causes, rule, optimizer, module)
        return found or cause(
            "unknown", module or optimizer, ruled_out="a gradient of exactly 0", parameters=len(own)
        )

    def among(self, causes: Mapping[str, Cause], rule: str, optimizer: str, module: str | None) -> Cause | None:
        """The cause at the module itself, or the one that most of its parameters have."""
        paths = [path for path in (module, *self.own(optimizer, module)) if path is not None and path in causes]
        fitting = [
            causes[path] for path in paths if causes[path].kind.startswith("nonfinite") == (rule == "nonfinite")
        ]
        return _most_common(fitting) if fitting else None

    def own(self, optimizer: str, module: str | None) -> list[str]:
        """The names of a module's parameters that the optimizer holds; of all where there is no module."""
        held = self._parameters(optimizer)
        if module is None:
            return list(held)
        # Where modules overlap, the name of a shared parameter begins with one of them only; and where a part was
        # replaced, the optimizer holds the old one, which has nothing left but its name.
        own, known = {id(parameter) for parameter in self._parameters_of(module)}, self._lines.names
        return [n for n, p in held.items() if id(p) in own or (id(p) not in known and n.startswith(f"{module}."))]

    def _parameters_of(self, module: str) -> Iterable[Tensor]:
        line = self._lines.lines.get(module)
        if line is not None:
            return line
        inside = self._lines.module_of(module)
        return () if inside is None else inside.parameters()


def _most_common(causes: Sequence[Cause]) -> Cause:
    """The first of the kind that most of them are of."""
    most = Counter(found.kind for found in causes).most_common(1)[0][0]
    return next(found for found in causes if found.kind == most)
