"""Which operation a gradient that is not finite must come from, told by the graph alone, after the pass.

What operations saved is freed by then, but which there were is not. Where the loss was finite, and of all
operations above every gradient that is not, one alone can make NaN or Inf of finite numbers, it was that one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from gradwatch.causes import cause
from gradwatch.diagnose.numbers import arithmetic, largest
from gradwatch.diagnose.saved import read_saved
from gradwatch.diagnose.walk import Graph, Node, operation
from gradwatch.records import Cause

__all__ = ["only_singular"]

# Their slope is infinite, or their backward 0/0, at an input where their own value may be finite; or it is hidden
# behind a ``where``.
_SINGULAR = frozenset([
    "Acos", "Acosh", "Asin", "Atan2", "Atanh", "Cdist", "Digamma", "Div", "Erfinv", "Hypot", "LinalgEigh",
    "LinalgQr", "LinalgSvd", "LinalgVectorNorm", "Lgamma", "Log", "Log10", "Log1P", "Log2", "Logit", "Norm",
    "Polygamma", "Pow", "Reciprocal", "Rsqrt", "Sqrt", "Std", "StdMean", "Tan", "Xlogy",
])  # fmt: skip

# A finite loss above this may come with products that overflow: then they are not ruled out.
_MODERATE = 1e15


def only_singular(root: Node, loss: float, parameters: Mapping[str, Tensor]) -> Mapping[str, Cause]:
    """By name of a parameter, the cause of its gradient's not being finite; empty where all are finite.

    Args:
        root: where the backward pass began.
        loss: what it began with, a finite number.
        parameters: by name, those to be explained; their gradients are read.
    """
    graph = Graph([root])
    with arithmetic():
        bad = [name for name, p in parameters.items() if id(p) in graph.leaves and _not_finite(p)]
    if not bad:
        return {}
    above = [_singular_above(graph, graph.leaves[id(parameters[name])]) for name in bad]
    common = [node for node in above[0] if all(node in others for others in above[1:])]
    found = _verdict(common, loss, Counter(node.name() for nodes in above for node in nodes))
    return dict.fromkeys(bad, found)


def _verdict(common: Sequence[Node], loss: float, met: Iterable[str]) -> Cause:
    if len(common) == 1 and abs(loss) < _MODERATE:
        return cause(
            "nonfinite-op",
            common[0].name(),
            operation=common[0].name(),
            direction="backward",
            loss=loss,
            reason="by elimination: nothing else in this backward pass makes NaN or Inf of moderate numbers",
        )
    return cause(
        "unknown",
        "(backward)",
        loss=loss,
        ruled_out="nonfinite-loss",
        suspects=", ".join(sorted(met)) or "an overflow, or a hook",
        reason="what operations saved was freed before the gradient was seen: guard='skip' keeps the weights "
        "finite, so that the operation is found when it happens again",
    )


def _singular_above(graph: Graph, leaf: Node) -> list[Node]:
    return [node for node in graph.above(leaf) if _may_break(graph, node)]


def _may_break(graph: Graph, node: Node) -> bool:
    name = operation(node)
    if name in ("LinalgVectorNorm", "Norm"):
        order = read_saved(node, "ord" if name == "LinalgVectorNorm" else "p")
        # torch itself takes the slope to be 0 where the norm is, for these.
        return order not in (1, 2, math.inf)
    if name == "Pow":
        exponent = read_saved(node, "exponent")
        return not isinstance(exponent, (int, float)) or exponent < 1
    if name == "Div":
        return not _is_kept_off_zero(graph, node, 1)
    if name in ("Log", "Reciprocal", "Rsqrt", "Sqrt"):
        return not _is_kept_off_zero(graph, node, 0)
    # One of the user's own may do anything.
    return name in _SINGULAR or hasattr(node, "_forward_cls")


def _is_kept_off_zero(graph: Graph, node: Node, index: int) -> bool:
    """By a clamp, or as a constant divisor: if that were 0, so would the loss not be finite."""
    producer = graph.producer(node, index)
    if producer is None:
        return operation(node) == "Div"
    low = read_saved(producer, "min") if operation(producer) in ("Clamp", "ClampMin") else None
    return isinstance(low, (int, float)) and low > 0


def _not_finite(parameter: Tensor) -> bool:
    return not math.isfinite(largest(parameter.grad))
