"""How large what an operation made can be at the most, told from what is known of what went into it.

Constants that are added leave no trace in a graph: they are taken for moderate ones, and ``is_shifted`` tells of
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gradwatch.diagnose.numbers import Extent, largest
from gradwatch.diagnose.saved import read_saved
from gradwatch.diagnose.walk import HANDS_ON, Graph, Node, is_leaf, operation

__all__ = ["Bounds", "cannot_break", "is_shifted"]

_SUMS = frozenset(["Add", "Cat", "Stack", "Sub", "Where"])
_NO_LARGER = HANDS_ON | {
    "Abs", "AdaptiveAvgPool2D", "Amax", "Amin", "AvgPool2D", "Clamp", "ClampMax", "ClampMin", "Embedding",
    "Gather", "Gelu", "Index", "IndexSelect", "LeakyRelu", "MaskedFill", "MaskedSelect", "Max",
    "MaxPool2DWithIndices", "Mean", "Min", "Neg", "Relu", "Silu",
}  # fmt: skip
# A softmax is no such one: of a row of -Inf, which a mask makes, it makes NaN.
_FLAT = frozenset(["Cos", "Sigmoid", "Sin", "Tanh"])
_WITHIN_ONE = _FLAT | {"Softmax"}
_EXPONENTIAL = frozenset(["Exp", "Exp2", "Expm1"])

# Sums of products, and which of their inputs are the two factors.
_FACTORS = {"Mm": (0, 1), "Bmm": (0, 1), "Convolution": (0, 1), "Addmm": (1, 2), "Baddbmm": (1, 2)}
_ADDED = {"Addmm": 0, "Baddbmm": 0, "Convolution": 2}


def cannot_break(node: Node, made: Extent) -> bool:
    """Whether an operation cannot have made this of finite numbers of moderate size."""
    name = operation(node)
    # An exponential overflows to Inf: a NaN must have come in.
    return name in _NO_LARGER | _SUMS | _FLAT or (name in _EXPONENTIAL and math.isnan(made.low))


def is_shifted(graph: Graph, node: Node) -> bool:
    """Whether a constant was put into what an operation made: an offset, or a mask."""
    while operation(node) in HANDS_ON | {"Mul", "Div"}:
        below = [producer for producer, _ in graph.inputs[node] if producer is not None]
        if len(below) != 1:
            return False
        node = below[0]
    name, inputs = operation(node), graph.inputs[node]
    if name in _ADDED:
        return inputs[_ADDED[name]][0] is None
    return name == "MaskedFill" or (name in _SUMS and any(producer is None for producer, _ in inputs))


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
        return largest(node.variable) if is_leaf(node) else self.of_inputs(node, depth)

    def of_inputs(self, node: Node, depth: int = _DEPTH) -> float:
        """The same, by what came in alone, whatever came out."""
        name = operation(node)
        if name in _WITHIN_ONE:
            return 1.0
        if depth == 0:
            return math.inf
        if name in _FACTORS:
            return self._of_products(node, depth - 1)
        sizes = [self.of(below, depth - 1) for below, _ in self._graph.inputs[node] if below is not None]
        if name in _NO_LARGER:
            return max(sizes, default=math.inf)
        return sum(sizes) if name in _SUMS else self._scaled(node, sizes)

    def _scaled(self, node: Node, sizes: Sequence[float]) -> float:
        """What is multiplied, divided or added up over many elements."""
        name, saved = operation(node), self._saved(node)
        if name == "Mul":
            return math.prod(sizes) * math.prod(max(_size(values), 1.0) for values in saved.values())
        if name == "Sum":
            return sum(sizes) * math.prod(read_saved(node, "self_sym_sizes") or ())
        if name == "Div" and len(sizes) == 1:
            # A divisor that was not saved is a plain number.
            return sizes[0] / (saved["other"].nearest or math.ulp(0.0) if "other" in saved else 1.0)
        if name in ("NllLoss", "NllLoss2D"):
            return max(map(_size, saved.values()), default=math.inf) * (
                read_saved(node, "reduction") == 1 or math.inf
            )
        return math.inf

    def _of_products(self, node: Node, depth: int) -> float:
        """As many products as the factors' common dimension is long, each no larger than that of the largest."""
        sizes = [_size(values) for values in self._saved(node).values()]
        weights = (self._graph.weight(node, index) for index in reversed(_FACTORS[operation(node)]))
        weight = next((weight for weight in weights if weight is not None), None)
        if len(sizes) == 1 and weight is not None:
            # The other factor was not saved, since what comes in needs no gradient.
            sizes.append(largest(weight))
        if len(sizes) != 2:
            return math.inf
        added = _ADDED.get(operation(node), -1)
        plus = self._graph.inputs[node][added][0] if 0 <= added < len(self._graph.inputs[node]) else None
        return math.prod(sizes) * _terms(node, weight) + (0.0 if plus is None else self.of(plus, depth))

    def _saved(self, node: Node) -> Mapping[str, Extent]:
        return self._inputs.get(node, {})


def _terms(node: Node, weight: object) -> float:
    """How many products are added up: more than that where it cannot be told."""
    shape = getattr(weight, "shape", None)
    if shape is not None and len(shape) > 1:
        return float(math.prod(shape) / min(shape))
    # Between two activations, as in attention: no dimension of theirs comes near this.
    return 1e6 if operation(node) in ("Bmm", "Baddbmm", "Mm") else math.inf


def _size(values: Extent) -> float:
    return max(abs(values.low), abs(values.high)) if values.finite else math.inf
