"""One operation in the middle of its backward: what its reader may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from gradwatch.diagnose.numbers import as_dense
from gradwatch.diagnose.parts import PRODUCTS, Part
from gradwatch.diagnose.place import Place
from gradwatch.diagnose.saved import read_saved
from gradwatch.diagnose.walk import Graph, Node, operation

__all__ = ["Finding", "Site"]


class Finding(NamedTuple):
    """What a reader says: the kind of cause and the numbers that prove it."""

    kind: str
    evidence: Mapping[str, float | int | str]


@dataclass(frozen=True)
class Site:
    """One input of one operation whose incoming gradient is right and whose outgoing one is not.

    Attributes:
        node: the operation.
        index: number of the input.
        incoming: gradients that came to it.
        outgoing: the gradient that it handed on to the input; None where it handed none on.
        place: where it is.
        part: the part of the input that is looked at; None for all of it.
    """

    node: Node
    index: int
    incoming: Sequence[Tensor | None]
    outgoing: Tensor | None
    place: Place
    part: Part | None = None
    _read: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def graph(self) -> Graph:
        """The graph that it is in."""
        return self.place.graph

    @property
    def gradient(self) -> Tensor:
        """The first incoming gradient that there is; of an elementwise operation, the part that is looked at."""
        return self._in_part(as_dense(next(gradient for gradient in self.incoming if gradient is not None)))

    def saved(self, name: str) -> Any:
        """What the operation saved under a name; None where it saved nothing or it cannot be read."""
        if name not in self._read:
            self._read[name] = read_saved(self.node, name)
        return self._read[name]

    def tensor(self, name: str) -> Tensor | None:
        """A saved tensor, outside any graph; of one with the input's shape, the part that is looked at."""
        value = self.saved(name)
        return self._in_part(value.detach()) if isinstance(value, Tensor) else None

    def _in_part(self, values: Tensor) -> Tensor:
        if self.part is None or self.outgoing is None or operation(self.node) in PRODUCTS:
            return values
        if values.shape != self.outgoing.shape:
            return values
        return self.part.of(values)
