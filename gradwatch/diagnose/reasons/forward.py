"""Behind a loss that is not finite: which operation of the forward pass made NaN or Inf out of finite numbers.

Nothing is left of that pass but what its operations saved. The first one known to have made something not finite
is sought, and below it what may have overflowed unseen; it is named where all that came into it was finite, as it
was saved or as its size has a bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

from gradwatch.diagnose.graph.walk import Graph, Node, hands_on, is_leaf, made_as, row_of, spreading
from gradwatch.diagnose.look.numbers import Extent
from gradwatch.diagnose.look.site import Evidence
from gradwatch.diagnose.look.values import Values
from gradwatch.diagnose.reasons.bounds import Bounds, is_shifted, largest_of_type, too_large_for, type_of

__all__ = ["Forward"]


class Forward:
    """What is known of the forward pass.

    Args:
        graph: of the backward pass.
        seen: what the operations saved.
        loss: the largest absolute value of what the pass started from.
    """

    def __init__(self, graph: Graph, seen: Mapping[Node, Values], loss: float) -> None:
        self._graph = graph
        self._seen = seen
        self._made = _outputs(graph, seen)
        if len(graph.roots) == 1:
            self._made.setdefault(graph.roots[0], Extent(loss, loss, loss))
        self._bounds = Bounds(graph, seen, self._made)

    def culprit(self) -> tuple[Node, Evidence] | None:
        """The first operation that made it, and the numbers that prove it; None where nothing does."""
        first = self._lowest
        return None if first is None or not self._can_break(first) else (first, self._evidence(first))

    def suspect(self) -> Node | None:
        """The first operation that may have made it, where nothing tells how large what it made was, or can be."""
        first = self._lowest
        return None if first is None or first in self._made or self._bounds.by_inputs[first] < math.inf else first

    @cached_property
    def _lowest(self) -> Node | None:
        """The first operation of which what came in was finite, and what it made was not, or has no bound."""
        reached = spreading(self._graph.roots, self._below_without_bound)
        broken = [node for node in reached if node in self._seen and node in self._made]
        broken = [node for node in broken if not self._made[node].finite]
        if not broken:
            return None
        first = min(spreading([_first(broken)], self._below_without_bound), key=made_as)
        return first if first in self._seen and self._fed_finite(first) else None

    def entrance(self) -> Node | None:
        """The first operation that NaN or Inf came into from outside the graph, as from the data."""
        entered = [
            node
            for node, values in self._seen.items()
            if any(made_by is None and not values.inputs[name].finite for name, made_by in values.fed_by.items())
        ]
        return _first(entered) if entered else None

    def _below(self, node: Node) -> list[Node]:
        return [below for below, _ in self._graph.inputs.get(node, ()) if below is not None]

    def _below_without_bound(self, node: Node) -> list[Node]:
        return [below for below in self._below(node) if self._bounds.of[below] == math.inf and not is_leaf(below)]

    def _fed_finite(self, node: Node) -> bool:
        """Whether all that came in was finite: it was saved, or its size has a bound."""
        saved = all(entering.finite for entering in self._seen[node].inputs.values())
        return saved and all(self._bounds.of[below] < math.inf for below in self._below(node))

    def _can_break(self, node: Node) -> bool:
        """Whether an operation can have made this of finite numbers of the sizes that came in."""
        row, bound = row_of(node), self._bounds.by_inputs[node]
        overflows = bound >= largest_of_type(node)
        if node not in self._made:
            return overflows and bound < math.inf  # it is known what came in, and it need not be moderate
        # An exponential overflows to Inf: a NaN must have come in.
        return overflows and not (row is not None and row.never_nan and math.isnan(self._made[node].low))

    def _evidence(self, node: Node) -> Evidence:
        values, fed, made = self._seen[node], self._below(node), self._made.get(node)
        evidence: Evidence = {"operation": node.name(), "direction": "forward"}
        if values.inputs:
            evidence |= values.ranges
        elif fed:
            shifted = any(is_shifted(self._graph, below) for below in fed)
            most = max(self._bounds.of[below] for below in fed)
            evidence["computed_input_at_most" if shifted else "input_at_most"] = most
            if shifted:
                evidence["reason"] = "a constant was put into its input, as a mask is: look at that"
        evidence |= _overflow(node)
        return evidence if made is None else {**evidence, "output": _in_words(made)}


def _overflow(node: Node) -> Evidence:
    """The type whose range was left, where nothing but their size can have made this of finite numbers."""
    row, kind = row_of(node), type_of(node)
    return too_large_for(kind) if row is not None and row.overflows and kind is not None else {}


def _first(nodes: list[Node]) -> Node:
    return min(nodes, key=made_as)


def _outputs(graph: Graph, seen: Mapping[Node, Values]) -> dict[Node, Extent]:
    """Ranges of what operations made: as they saved it, or as the next one did."""
    made = {node: values.output for node, values in seen.items() if values.output is not None}
    for values in seen.values():
        for name, made_by in values.fed_by.items():
            if made_by is not None:
                made.setdefault(made_by, values.inputs[name])
    # What is not finite and was only handed on, into no narrower type, was the same before.
    for node in reversed(graph.order):
        below = graph.inputs[node][0][0] if graph.inputs[node] else None
        if below is None or node not in made or made[node].finite or not hands_on(node):
            continue
        if largest_of_type(node) >= largest_of_type(below):
            made.setdefault(below, made[node])
    return made


def _in_words(values: Extent) -> str:
    if math.isnan(values.low):
        return "NaN"
    if -values.low == values.high == math.inf:
        return "Inf or NaN"
    return "Inf" if values.high == math.inf else "-Inf"
