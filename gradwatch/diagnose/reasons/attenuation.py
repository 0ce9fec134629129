"""The walk from a parameter up to the loss: where its gradient was lost, all of it, most of it, or its finiteness.

At each edge the largest gradient that came into an operation is held against the largest that it handed on. A zero
is infinitely many decades lost at one edge; a gradient that has vanished lost many on its way, perhaps at one; one
that is not finite stopped to be so at one. Looking from the loss instead would find the same operation last:
everything below it is zero as well.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal, NamedTuple

from gradwatch.diagnose.graph.walk import NO_INPUT, Graph, Node
from gradwatch.diagnose.look.notes import Sighting

__all__ = ["Crossing", "Loss", "losses_on_the_way", "not_finite_from", "zero_from"]


class Crossing(NamedTuple):
    """One place where the gradient went wrong.

    Attributes:
        at: ``operation`` where an operation did it; ``edge`` where what the operations gave was right and what
            arrived at ``node`` was not (a hook, or contributions that cancel); ``root`` where it was wrong from
            the start of the backward pass.
        node: the operation.
        input: number of its input; -1 where that has no meaning.
        distance: operations between the parameter and here.
    """

    at: Literal["operation", "edge", "root"]
    node: Node
    input: int
    distance: int


class Loss(NamedTuple):
    """What one operation took of a gradient: decades, at one of its inputs."""

    node: Node
    input: int
    decades: float


def zero_from(graph: Graph, seen: Mapping[Node, Sighting], leaf: Node) -> list[Crossing]:
    """Where the gradient of a parameter turned zero, nearest first."""
    return list(_crossings(graph, seen, leaf, lambda on: on == 0.0, lambda came_in: not any(came_in)))


def not_finite_from(graph: Graph, seen: Mapping[Node, Sighting], leaf: Node) -> list[Crossing]:
    """Where the gradient of a parameter stopped to be finite, nearest first."""
    crossings = _crossings(graph, seen, leaf, _not_finite, lambda came_in: any(map(_not_finite, came_in)))
    # A finite contribution to a sum that is not finite is as it should be.
    return [crossing for crossing in crossings if crossing.at != "edge"]


def losses_on_the_way(
    graph: Graph, seen: Mapping[Node, Sighting], sizes: Mapping[Node, float], leaf: Node
) -> list[Loss]:
    """Where a gradient lost size on its way to a parameter, along the path that brought most of it.

    Args:
        graph: of the backward pass.
        seen: largest gradients into and out of each operation.
        sizes: of operations that spread a gradient, over how many elements each did.
        leaf: the operation that accumulates the gradient.
    """
    losses: list[Loss] = []
    at, met = leaf, {leaf}
    while True:
        above = (c for c in graph.consumers.get(at, ()) if c.input != NO_INPUT)
        ways = [c for c in above if c.node in seen and c.node not in met]
        if not ways:
            return losses
        node, index = max(ways, key=lambda way: seen[way.node].outgoing[way.input])
        came, went = max(seen[node].incoming, default=0.0), seen[node].outgoing[index] * sizes.get(node, 1.0)
        if 0.0 < went < came:
            losses.append(Loss(node, index, math.log10(came / went)))
        met.add(node)
        at = node


def _crossings(
    graph: Graph,
    seen: Mapping[Node, Sighting],
    leaf: Node,
    wrong: Callable[[float], bool],
    all_wrong: Callable[[Collection[float]], bool],
) -> Iterator[Crossing]:
    """Upwards through everything that got a wrong gradient already, breadth first."""
    waiting = deque([(leaf, 0)])
    met = {leaf}
    while waiting:
        node, distance = waiting.popleft()
        if node in graph.roots and node in seen and all_wrong(seen[node].incoming):
            yield Crossing("root", node, NO_INPUT, distance)
        for consumer in graph.consumers.get(node, ()):
            sighting = seen.get(consumer.node)
            if sighting is None:
                continue
            if consumer.input != NO_INPUT and not wrong(sighting.outgoing[consumer.input]):
                yield Crossing("edge", node, NO_INPUT, distance)
            elif not all_wrong(sighting.incoming):
                yield Crossing("operation", consumer.node, consumer.input, distance)
            elif consumer.node not in met:
                met.add(consumer.node)
                waiting.append((consumer.node, distance + 1))


def _not_finite(value: float) -> bool:
    return not math.isfinite(value)
