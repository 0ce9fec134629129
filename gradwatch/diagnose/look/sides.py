"""On which side of the loss an operation is: in the network, or in what makes a loss of its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gradwatch.diagnose.graph.catalogue import UNKNOWN, Family
from gradwatch.diagnose.graph.walk import Graph, Node, hands_on, is_leaf, row_of

__all__ = ["Side", "sides_of"]

# ``output`` is what is done to the network's own output first, outside of every module with parameters.
Side = Literal["network", "output", "loss"]

# What may follow a loss: it is only reshaped, scaled and added up.
_FOLLOWS: tuple[Family, ...] = ("joint", "product", "reduction", "selection", "sum", "view")


def sides_of(graph: Graph, is_outside: Callable[[Node], bool] | None) -> dict[Node, Side]:
    """The side of what each operation makes; those that are left out are in the network.

    An operation is on the loss's side if no layer follows it, and what comes into it is no longer the network's
    own output: a loss function has been applied, or any operation outside of every module with parameters.

    Args:
        graph: of the backward pass.
        is_outside: of every module with parameters; None where no modules are known: loss functions tell.
    """
    sides: dict[Node, Side] = {}
    tail = _tail(graph)
    for node in filter(tail.__contains__, graph.order):
        below = [graph.producer(node, index) for index in range(len(graph.inputs[node]))]
        outside = is_outside is not None and is_outside(node)
        met = {sides.get(made_by) or _before(made_by, is_outside) for made_by in below if made_by is not None}
        row = row_of(node) or UNKNOWN
        may_teach = row.family != "distance" or outside or is_outside is None
        is_hinge = is_outside is None and _is_hinge(graph, node)
        if "loss" in met or (row.teaches and may_teach) or is_hinge:
            sides[node] = "loss"
        elif outside and hands_on(node):
            sides[node] = "output" if "output" in met else "network"
        elif outside:
            sides[node] = "loss" if "output" in met else "output"
    return sides


def _is_hinge(graph: Graph, node: Node) -> bool:
    """Whether it rectifies a margin: what a constant was added to, or subtracted from, and no bias or layer."""
    row = row_of(node) or UNKNOWN
    if row.family not in ("activation", "clamp") or row.as_loss == "":
        return False
    made_by = graph.producer(node, 0)
    if made_by is None or (row_of(made_by) or UNKNOWN).family != "sum":
        return False
    return sum(below is not None for below, _ in graph.inputs[made_by]) == 1


def _tail(graph: Graph) -> set[Node]:
    """The operations that nothing else follows."""
    tail: set[Node] = set()
    for node in reversed(graph.order):
        above = [consumer.node for consumer in graph.consumers[node]]
        if not is_leaf(node) and all(other in tail and _may_follow(other, node) for other in above):
            tail.add(node)
    return tail


def _before(node: Node, is_outside: Callable[[Node], bool] | None) -> Side:
    """The side of an operation that is not the end of everything: in the network, or outside of it."""
    return "output" if is_outside is not None and not is_leaf(node) and is_outside(node) else "network"


def _may_follow(above: Node, node: Node) -> bool:
    row, its = row_of(above) or UNKNOWN, row_of(node) or UNKNOWN
    # A softmax and the likelihood of its classes are one loss in two operations.
    of_classes = row.family == "loss" and its.family in ("softmax", "view")
    return of_classes or row.family in _FOLLOWS
