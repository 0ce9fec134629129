"""One operation in the middle of its backward: what may be looked at to tell why it hands on what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from gradwatch.diagnose.graph.catalogue import UNKNOWN, Row
from gradwatch.diagnose.graph.parts import Part
from gradwatch.diagnose.graph.saved import read_saved
from gradwatch.diagnose.graph.walk import Graph, Node, row_of
from gradwatch.diagnose.look.place import Place
from gradwatch.diagnose.look.probe import Answer, Probe

__all__ = ["Evidence", "Finding", "Sighting", "Site"]

Evidence = dict[str, float | int | str]


class Finding(NamedTuple):
    """The kind of a cause and the numbers that prove it."""

    kind: str
    evidence: Mapping[str, float | int | str]


class Sighting(NamedTuple):
    """What a backward pass showed of one operation: the largest absolute value of gradients.

    0.0 stands for a gradient that is all zero and for one that is not there.

    Attributes:
        came: of all that came in; NaN or Inf where there was one.
        left: of what each input got.
        spread: over how many elements it spread each that came in.
    """

    came: float
    left: tuple[float, ...]
    spread: float = 1.0


@dataclass(frozen=True)
class Site:
    """One input of one operation whose incoming gradient is right and whose outgoing one is not.

    Attributes:
        probe: asks the operation; knows its gradients.
        index: number of the input.
        place: tells where it is.
        came: the largest that came in.
        left: the largest that was handed on: 0 where all of it was lost.
        part: the part of the input that is looked at; None for all of it.
    """

    probe: Probe
    index: int
    place: Place
    came: float
    left: float
    part: Part | None = None

    @property
    def node(self) -> Node:
        """The operation."""
        return self.probe.node

    @property
    def graph(self) -> Graph:
        """The graph that it is in."""
        return self.place.graph

    @property
    def row(self) -> Row:
        """What is known of the operation."""
        return row_of(self.node) or UNKNOWN

    @property
    def in_loss(self) -> bool:
        """Whether it is a part of the loss, rather than of the network."""
        return self.place.side(self.node) == "loss"

    @property
    def kind(self) -> str:
        """The kind of cause where it lets nothing through; "" where it always does."""
        return self.row.as_loss if self.row.as_loss and self.in_loss else self.row.flat

    @property
    def handed_on(self) -> Tensor | None:
        """The gradient that the input got; None where it got none."""
        return self.probe.outgoing[self.index]

    @property
    def gradient(self) -> Tensor:
        """The first incoming gradient that there is; of an elementwise operation, the part that is looked at."""
        return self.in_part(next(gradient for gradient in self.probe.incoming if gradient is not None))

    @property
    def answer(self) -> Answer:
        """What the operation's own formula says."""
        return self.probe.answer(self.index, None if self.part is None else self.part.of)

    def saved(self, name: str) -> Any:
        """What the operation saved under a name; None where it saved nothing or it cannot be read."""
        return read_saved(self.node, name)

    def tensor(self, name: str) -> Tensor | None:
        """A saved tensor, outside any graph; of one with the input's shape, the part that is looked at."""
        value = self.saved(name) if name else None
        return self.in_part(value.detach()) if isinstance(value, Tensor) else None

    def in_part(self, values: Tensor) -> Tensor:
        """Of what has the input's shape, the part that is looked at."""
        if self.part is None or self.handed_on is None or self.row.family == "contraction":
            return values
        return self.part.of(values) if values.shape == self.handed_on.shape else values
