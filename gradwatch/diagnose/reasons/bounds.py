"""How large what an operation made can be at the most, told from what is known of what went into it.

Constants that are added leave no trace in a graph: they are taken for moderate ones, and ``is_shifted`` tells of
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from gradwatch.diagnose.graph.catalogue import Row
from gradwatch.diagnose.graph.saved import read_saved
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf, row_of
from gradwatch.diagnose.look.numbers import Extent, largest

__all__ = ["Bounds", "is_shifted", "largest_of_type"]


def is_shifted(graph: Graph, node: Node) -> bool:
    """Whether a constant was put into what an operation made: an offset, or a mask."""
    while (row := row_of(node)) is not None and (row.family == "view" or row.bound in ("product", "quotient")):
        below = [producer for producer, _ in graph.inputs[node] if producer is not None]
        if len(below) != 1:
            return False
        node = below[0]
    inputs = graph.inputs[node]
    if row is None:
        return False
    if row.family == "contraction":
        added = _added(row.saved, len(inputs))
        return added is not None and inputs[added][0] is None
    puts_in = row.family in ("sum", "joint") and any(producer is None for producer, _ in inputs)
    return row.fills or puts_in


def largest_of_type(node: Node) -> float:
    """The largest finite number of the type that an operation makes."""
    types = [made.dtype for made in getattr(node, "_input_metadata", ())]
    return min((torch.finfo(kind).max for kind in types if kind.is_floating_point), default=math.inf)


class Bounds:
    """Upper bounds of the sizes of what operations made.

    Args:
        graph: of the backward pass.
        inputs: of each operation that was read, the ranges of what it saved of its inputs.
        made: of some operations, the range of what they made.
    """

    # So many operations are looked through, and no more.
    _DEPTH = 8

    def __init__(
        self, graph: Graph, inputs: Mapping[Node, Mapping[str, Extent]], made: Mapping[Node, Extent]
    ) -> None:
        self._graph = graph
        self._inputs = inputs
        self._made = made

    def of(self, node: Node, depth: int = _DEPTH) -> float:
        """A bound of what an operation made; Inf where there is none to be had."""
        if node in self._made:
            return _size(self._made[node])
        size = largest(node.variable) if is_leaf(node) else self.of_inputs(node, depth)
        return size if size < largest_of_type(node) else math.inf

    def of_inputs(self, node: Node, depth: int = _DEPTH) -> float:
        """The same, by what came in alone, whatever came out."""
        row = row_of(node)
        if row is None or depth == 0:
            return math.inf
        if row.bound == "one":
            return 1.0
        if row.family == "contraction":
            return self._of_products(node, row.saved, depth - 1)
        sizes = [self.of(below, depth - 1) for below, _ in self._graph.inputs[node] if below is not None]
        if row.bound == "inputs":
            return max(sizes, default=math.inf)
        return self._scaled(node, row, sizes)

    def _scaled(self, node: Node, row: Row, sizes: Sequence[float]) -> float:
        """What is multiplied, divided or added up, perhaps over many elements."""
        saved = self._saved(node)
        number = read_saved(node, "other")
        if row.bound == "product":
            by_number = abs(number) if isinstance(number, (int, float)) else 1.0
            return math.prod(sizes) * math.prod(max(_size(values), 1.0) for values in saved.values()) * by_number
        if row.bound == "quotient" and len(sizes) == 1:
            # A divisor that was not saved is a plain number.
            return sizes[0] / (saved["other"].nearest or math.ulp(0.0) if "other" in saved else 1.0)
        if row.bound == "total":
            return sum(sizes) * math.prod(read_saved(node, "self_sym_sizes") or ())
        if row.bound == "picks":
            summed = read_saved(node, "reduction") == 2
            return math.inf if summed else max(map(_size, saved.values()), default=math.inf)
        return sum(sizes) if row.bound == "sum" else math.inf

    def _of_products(self, node: Node, names: tuple[str, ...], depth: int) -> float:
        """As many products as the factors' common dimension is long, each no larger than that of the largest."""
        count = len(self._graph.inputs[node])
        factors = [index for index, name in enumerate(names) if name and index < count]
        sizes = [_size(values) for values in self._saved(node).values()]
        weights = (self._graph.weight(node, index) for index in reversed(factors))
        weight = next((weight for weight in weights if weight is not None), None)
        if len(sizes) == 1 and weight is not None:
            # The other factor was not saved, since what comes in needs no gradient.
            sizes.append(largest(weight))
        if len(sizes) != 2:
            return math.inf
        added = _added(names, count)
        plus = None if added is None else self._graph.inputs[node][added][0]
        return math.prod(sizes) * _terms(weight) + (0.0 if plus is None else self.of(plus, depth))

    def _saved(self, node: Node) -> Mapping[str, Extent]:
        return self._inputs.get(node, {})


def _added(names: tuple[str, ...], count: int) -> int | None:
    """The number of the input that a sum of products is added to."""
    return names.index("") if "" in names and names.index("") < count else None


def _terms(weight: object) -> float:
    """How many products are added up: more than that where it cannot be told."""
    shape = getattr(weight, "shape", None)
    if shape is not None and len(shape) > 1:
        return float(math.prod(shape) / min(shape))
    # Between two activations, as in attention: no dimension of theirs comes near this.
    return 1e6


def _size(values: Extent) -> float:
    return max(abs(values.low), abs(values.high)) if values.finite else math.inf
