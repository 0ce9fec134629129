"""From what one backward pass showed to what it gave to each parameter, and why that is nothing or not finite."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Node
from gradwatch.diagnose.look.numbers import arithmetic, badness, in_words, largest
from gradwatch.diagnose.look.site import Evidence, Finding
from gradwatch.diagnose.passes import Pass
from gradwatch.diagnose.reasons.attenuation import FAINT, Edge, of_most, way_up
from gradwatch.diagnose.reasons.forward import Forward
from gradwatch.records import Cause

__all__ = ["PACKED", "Contribution", "Contributions", "faint", "together"]


PACKED = "a checkpoint, or another packer, keeps from being read what operations saved: any may have made it"

_LITTLE_BY_LITTLE = "it is lost little by little, and no one operation took most of it"
_UNSEEN = "what came into it was finite, and what it made was not seen: it did it, or a NaN came in behind it"
_BETWEEN_LAYERS = (
    "Normalise between the layers, add residual connections, or use activations that are less flat, such as ReLU: "
    "each layer takes a part."
)


class Contribution(NamedTuple):
    """What one backward pass gave to one parameter.

    Attributes:
        size: largest absolute value of the gradient; NaN or Inf where it is not finite.
        cause: why it is zero, not finite or all but gone; None where it is none of these.
    """

    size: float
    cause: Cause | None


def together(contributions: Sequence[Contribution]) -> Cause | None:
    """Of what several backward passes gave: why one is not finite, else why all of them gave nothing."""
    for contribution in contributions:
        if not math.isfinite(contribution.size):
            return contribution.cause
    if any(contribution.size != 0.0 for contribution in contributions):
        return None
    return contributions[0].cause


def faint(contributions: Sequence[Contribution]) -> Cause | None:
    """Why what several backward passes gave is all but nothing: of the one that gave most."""
    most = max(contributions, key=lambda contribution: badness(contribution.size), default=None)
    return most.cause if most is not None and 0.0 < most.size < math.inf else None


class Contributions:
    """Reads what one backward pass showed, when it is over.

    Args:
        of: the pass.
        suspects: ``id`` of parameters that are asked how their gradient became so small, whatever its size.
    """

    def __init__(self, of: Pass, suspects: Container[int] = ()) -> None:
        self._pass = of
        self._suspects = suspects

    def to(self, parameters: Iterable[int]) -> dict[int, Contribution]:
        """By ``id``, what each of the parameters got; those that the pass did not reach are left out."""
        leaves = {key: leaf for key in parameters if (leaf := self._pass.graph.leaves.get(key)) is not None}
        sizes = {key: self._size_at(leaf) for key, leaf in leaves.items()}
        reached = {key: size for key, size in sizes.items() if size is not None}
        asked = {key for key, size in reached.items() if key in self._suspects or not FAINT <= size < math.inf}
        return {
            key: Contribution(size, self._why(leaves[key], size) if key in asked else None)
            for key, size in reached.items()
        }

    def _size_at(self, leaf: Node) -> float | None:
        if leaf in self._pass.arrived:
            return self._pass.arrived[leaf]
        # torch.autograd.grad takes the gradient before it is accumulated.
        return max(self._given(leaf), key=badness, default=None)

    def _given(self, node: Node) -> list[float]:
        """What its consumers handed on to an operation."""
        consumers = (consumer for consumer in self._pass.graph.consumers[node] if consumer.node in self._pass.seen)
        return [self._pass.seen[c.node].left[c.input] for c in consumers if c.input >= 0]

    def _why(self, leaf: Node, size: float) -> Cause | None:
        edges = list(way_up(self._pass.graph, self._pass.seen, leaf, size))
        whole = [edge for edge in edges if edge.decades == math.inf]
        if 0.0 < size < math.inf:
            return self._of_faint(leaf, [edge for edge in edges if edge.decades < math.inf])
        if size != 0.0 and not math.isfinite(self._pass.loss):
            return self._of_loss
        if not whole:
            return cause("unknown", "(backward)", reason="no operation was seen to do it: a hook may have")
        return self._of_zero(whole) if size == 0.0 else self._cause_at(_nearest(whole))

    def _of_faint(self, leaf: Node, lost: Sequence[Edge]) -> Cause:
        most, numbers = of_most(lost, lambda edge: self._found(edge)[1])
        if most is None:
            where = max(lost, key=lambda edge: edge.decades).node if lost else leaf
            lost_slowly = self._pass.place.cause("unknown", where, numbers | {"reason": _LITTLE_BY_LITTLE})
            return replace(lost_slowly, remedy=_BETWEEN_LAYERS)
        node, found = self._found(most)
        return self._pass.place.cause(found.kind, node, {**found.evidence, **numbers})

    def _found(self, edge: Edge) -> tuple[Node, Finding]:
        nothing = Finding("unknown", {"operation": edge.node.name(), "reason": "it could not be read"})
        return self._pass.findings.get((edge.node, edge.input), (edge.node, nothing))

    def _of_zero(self, edges: Sequence[Edge]) -> Cause:
        found = self._cause_at(_nearest(edges))
        kinds = {self._cause_at(other).kind for other in edges} - {found.kind}
        if kinds:
            found = cause(found.kind, found.where, **found.evidence, also=", ".join(sorted(kinds)))
        return found

    def _cause_at(self, edge: Edge) -> Cause:
        if edge.at == "root":
            initial, where = self._pass.initial, self._pass.place.where(edge.node)
            kind = "zero-loss" if initial == 0.0 else "nonfinite-loss"
            return cause(kind, where, largest_initial_gradient=in_words(initial))
        if edge.at == "edge":
            return self._cause_on_edge(edge.node)
        node, found = self._found(edge)
        return self._pass.place.cause(found.kind, node, found.evidence)

    def _cause_on_edge(self, node: Node) -> Cause:
        given, where = self._given(node), self._pass.place.where(node)
        number = sum(value != 0.0 for value in given)
        at = {"operation": node.name(), "largest_given": max(given, default=0.0), "contributions": number}
        if number == 1:
            return cause("masked", where, **at, reason="a hook set it to zero")
        return cause("unknown", where, **at, reason="contributions cancel exactly, or a hook set them to zero")

    @cached_property
    def _of_loss(self) -> Cause:
        """The loss itself is not finite: whatever the backward pass did, the forward pass came first."""
        known = self._weights_gone() or self._made_inside()
        if known is not None:
            return known
        place, forward = self._pass.place, Forward(self._pass.graph, self._pass.values, self._pass.loss)
        culprit, entrance = forward.culprit(), forward.entrance()
        if culprit is not None:
            return place.cause("nonfinite-op", *culprit)
        came_in: Evidence = {"reason": "no operation was seen to make it of finite numbers"}
        if entrance is not None:
            call = place.call(entrance)
            if call is not None and call.was_given_finite:
                return place.cause("nonfinite-op", entrance, call.evidence)
            came_in = place.of_input(entrance) | {
                "reason": "it came in from outside, as data, targets and noise do"
            }
        elif self._pass.packed:
            return cause("unknown", "(forward)", loss=in_words(self._pass.loss), reason=PACKED)
        elif (suspect := forward.suspect()) is not None:
            undecided = {"operation": suspect.name(), "loss": in_words(self._pass.loss), "reason": _UNSEEN}
            return place.cause("unknown", suspect, undecided)
        return cause("nonfinite-loss", "loss", loss=in_words(self._pass.loss), **came_in)

    def _made_inside(self) -> Cause | None:
        """By the first run inside an operation that made what is not finite of what was: it shows how."""
        for _, inner in sorted(self._pass.inner, key=itemgetter(0)):
            if math.isfinite(inner.loss):
                continue
            with arithmetic():
                fed = [largest(leaf.variable) for leaf in inner.graph.leaves.values()]
            return Contributions(inner)._of_loss if all(map(math.isfinite, fed)) else None
        return None

    def _weights_gone(self) -> Cause | None:
        """Parameters that were not finite before the forward pass: all else follows from that."""
        place = self._pass.place
        leaves = {name: leaf.variable for leaf in self._pass.graph.leaves.values() if (name := place.name(leaf))}
        with arithmetic():
            sizes = {name: largest(variable) for name, variable in leaves.items()}
        gone = [name for name, size in sizes.items() if not math.isfinite(size)]
        if not gone:
            return None
        dtype = str(leaves[gone[0]].dtype).removeprefix("torch.")
        evidence: Evidence = {"largest": in_words(sizes[gone[0]]), "dtype": dtype, "parameters": len(gone)}
        return cause("nonfinite-weights", gone[0], **evidence)


def _nearest(edges: Sequence[Edge]) -> Edge:
    """Nearest to the parameter; of several as near, one where an operation did it."""
    return min(edges, key=lambda edge: (edge.distance, edge.at != "operation"))
