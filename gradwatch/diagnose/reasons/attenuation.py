"""The way up from a parameter to the loss: where its gradient lost everything, most of it, or its finiteness.

At each edge the largest gradient that came into an operation is held against the largest that it handed on, in
decades. A zero is infinitely many of them at one edge, and so is the end of finiteness; a gradient that has
vanished lost many on its way, perhaps at one. Looking from the loss instead would find the same operation last:
everything below it is zero as well.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from gradwatch.diagnose.graph.walk import NO_INPUT, Consumer, Graph, Node
from gradwatch.diagnose.look.numbers import badness
from gradwatch.diagnose.look.site import Evidence, Finding, Sighting

__all__ = ["FAINT", "Edge", "of_most", "way_up"]

# A gradient smaller than this is asked how it became so.
FAINT = 1e-6

# To be blamed alone an operation must have taken this share of all decades lost, and so many of them.
_SHARE, _DECADES = 0.75, 4.0

# Nearly dead: so large a share of an activation's units has lost a decade or more, and the gradient three there.
_DEAD_UNITS, _NEARLY_DEAD = 0.95, 3.0


class Edge(NamedTuple):
    """What became of a gradient at one place on its way.

    Attributes:
        at: ``operation`` for what an operation made of it; ``edge`` where what the operations gave was right and
            what arrived at ``node`` was not (a hook, or contributions that cancel); ``root`` where it was wrong
            from the start of the backward pass.
        node: the operation.
        input: number of its input; -1 where that has no meaning.
        distance: operations between the parameter and here.
        decades: lost here; infinitely many where nothing was left, or nothing finite.
    """

    at: Literal["operation", "edge", "root"]
    node: Node
    input: int
    distance: int
    decades: float = math.inf


def way_up(graph: Graph, seen: Mapping[Node, Sighting], leaf: Node, size: float) -> Iterator[Edge]:
    """From a parameter up through what brought it its gradient, nearest first, until that is sound.

    Of a zero that is everything, of what is not finite all that is not, and else what brought most.

    Args:
        graph: of the backward pass.
        seen: largest gradients into and out of each operation.
        leaf: the operation that accumulates the gradient.
        size: of the gradient.
    """
    waiting, met = deque([(leaf, size, 0)]), {leaf}
    while waiting:
        at, own, distance = waiting.popleft()
        if at in graph.roots and at in seen and (own == 0.0 or not math.isfinite(own)):
            yield Edge("root", at, NO_INPUT, distance)
        above = [consumer for consumer in graph.consumers.get(at, ()) if consumer.node in seen]
        given = {each: own if each.input == NO_INPUT else seen[each.node].left[each.input] for each in above}
        if own == 0.0 and any(given.values()):
            yield Edge("edge", at, NO_INPUT, distance)
        for node, index in _bringing(own, given):
            came = seen[node].came
            decades = _lost(came, given[Consumer(node, index)] * seen[node].spread)
            if decades:
                yield Edge("operation", node, index, distance, decades)
            if decades < math.inf and node not in met:
                met.add(node)
                waiting.append((node, came, distance + 1))


def of_most(edges: Sequence[Edge], found: Callable[[Edge], Finding]) -> tuple[Edge | None, Evidence]:
    """The one that took nearly everything, None where none did; and the numbers that say so.

    Args:
        edges: where something was lost of one gradient.
        found: why one of them is as small as it is, as far as that was read.
    """
    total = sum(edge.decades for edge in edges)
    most = max(edges, key=lambda edge: edge.decades, default=None)
    if most is None:
        return None, {"decades_lost": 0.0}
    numbers: Evidence = {"decades_lost": total, "operations_that_lose": len(edges)}
    alone = most.decades >= max(_DECADES, _SHARE * total) or _is_nearly_dead(most, found(most))
    numbers["decades_lost_here" if alone else "most_lost_by_one"] = most.decades
    if not alone:
        numbers["which"] = most.node.name()
    return (most if alone else None), numbers


def _is_nearly_dead(edge: Edge, found: Finding) -> bool:
    flat = found.evidence.get("share_flat")
    return isinstance(flat, float) and flat >= _DEAD_UNITS and edge.decades >= _NEARLY_DEAD


def _bringing(own: float, given: Mapping[Consumer, float]) -> list[Consumer]:
    """Those that brought what arrived, as it is."""
    if own == 0.0:
        return [each for each, size in given.items() if size == 0.0]
    if math.isfinite(own):
        return sorted(given, key=lambda each: badness(given[each]), reverse=True)[:1]
    return [each for each, size in given.items() if not math.isfinite(size)]


def _lost(came: float, went: float) -> float:
    if went == 0.0:
        return 0.0 if came == 0.0 else math.inf
    if not math.isfinite(went):
        return math.inf if math.isfinite(came) else 0.0
    return math.log10(came / went) if went < came < math.inf else 0.0
