"""On which side of the loss an operation is: in the network, or in what makes a loss of its output."""

from __future__ import annotations

from typing import Literal

from gradwatch.diagnose.graph.catalogue import UNKNOWN, Family
from gradwatch.diagnose.graph.walk import Graph, Node, hands_on, is_leaf, row_of
from gradwatch.diagnose.look.place import Place

__all__ = ["Side", "Sides"]

# ``output`` is what is done to the network's own output first, outside of every module with parameters.
Side = Literal["network", "output", "loss"]

# What may follow a loss: it is only reshaped, scaled and added up.
_FOLLOWS: tuple[Family, ...] = ("joint", "product", "reduction", "selection", "sum", "view")


class Sides:
    """Tells the two apart, once for each graph.

    An operation is on the loss's side if no layer follows it, and what comes into it is no longer the network's
    own output: a loss function has been applied, or any operation outside of every module with parameters. Where
    no modules are known only loss functions tell.

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
        """The operations that nothing else follows."""
        tail: set[Node] = set()
        for node in reversed(self.graph.order):
            above = [consumer.node for consumer in self.graph.consumers[node]]
            if is_leaf(node) or not all(other in tail and _may_follow(other, node) for other in above):
                continue
            tail.add(node)
        return tail

    def _side(self, node: Node, sides: dict[Node, Side]) -> Side:
        below = (self.graph.producer(node, index) for index in range(len(self.graph.inputs[node])))
        met = {sides.get(made_by) or self._before(made_by) for made_by in below if made_by is not None}
        row = row_of(node)
        outside = self.place.knows_modules and not self.place.in_network(node)
        may_teach = row is not None and (row.family != "distance" or outside or not self.place.knows_modules)
        if "loss" in met or (row is not None and row.teaches and may_teach):
            return "loss"
        if not outside:
            return "network"
        if hands_on(node):
            return "output" if "output" in met else "network"
        return "loss" if "output" in met else "output"

    def _before(self, node: Node) -> Side:
        """The side of an operation that is not the end of everything: in the network, or outside of it."""
        outside = self.place.knows_modules and not is_leaf(node) and not self.place.in_network(node)
        return "output" if outside else "network"


def _may_follow(above: Node, node: Node) -> bool:
    row, its = row_of(above) or UNKNOWN, row_of(node) or UNKNOWN
    # A softmax and the likelihood of its classes are one loss in two operations.
    of_classes = row.family == "loss" and its.family in ("softmax", "view")
    return of_classes or row.family in _FOLLOWS
