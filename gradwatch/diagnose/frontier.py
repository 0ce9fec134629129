"""Where a gradient turned zero, or not finite: a walk from the parameter towards the loss.

The frontier is the first (operation, input) whose incoming gradient is still right and whose outgoing one is
not. Looking from the loss instead would find the same operation last: everything below it is zero as well.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal, NamedTuple

from gradwatch.diagnose.walk import NO_INPUT, Graph, Node

__all__ = ["Crossing", "Sighting", "not_finite_from", "zero_from"]


class Sighting(NamedTuple):
    """What a backward pass showed of one operation: the largest absolute value of each gradient.

    0.0 stands for a gradient that is all zero and for one that is not there.
    """

    incoming: tuple[float, ...]
    outgoing: tuple[float, ...]


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


def zero_from(graph: Graph, seen: Mapping[Node, Sighting], leaf: Node) -> list[Crossing]:
    """Where the gradient of a parameter turned zero, nearest first."""
    crossings = _walk(graph, seen, leaf, lambda handed_on: handed_on == 0.0, lambda came_in: not any(came_in))
    return list(crossings)


def not_finite_from(graph: Graph, seen: Mapping[Node, Sighting], leaf: Node) -> list[Crossing]:
    """Where the gradient of a parameter stopped to be finite, nearest first."""
    crossings = _walk(graph, seen, leaf, _not_finite, lambda came_in: any(map(_not_finite, came_in)))
    # A finite contribution to a sum that is not finite is as it should be.
    return [crossing for crossing in crossings if crossing.at != "edge"]


def _walk(
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
