"""Under which name modules that are ill are told of."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from gradwatch.paths import highest
from gradwatch.shapes import COUNT, NAME, Listed, Row

__all__ = ["Naming"]

# So many modules that fall ill at once for one reason are told one by one; more are told as the first of them.
_MOST = 3


class _Name:
    """The path under which an ill module is told of, how many others it stands for, and how long all is well."""

    __slots__ = ("more", "path", "well")

    def __init__(self, path: str | None, more: int = 0, well: int = 0) -> None:
        self.path = path
        self.more = more
        self.well = well

    def is_torn_without(self, module: str | None) -> bool:
        """Whether it is wrong where this module is well: one that stands for others needs itself only."""
        return not self.more or module is None or self.path is None or _is_within(module, self.path)


class Naming:
    """Tells modules that are ill for one reason as one: at the highest that is ill as a whole, or as the first.

    A name, once given, stays for as long as what bears it is ill: where all of ``h`` falls ill after ``h.3`` did,
    ``h.3`` goes on under its own name, and ``h`` is told only if something in it bears no name yet. Where a part
    of what is told as ``h`` has been well for ``clears_after`` steps, what is still ill is named anew. More than
    three modules that fall ill at once are named after the first, for as long as that is ill.

    Args:
        clears_after: steps running without a finding before a name is given up.
    """

    def __init__(self, clears_after: int) -> None:
        self._clears_after = clears_after
        self._names: dict[str | None, _Name] = {}

    def __bool__(self) -> bool:
        """Whether any module bears a name."""
        return bool(self._names)

    def __contains__(self, module: object) -> bool:
        """Whether this one does."""
        return module in self._names

    def are_borne_by(self, ill: Mapping[str | None, object]) -> bool:
        """Whether these modules bear names, and no others do."""
        return self._names.keys() == ill.keys()

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

    def words(self, path: str | None) -> str:
        """A name as it is said: with how many others it stands for."""
        more = next((name.more for name in self._names.values() if name.path == path), 0)
        return f"{path} and {more} more" if more else str(path)

    def _let_go(self, ill: Iterable[str | None]) -> None:
        ill = set(ill)
        torn = set()
        for module, name in list(self._names.items()):
            name.well = 0 if module in ill else name.well + 1
            if name.well >= self._clears_after:
                del self._names[module]
                if name.is_torn_without(module):
                    torn.add(name.path)
        if torn:
            self._names = {
                module: name
                for module, name in self._names.items()
                if module not in ill or name.path not in torn or name.path == module
            }

    def _name(
        self, ill: Mapping[str | None, Hashable], modules: Sequence[str | None], lines: Sequence[str]
    ) -> None:
        by_reason: dict[Hashable, dict[str | None, list[str | None]]] = {}
        for module, reason in ill.items():
            by_reason.setdefault(reason, {}).setdefault(_line_of(module, lines), []).append(module)
        for alike in by_reason.values():
            new: dict[str | None, str | None] = {}
            for line, those in alike.items():
                if any(module not in self._names for module in those):
                    paths = _highest(those, [m for m in modules if _line_of(m, lines) == line], line)
                    new |= {m: _covering(m, paths) for m in those if m not in self._names}
            several = list(dict.fromkeys(new.values()))
            more = len(several) - 1 if len(several) > _MOST else 0
            for module, path in new.items():
                self._names[module] = _Name(several[0] if more else path, more)

    remembers = Listed(Row(NAME, NAME, COUNT, COUNT))

    def state_dict(self) -> list[list[Any]]:
        """The names that are borne, as plain values."""
        return [[module, name.path, name.well, name.more] for module, name in self._names.items()]

    def load_state_dict(self, state: Iterable[Sequence[Any]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._names = {module: _Name(path, more, well) for module, path, well, more in state}


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
