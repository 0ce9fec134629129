"""Which module owns a parameter, and which one a verdict names: the highest that is ill as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

__all__ = ["PARAMETRIZED", "ROOT", "highest", "owner_of"]

# How a model's own parameters are reported, beside its children.
ROOT = "(root)"

# In what torch keeps the tensors that a weight is computed from, such as ``parametrizations.weight.original0``.
PARAMETRIZED = "parametrizations"
_ORIGINAL = re.compile(rf"(?:^|\.){PARAMETRIZED}\.[^.]+\.original\d*$")


# Asked of each name at each step that is told of.
@lru_cache(maxsize=1 << 14)
def owner_of(name: str) -> str:
    """The path of the module that owns the parameter of this name itself."""
    owner, found = _ORIGINAL.subn("", name)
    return (owner if found else name.rpartition(".")[0]) or ROOT


def highest(ill: Iterable[str], owners: Iterable[str], lines: Iterable[str] | None = None) -> list[str]:
    """The highest modules that are ill as a whole, and the owners that are ill in a module that is not.

    A path is looked for upwards to the line of the report that it lies in and never above: where ``h.0`` and
    ``h.1`` are lines, they are told one by one though all of ``h`` is ill.

    Args:
        ill: paths of the owners that are ill.
        owners: paths of all modules that own parameters themselves, such as ``"actor.net.0"``.
        lines: names of the report's lines; None where a path is looked for all the way up.

    Returns:
        Each path once, in the order of ``ill``.
    """
    ill, tops = list(ill), None if lines is None else set(lines)
    spared = set(owners).difference(ill)
    partly_well = {above for path in spared for above in _upwards(path)}
    told: dict[str, None] = {}
    for path in ill:
        upwards = list(_upwards(path))
        if tops is not None:
            upwards = upwards[: max((at for at, above in enumerate(upwards) if above in tops), default=0) + 1]
        whole = [above for above in upwards if above not in partly_well]
        told[whole[-1] if whole else path] = None
    return list(told)


def _upwards(path: str) -> Iterator[str]:
    """A path, and those of the modules around it, inner ones first."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
