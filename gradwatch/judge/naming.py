"""Under which name modules that are ill are told of."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from gradwatch.paths import highest

__all__ = ["Naming"]


class _Name:
    """The path under which an ill module is told of, and for how many steps running it has been well."""

    __slots__ = ("path", "well")

    def __init__(self, path: str | None, well: int = 0) -> None:
        self.path = path
        self.well = well


class Naming:
    """Tells modules that are ill for one reason as one, at the highest module that is ill as a whole.

    A name, once given, stays for as long as what bears it is ill: where all of ``h`` falls ill after ``h.3`` did,
    ``h.3`` goes on under its own name, and ``h`` is told only if something in it bears no name yet. Where a part
    of what is told as ``h`` has been well for ``clears_after`` steps, what is still ill is named anew.

    Args:
        clears_after: steps running without a finding before a name is given up.
    """

    def __init__(self, clears_after: int) -> None:
        self._clears_after = clears_after
        self._names: dict[str | None, _Name] = {}

    def __bool__(self) -> bool:
        """Whether any module bears a name."""
        return bool(self._names)

    def take(
        self, ill: Mapping[str | None, Hashable], modules: Sequence[str | None], lines: Iterable[str]
    ) -> dict[str | None, list[str | None]]:
        """What is told in this step.

        Args:
            ill: module -> the reason for which it is ill; None, alone, is the optimizer as a whole.
            modules: all that could be ill.
            lines: the lines of the report: no name is higher than these.

        Returns:
            name -> the ill modules that bear it.
        """
        self._let_go(ill)
        if any(module not in self._names for module in ill):
            self._name(ill, modules, list(lines))
        told: dict[str | None, list[str | None]] = {}
        for module in ill:
            told.setdefault(self._names[module].path, []).append(module)
        return told

    def _let_go(self, ill: Iterable[str | None]) -> None:
        ill = set(ill)
        torn = set()
        for module, name in list(self._names.items()):
            name.well = 0 if module in ill else name.well + 1
            if name.well >= self._clears_after:
                torn.add(name.path)
                del self._names[module]
        if torn:
            self._names = {
                module: name
                for module, name in self._names.items()
                if module not in ill or name.path not in torn or name.path == module
            }

    def _name(
        self, ill: Mapping[str | None, Hashable], modules: Sequence[str | None], lines: Sequence[str]
    ) -> None:
        by_reason: dict[tuple[Hashable, str | None], list[str | None]] = {}
        for module, reason in ill.items():
            by_reason.setdefault((reason, _line_of(module, lines)), []).append(module)
        for (_, line), alike in by_reason.items():
            if any(module not in self._names for module in alike):
                paths = _highest(alike, [m for m in modules if _line_of(m, lines) == line], line)
                for module in alike:
                    self._names.setdefault(module, _Name(_covering(module, paths)))

    def state_dict(self) -> list[list[Any]]:
        """The names that are borne, as plain values."""
        return [[module, name.path, name.well] for module, name in self._names.items()]

    def load_state_dict(self, state: Iterable[Sequence[Any]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._names = {module: _Name(path, well) for module, path, well in state}


def _line_of(module: str | None, lines: Iterable[str]) -> str | None:
    """The line that a module's path begins with: the longest, where lines lie within each other."""
    if module is None:
        return None
    return max((line for line in lines if _is_within(module, line)), key=len, default=module)


def _highest(alike: Sequence[str | None], modules: Sequence[str | None], line: str | None) -> list[str | None]:
    if line is None:
        return [None]
    paths = highest([m for m in alike if m is not None], [m for m in modules if m is not None])
    return [path if _is_within(path, line) else line for path in paths]


def _covering(module: str | None, paths: Sequence[str | None]) -> str | None:
    if module is None:
        return None
    # An owner that is ill beside well ones beneath it goes by its own path, and covers none of them.
    return max((path for path in paths if path is not None and _is_within(module, path)), key=len)


def _is_within(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}.")
