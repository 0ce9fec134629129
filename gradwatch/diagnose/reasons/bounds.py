"""How large what an operation made can be at the most, told from what is known of what went into it.

Constants that are added leave no trace in a graph: they are taken for moderate ones, and ``is_shifted`` tells of
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from gradwatch.diagnose.graph.catalogue import UNKNOWN, Row
from gradwatch.diagnose.graph.parts import shape_of
from gradwatch.diagnose.graph.saved import read_saved
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf, row_of
from gradwatch.diagnose.look.numbers import Extent, largest
from gradwatch.diagnose.look.site import Evidence
from gradwatch.diagnose.look.values import Values

__all__ = ["Bounds", "is_shifted", "largest_of_type", "too_large_for", "type_of"]

# How a loss says what it makes of its elements: nothing, or their sum; else it is their mean.
_AS_THEY_ARE, _SUMMED = 0, 2


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
        added = _added(row, len(inputs))
        return added is not None and inputs[added][0] is None
    puts_in = row.family in ("sum", "joint") and any(producer is None for producer, _ in inputs)
    return row.fills or puts_in


def largest_of_type(node: Node) -> float:
    """The largest finite number of the type that an operation makes."""
    kind = type_of(node)
    return math.inf if kind is None else float(torch.finfo(kind).max)


def too_large_for(kind: torch.dtype) -> Evidence:
    """The evidence that what an operation makes is beyond the range of its type."""
    return {"largest_of_type": torch.finfo(kind).max, "dtype": torch.finfo(kind).dtype}


def type_of(node: Node) -> torch.dtype | None:
    """The type that an operation makes, of several that of the least range; None where it is of whole numbers."""
    types = [made.dtype for made in getattr(node, "_input_metadata", ())]
    return min((kind for kind in types if kind.is_floating_point), key=lambda k: torch.finfo(k).max, default=None)


class Bounds:
    """Upper bounds of the sizes of what operations made, from the parameters up.

    Args:
        graph: of the backward pass.
        seen: what operations saved.
        made: of some operations, the range of what they made.

    Attributes:
        of: by operation, its bound; Inf where there is none, or where it was not finite.
        by_inputs: the same, by what came in alone, whatever came out.
    """

    def __init__(self, graph: Graph, seen: Mapping[Node, Values], made: Mapping[Node, Extent]) -> None:
        self._graph = graph
        self._seen = seen
        self.of: dict[Node, float] = {}
        self.by_inputs: dict[Node, float] = {}
        for node in graph.order:
            size = self.by_inputs[node] = largest(node.variable) if is_leaf(node) else self._by_inputs(node)
            bound = size if size < largest_of_type(node) else math.inf
            self.of[node] = _size(made[node]) if node in made else bound

    def _by_inputs(self, node: Node) -> float:
        row, came = row_of(node) or UNKNOWN, self._came(node)
        known = [size for size in came if size is not None]
        if row.bound == "one":
            return 1.0
        if row.pole is not None and self._is_at_pole(node):
            return math.inf
        if row.family == "contraction":
            return self._of_products(node, row, came)
        if row.bound == "normalised":
            return self._normalised(node, came)
        if not known:
            return math.inf
        if row.bound == "total":
            return sum(known) * math.prod(read_saved(node, "self_sym_sizes") or ())
        if row.bound == "quotient":
            least = self._saved(node)["other"].nearest if "other" in self._saved(node) else 1.0
            return known[0] / least if least else math.inf
        size = {"inputs": max(known), "product": math.prod(known), "sum": sum(known), "square": sum(known) ** 2}
        return size.get(row.bound, math.inf) * self._added_up(node, row)

    def _normalised(self, node: Node, came: Sequence[float | None]) -> float:
        """No element is further from the mean than the root of their number, in standard deviations."""
        size, weight, bias = (*came, None, None)[:3]
        count = self._count(node)
        varies = math.inf if size is None else size * size * count
        # With statistics of its own it normalises nothing; and a variance that overflows is none.
        if read_saved(node, "training") is False or varies >= torch.finfo(torch.float32).max:
            return math.inf
        return math.sqrt(count) * (1.0 if weight is None else weight) + (bias or 0.0)

    def _count(self, node: Node) -> int:
        """How many elements came in, by the largest of its inputs."""
        shapes = (shape_of(made_by, output) for made_by, output in self._graph.inputs[node] if made_by is not None)
        return max(map(math.prod, shapes), default=1)

    def _added_up(self, node: Node, row: Row) -> int:
        """Of how many elements a loss is the sum; a mean of squares is that before it is divided."""
        reduction = read_saved(node, "reduction")
        summed = reduction == _SUMMED or (row.bound == "square" and reduction != _AS_THEY_ARE)
        return self._count(node) if summed else 1

    def _is_at_pole(self, node: Node) -> bool:
        """Whether what it saved shows that what it made has no bound."""
        made = self._seen[node].output if node in self._seen else None
        return made is not None and not made.finite

    def _of_products(self, node: Node, row: Row, came: Sequence[float | None]) -> float:
        """As many products as the factors' common dimension is long, each no larger than that of the largest."""
        added, count = _added(row, len(came)), len(self._graph.inputs[node])
        if any(size is None and index != added for index, size in enumerate(came)):
            return math.inf
        factors = [size for index, size in enumerate(came) if size is not None and index != added]
        weights = (self._graph.weight(node, index) for index in reversed(range(count)) if index != added)
        terms = _terms(next((weight for weight in weights if weight is not None), None))
        return math.prod(factors) * terms + (0.0 if added is None else came[added] or 0.0)

    def _came(self, node: Node) -> list[float | None]:
        """How large what came in was: as it was saved, else at the most; None where it is a constant."""
        below = [made_by for made_by, _ in self._graph.inputs[node]]
        names = (row_of(node) or UNKNOWN).saved
        return [self._size(node, name or "", made_by) for name, made_by in zip_longest(names, below)]

    def _size(self, node: Node, name: str, made_by: Node | None) -> float | None:
        if name in self._saved(node):
            return _size(self._saved(node)[name])
        if made_by is not None:
            return self.of[made_by]
        number = read_saved(node, name) if name else None
        return abs(number) if isinstance(number, (int, float)) else None

    def _saved(self, node: Node) -> Mapping[str, Extent]:
        return self._seen[node].inputs if node in self._seen else {}


def _added(row: Row, count: int) -> int | None:
    """The number of the input that a sum of products is added to."""
    return row.saved.index("") if "" in row.saved and row.saved.index("") < count else None


def _terms(weight: Tensor | None) -> float:
    """How many products are added up: more than that where it cannot be told."""
    if weight is not None and weight.dim() > 1:
        return float(weight.numel() / min(weight.shape))
    # Between two activations, as in attention: no dimension of theirs comes near this.
    return 1e6


def _size(values: Extent) -> float:
    return max(abs(values.low), abs(values.high)) if values.finite else math.inf
