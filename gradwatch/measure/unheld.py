"""Parameters that no optimizer of a tracker holds: whoever forgets to hand them over trains them in vain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress, repeat
from operator import attrgetter, is_not, itemgetter

from torch import Tensor

from gradwatch.records import OUTSIDE

__all__ = ["Unheld"]

_name, _parameter, _grad = itemgetter(0), itemgetter(1), attrgetter("grad")


class Unheld:
    """Those that the records of one optimizer tell of.

    Attributes:
        modules: by module, the parameters of it: names and tensors.
        strays: parameters that no module holds either: a name, the tensor, how often it had been written to.
    """

    def __init__(self) -> None:
        self.modules: Mapping[str, list[tuple[str, Tensor]]] = {}
        self.strays: tuple[tuple[str, Tensor, int], ...] = ()

    def add_strays(self, found: Iterable[tuple[str, Tensor, int]]) -> None:
        """Tell of these besides."""
        self.strays = (*self.strays, *found)

    def with_gradients(self) -> dict[str, tuple[str, ...]]:
        """By module, the names of those that have a gradient now."""
        found = {}
        for module, unheld in self.modules.items():
            # One call for each of many: a feature extractor may be left out as a whole.
            gradients = map(_grad, map(_parameter, unheld))
            names = tuple(compress(map(_name, unheld), map(is_not, gradients, repeat(None))))
            if names:
                found[module] = names
        if self.strays:
            # Whoever trains one writes to it.
            self.strays = tuple(stray for stray in self.strays if stray[1]._version == stray[2])
            alive = tuple(name for name, parameter, _ in self.strays if parameter.grad is not None)
            found |= {OUTSIDE: alive} if alive else {}
        return found
