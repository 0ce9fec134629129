"""On which side of the loss an operation is: in the network, or in what makes a loss of its output."""

from __future__ import annotations

from typing import Literal

from gradwatch.diagnose.graph.catalogue import Family
from gradwatch.diagnose.graph.walk import Graph, Node, hands_on, is_leaf, row_of
from gradwatch.diagnose.look.place import Place

__all__ = ["Side", "Sides"]

# ``output`` is what is done to the network's own output first, outside of every module with parameters.
Side = Literal["network", "output", "loss"]

# What may follow in a loss; a layer of a network is none of these.
_IN_LOSSES: tuple[Family, ...] = (
    "clamp", "distance", "function", "joint", "loss", "overwriting", "product", "reduction",
    "selection", "softmax", "sum", "view",
)  # fmt: skip


class Sides:
    """Tells the two apart, once for each graph.

    An operation is on the loss's side if no layer follows it, and what comes into it is no longer the network's
    own output: a loss function has been applied, or any operation outside of every module with parameters. Where
    no modules are known, or where the outermost one computes the loss as well, only loss functions tell.

    Args:
        place: in which modules operations are; holds the graph.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.graph: Graph = place.graph
        self._sides: dict[Node, Side] | None = None

    def of(self, node: Node) -> Side:
        """The side of what an operation makes."""
        if self._sides is None:
            self._sides = self._all()
        return self._sides.get(node, "network")

    def _all(self) -> dict[Node, Side]:
        tail = self._tail()
        sides: dict[Node, Side] = {}
        for node in self.graph.order:
            if node in tail:
                sides[node] = self._side(node, sides)
        return sides

    def _tail(self) -> set[Node]:
        """The operations that nothing but a loss's follow."""
        tail: set[Node] = set()
        for node in reversed(self.graph.order):
            above = [consumer.node for consumer in self.graph.consumers[node]]
            if is_leaf(node) or not all(other in tail and _in_losses(other) for other in above):
                continue
            tail.add(node)
        return tail

    def _side(self, node: Node, sides: dict[Node, Side]) -> Side:
        below = [made_by for made_by, _ in self.graph.inputs[node] if made_by is not None]
        met = {sides.get(made_by, "network") for made_by in below}
        row = row_of(node)
        outside = self.place.knows_modules and not self.place.in_network(node)
        if "loss" in met or (row is not None and self._teaches(node, outside)):
            return "loss"
        if not outside:
            return "network"
        if hands_on(node):
            return "output" if "output" in met else "network"
        return "loss" if "output" in met else "output"

    def _teaches(self, node: Node, outside: bool) -> bool:
        """Whether an operation makes a loss of what comes in, whatever that is."""
        row = row_of(node)
        if row is None or not row.teaches:
            return False
        return row.family != "distance" or outside or not self.place.knows_modules or self.place.beside_loss(node)


def _in_losses(node: Node) -> bool:
    row = row_of(node)
    return row is not None and (row.as_loss != "" or row.family in _IN_LOSSES)
