"""What a backward pass showed, in plain numbers and findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gradwatch.diagnose.graph.walk import Graph, Node
from gradwatch.diagnose.look.calls import Call
from gradwatch.diagnose.look.place import Place
from gradwatch.diagnose.look.site import Finding, Sighting
from gradwatch.diagnose.look.values import Values

__all__ = ["Notes"]


@dataclass
class Notes:
    """The notes on one backward pass.

    Attributes:
        place: tells where operations are; holds the graph.
        calls: of modules in the thread that the pass started from, as far as they are noted.
        loss: largest absolute value of what the pass started from, NaN or Inf where it was not finite.
        initial: the same of the gradients that it started with.
        seen: largest gradients into and out of each operation.
        findings: by operation and number of its input, why the gradient went wrong there.
        in_part: by an operation that joins tensors and the number of one of them: the operation above it that
            gave this one nothing, and why.
        spread: over how many elements an operation spread each that came in.
        values: what operations saved of the forward pass; only where the loss is not finite.
        arrived: largest gradient that was about to be accumulated, by the operation that accumulates it.
    """

    place: Place
    calls: Sequence[Call]
    loss: float
    initial: float
    seen: dict[Node, Sighting] = field(default_factory=dict)
    findings: dict[tuple[Node, int], Finding] = field(default_factory=dict)
    in_part: dict[tuple[Node, int], tuple[Node, Finding]] = field(default_factory=dict)
    spread: dict[Node, float] = field(default_factory=dict)
    values: dict[Node, Values] = field(default_factory=dict)
    arrived: dict[Node, float] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The graph that the pass runs through."""
        return self.place.graph

    def adopt(self, inner: Notes, parent: Node) -> None:
        """Take in what a run inside one of the operations showed."""
        self.graph.adopt(inner.graph, parent)
        self.seen.update(inner.seen)
        self.findings.update(inner.findings)
        self.in_part.update(inner.in_part)
        self.spread.update(inner.spread)
        self.values.update(inner.values)
        self.arrived.update(inner.arrived)
