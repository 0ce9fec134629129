"""A gradient that is all but gone: which operation on its way took nearly all of it, and by what small number.

Where a gradient is exactly 0 one operation made it so. Where it is merely small, each may have taken its part: one
is blamed only if it took most of what was lost, counted in decades, as losses are factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from gradwatch.diagnose.factors import kind_of_factor
from gradwatch.diagnose.frontier import Sighting
from gradwatch.diagnose.nonfinite import input_range
from gradwatch.diagnose.numbers import largest
from gradwatch.diagnose.place import LOSS_FUNCTIONS
from gradwatch.diagnose.saved import signed
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.walk import HANDS_ON, NO_INPUT, Graph, Node, operation

__all__ = ["FAINT", "LEFT", "Loss", "losses_on_the_way", "of_most", "read_faint", "spread"]

# A gradient smaller than this is asked how it became so; an operation that leaves less than this share is read.
FAINT, LEFT = 1e-6, 1e-2

# To be blamed alone an operation must have taken this share of all decades lost, and so many of them.
_SHARE, _DECADES = 0.75, 4.0

_BY_ITS_SLOPE = {
    "Tanh": "saturated-tanh",
    **dict.fromkeys(("Glu", "LogSigmoid", "LogSoftmax", "Sigmoid", "Silu", "Softmax"), "saturated-sigmoid"),
    **dict.fromkeys(("Celu", "Elu", "Gelu", "LeakyRelu", "Mish", "Softplus"), "dead-relu"),
}
_SAVED_AS = {
    "Mul": ("self", "other"),
    "Mm": ("self", "mat2"),
    "Bmm": ("self", "mat2"),
    "Convolution": ("input", "weight"),
}
_FIRST = {"Addmm": 1, "Baddbmm": 1}
_SAVED_AS |= {"Addmm": ("mat1", "mat2"), "Baddbmm": ("batch1", "batch2")}

# These hand on a part of what came in: the largest of all may belong to another part.
_JOINS = HANDS_ON | {"Cat", "CopySlices", "Embedding", "Index", "IndexSelect", "Stack"}
_ONE_OF_SEVERAL = "of several parts that were joined this one had lost it further on, behind the largest of them"

# A softmax hands on differences between its candidates' gradients, whatever its slope.
_SOFTMAX = ("LogSoftmax", "Softmax")
_ALIKE = "what came in is nearly the same for all candidates, or the softmax cannot be read"

# Each of n elements gets 1/n of what came in: what is lost to each is added up again further down.
_SPREADS = LOSS_FUNCTIONS | {
    "Mean",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "AdaptiveAvgPool2D",
    "AdaptiveAvgPool3D",
}


class Loss(NamedTuple):
    """What one operation took of a gradient: decades, at one of its inputs."""

    node: Node
    input: int
    decades: float


def read_faint(site: Site) -> Finding:
    """What made an operation hand on so little: a flat slope, or a small factor."""
    name = operation(site.node)
    arrives, left = largest(site.gradient), largest(site.outgoing)
    numbers: dict[str, float | int | str] = {
        "operation": site.node.name(),
        "input": site.index,
        "largest_incoming": arrives,
        "largest_outgoing": left,
    }
    if name in _SOFTMAX and _is_steep(site):
        return Finding("unknown", {**numbers, "reason": _ALIKE, "ruled_out": "saturated-sigmoid"})
    if name in _BY_ITS_SLOPE:
        return Finding(_BY_ITS_SLOPE[name], {**numbers, "largest_slope": left / arrives, **input_range(site.node)})
    factor, other = _other_factor(site)
    if factor is not None and 0.0 < largest(factor) < LEFT:
        kind, extra = kind_of_factor(site, other, factor, elementwise=name == "Mul")
        return Finding(kind, {**numbers, "largest_factor": largest(factor), "elements": factor.numel(), **extra})
    if name in LOSS_FUNCTIONS:
        return Finding("zero-loss", {**numbers, **input_range(site.node)})
    reason = _ONE_OF_SEVERAL if name in _JOINS else "what was saved does not decide"
    return Finding("unknown", {**numbers, "reason": reason})


def _is_steep(site: Site) -> bool:
    """Whether a softmax is far from one-hot, or cannot be read: its slope is not known to be flat then."""
    result, dim = site.tensor("result"), site.saved("dim")
    if result is None or dim is None:
        return True
    shares = result.double().exp() if operation(site.node) == "LogSoftmax" else result.double()
    live = (site.gradient != 0).any(dim=signed(dim), keepdim=True)
    return largest(shares * (1 - shares) * live) >= LEFT


def _other_factor(site: Site) -> tuple[Tensor | None, int | None]:
    name = operation(site.node)
    if name == "Div" and site.index == 0:
        divisor = site.tensor("other")
        return (None, None) if divisor is None else (divisor.double().reciprocal(), 1)
    first = _FIRST.get(name, 0)
    if name not in _SAVED_AS or site.index not in (first, first + 1):
        return None, None
    other = 2 * first + 1 - site.index
    factor = site.tensor(_SAVED_AS[name][other - first])
    weight = site.graph.weight(site.node, other) if factor is None else None
    return (factor if weight is None else weight.detach()), other


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
        ways = [
            c for c in graph.consumers.get(at, ()) if c.input != NO_INPUT and c.node in seen and c.node not in met
        ]
        if not ways:
            return losses
        node, index = max(ways, key=lambda way: seen[way.node].outgoing[way.input])
        came, went = max(seen[node].incoming, default=0.0), seen[node].outgoing[index] * sizes.get(node, 1.0)
        if 0.0 < went < came:
            losses.append(Loss(node, index, math.log10(came / went)))
        met.add(node)
        at = node


def of_most(losses: list[Loss]) -> tuple[Loss | None, dict[str, float | int | str]]:
    """The one that took nearly everything, None where none did; and the numbers that say so."""
    total = sum(loss.decades for loss in losses)
    most = max(losses, key=lambda loss: loss.decades, default=None)
    if most is None:
        return None, {"decades_lost": 0.0}
    numbers: dict[str, float | int | str] = {"decades_lost": total, "operations_that_lose": len(losses)}
    alone = most.decades >= max(_DECADES, _SHARE * total)
    numbers["decades_lost_here" if alone else "most_lost_by_one"] = most.decades
    if not alone:
        numbers["which"] = most.node.name()
    return (most if alone else None), numbers


def spread(node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None]) -> float:
    """Over how many elements an operation spreads each that came in; 1 for one that does not."""
    if operation(node) not in _SPREADS:
        return 1.0
    came, went = (sum(g.numel() for g in gradients if g is not None) for gradients in (incoming, outgoing))
    return max(1.0, went / max(1, came))
