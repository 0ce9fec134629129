"""Which operation a gradient that is not finite must come from, told by the graph alone, after the pass.

What operations saved is freed by then, but which there were is not. Where the loss was finite, no gradient right
below an operation is, and no other one above those gradients can make NaN or Inf of finite numbers, it was that:
unless the loss itself shows that no singular number came in there, or products may overflow in a narrow type.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gradwatch.causes import cause
from gradwatch.diagnose.numbers import arithmetic, largest
from gradwatch.diagnose.saved import read_saved
from gradwatch.diagnose.walk import HANDS_ON, Graph, Node, operation
from gradwatch.records import Cause

__all__ = ["Beginning", "only_singular"]

# Their slope is infinite, or their backward 0/0, at an input where their own value may be finite; or it is hidden
# behind a ``where``.
_SINGULAR = frozenset([
    "Acos", "Acosh", "Asin", "Atan2", "Atanh", "Cdist", "Digamma", "Div", "Erfinv", "Hypot", "LinalgEigh",
    "LinalgQr", "LinalgSvd", "LinalgVectorNorm", "Lgamma", "Log", "Log10", "Log1P", "Log2", "Logit", "Norm",
    "Polygamma", "Pow", "Reciprocal", "Rsqrt", "Sqrt", "Std", "StdMean", "Tan", "Xlogy",
])  # fmt: skip

# These let nothing through to some elements, be it NaN.
_KEEPS_OUT = frozenset([
    "Clamp", "ClampMax", "ClampMin", "Gather", "Index", "IndexSelect", "MaskedFill", "MaskedSelect", "Relu",
    "Select", "Slice", "Threshold", "ThresholdBackward", "Where",
])  # fmt: skip

# Where the slope of these is infinite, they are so themselves; or they are 0 there, and nowhere else.
_THEN_NOT_FINITE = frozenset([
    "Atanh", "Digamma", "Div", "Lgamma", "Log", "Log10", "Log1P", "Log2", "Logit", "Polygamma", "Reciprocal",
    "Rsqrt",
])  # fmt: skip
_THEN_ZERO = frozenset(["Hypot", "Pow", "Sqrt", "Std"])

# A product is not finite if a factor is not, and not 0 if none is; a sum only keeps the former.
_WHOLE = HANDS_ON - {
    "AsStrided", "Chunk", "Narrow", "Select", "Slice", "Split", "SplitWithSizes", "Unbind", "UnsafeSplit",
    "UnsafeSplitWithSizes",
}  # fmt: skip
_KEEPS_ZERO = _WHOLE | {"Div", "Mean", "Mul", "Neg", "Sum"}
_KEEPS_NOT_FINITE = _KEEPS_ZERO | {"Add", "Cat", "Stack", "Sub"}

# Each is looked below; among so many no single one is found anyway.
_MOST_SUSPECTS = 64

# A finite loss above this may come with products that overflow: then they are not ruled out.
_MODERATE = 1e15


class Beginning(NamedTuple):
    """Of the backward passes before a step: where the last one began, and with which losses, finite numbers.

    Attributes:
        root: where the last one began.
        loss: what it began with.
        smallest: smallest absolute value of what any of them began with.
        largest: the largest.
        alike: whether all of them were of one kind.
    """

    root: Node
    loss: float
    smallest: float
    largest: float
    alike: bool


def only_singular(began: Beginning, parameters: Mapping[str, Tensor]) -> Mapping[str, Cause]:
    """By name of a parameter, the cause of its gradient's not being finite; empty where all are finite.

    Args:
        began: how the backward passes before the step did.
        parameters: by name, those to be explained; their gradients are read.
    """
    root, loss, alone = began.root, began.loss, began.alike
    graph = Graph([root])
    with arithmetic():
        leaves = set(graph.leaves.values())
        bad = {node for node in leaves if not math.isfinite(largest(node.variable.grad))}
    suspects = [node for node in graph.order if _may_break(graph, node)]
    if len(suspects) > _MOST_SUSPECTS:
        alone = False
        suspects = suspects[-_MOST_SUSPECTS:]
    met = [node for node in suspects if graph.leaves_below(node) & bad]
    # It must have done it to all that is not finite, and to all that nothing kept it from.
    common = [node for node in met if graph.leaves_below(node, _KEEPS_OUT) <= bad <= graph.leaves_below(node)]
    narrow = any(_is_narrow(node) for node in graph.order)
    possible = [node for node in met if not _is_innocent(graph, node, began.smallest)]
    sure = alone and len(common) == len(met) == len(possible) == 1 and began.largest < _MODERATE and not narrow
    names = {node.name() for node in possible} | ({"an overflow of float16"} if narrow else set())
    found = _verdict(common[0] if sure else None, loss, names)
    return {name: found for name, p in parameters.items() if graph.leaves.get(id(p)) in bad}


def _verdict(sure: Node | None, loss: float, met: Iterable[str]) -> Cause:
    if sure is not None:
        return cause(
            "nonfinite-op",
            sure.name(),
            operation=sure.name(),
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


def _may_break(graph: Graph, node: Node) -> bool:
    if hasattr(node, "_forward_cls"):
        return True  # one of the user's own may do anything, whatever it is called
    # The slope of a slope is infinite where the slope itself may be.
    name = operation(node).partition("Backward")[0]
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
    return name in _SINGULAR


def _is_innocent(graph: Graph, node: Node, loss: float) -> bool:
    """Whether a finite loss shows that what an operation made was finite; one that is not 0, that it was not 0."""
    name = operation(node)
    if name in _THEN_NOT_FINITE and _reaches_the_loss(graph, node, _KEEPS_NOT_FINITE):
        return True
    one_number = math.prod(node._input_metadata[0].shape) == 1
    return name in _THEN_ZERO and loss != 0.0 and one_number and _reaches_the_loss(graph, node, _KEEPS_ZERO)


def _reaches_the_loss(graph: Graph, node: Node, through: Collection[str]) -> bool:
    """Whether there is a way up from an operation on which nothing but some others is met."""
    waiting, seen = [node], {node}
    for at in waiting:
        if at in graph.roots:
            return True
        for consumer, index in graph.consumers[at]:
            name = operation(consumer)
            if consumer not in seen and name in through and not (name == "Div" and index != 0):
                seen.add(consumer)
                waiting.append(consumer)
    return False


def _is_narrow(node: Node) -> bool:
    """Whether gradients pass here in a type that ends at 65504."""
    return any(made.dtype == torch.float16 for made in getattr(node, "_input_metadata", ()))


def _is_kept_off_zero(graph: Graph, node: Node, index: int) -> bool:
    """By a clamp, or as a constant divisor: if that were 0, so would the loss not be finite."""
    producer = graph.producer(node, index)
    if producer is None:
        return operation(node) == "Div"
    low = read_saved(producer, "min") if operation(producer) in ("Clamp", "ClampMin") else None
    return isinstance(low, (int, float)) and low > 0
