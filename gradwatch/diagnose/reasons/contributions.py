"""From the notes on a backward pass to what it gave to each parameter, and why that is nothing or not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Node, row_of
from gradwatch.diagnose.look.calls import Call
from gradwatch.diagnose.look.notes import Notes
from gradwatch.diagnose.look.numbers import arithmetic, badness, in_words, largest
from gradwatch.diagnose.look.place import OWN_PARAMETERS
from gradwatch.diagnose.look.site import Finding
from gradwatch.diagnose.look.values import Values
from gradwatch.diagnose.reasons.attenuation import FAINT, Edge, of_most, way_up
from gradwatch.diagnose.reasons.nonfinite import Forward, in_forward
from gradwatch.records import Cause

__all__ = ["WEIGHTS_GONE", "Contribution", "Contributions"]

# A module made NaN or Inf of finite inputs since it holds some itself.
WEIGHTS_GONE = "a parameter or buffer was not finite already"


class Contribution(NamedTuple):
    """What one backward pass gave to one parameter.

    Attributes:
        size: largest absolute value of the gradient; NaN or Inf where it is not finite.
        cause: why it is zero, not finite or all but gone; None where it is none of these.
    """

    size: float
    cause: Cause | None


class Contributions:
    """Reads the notes on one backward pass.

    Args:
        notes: complete.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def to(self, parameters: Iterable[int]) -> dict[int, Contribution]:
        """By ``id``, what each of the parameters got; those that the pass did not reach are left out."""
        found = {}
        for parameter in parameters:
            leaf = self._notes.graph.leaves.get(parameter)
            size = None if leaf is None else self._size_at(leaf)
            if leaf is not None and size is not None:
                found[parameter] = Contribution(size, self._why(leaf, size))
        return found

    def _size_at(self, leaf: Node) -> float | None:
        if leaf in self._notes.arrived:
            return self._notes.arrived[leaf]
        # torch.autograd.grad takes the gradient before it is accumulated.
        given = [
            self._notes.seen[consumer.node].outgoing[consumer.input]
            for consumer in self._notes.graph.consumers[leaf]
            if consumer.node in self._notes.seen
        ]
        return max(given, key=badness) if given else None

    def _why(self, leaf: Node, size: float) -> Cause | None:
        if FAINT <= size < math.inf:
            return None
        notes = self._notes
        edges = list(way_up(notes.graph, notes.seen, notes.spread, leaf, size))
        whole = [edge for edge in edges if edge.decades == math.inf]
        if size == 0.0:
            return self._of_zero(whole)
        if not math.isfinite(size):
            return self._of_not_finite(whole)
        return self._of_faint(leaf, [edge for edge in edges if edge.decades < math.inf])

    def _of_faint(self, leaf: Node, lost: Sequence[Edge]) -> Cause:
        most, numbers = of_most(lost, self._found)
        found = None if most is None else self._found(most)
        if most is None or found is None:
            where = max(lost, key=lambda edge: edge.decades).node if lost else leaf
            spread_out = {
                **numbers,
                "reason": "it is lost little by little",
                "ruled_out": "one operation that took most",
            }
            return self._cause("unknown", where, spread_out)
        return self._cause(found.kind, most.node, {**found.evidence, **numbers})

    def _found(self, edge: Edge) -> Finding | None:
        return self._notes.findings.get((edge.node, edge.input))

    def _of_zero(self, edges: Sequence[Edge]) -> Cause:
        if not edges:
            return cause("unknown", "(backward)", reason="no operation was seen to turn it zero")
        found = self._cause_at(_nearest(edges))
        kinds = {self._cause_at(other).kind for other in edges} - {found.kind}
        if kinds:
            found = cause(found.kind, found.where, **found.evidence, also=", ".join(sorted(kinds)))
        return found

    def _cause_at(self, edge: Edge) -> Cause:
        where = self._notes.place.where(edge.node)
        if edge.at == "root":
            return cause("zero-loss", where, largest_initial_gradient=in_words(self._notes.initial))
        if edge.at == "edge":
            return self._cause_on_edge(edge, where)
        return self._cause_found(edge)

    def _cause_found(self, edge: Edge) -> Cause:
        key = (edge.node, edge.input)
        if key in self._notes.in_part:
            node, finding = self._notes.in_part[key]
            return self._cause(finding.kind, node, finding.evidence)
        found = self._found(edge)
        if found is None:
            nothing = {"operation": edge.node.name(), "reason": "it could not be read"}
            return self._cause("unknown", edge.node, nothing)
        return self._cause(found.kind, edge.node, found.evidence)

    def _cause(self, kind: str, node: Node, evidence: Mapping[str, float | int | str]) -> Cause:
        """A cause at an operation; where no module tells its place, what feeds it does."""
        place = self._notes.place
        where, behind = place.where(node), place.behind(node)
        if behind is not None and where in (node.name(), OWN_PARAMETERS):
            evidence = {**evidence, "behind": behind}
        row = row_of(node)
        fitting = None if row is None else {"nonfinite-op": row.remedy, "constant": row.constant}.get(kind)
        return cause(kind, where, fitting, **evidence)

    def _cause_on_edge(self, edge: Edge, where: str) -> Cause:
        consumers = [c for c in self._notes.graph.consumers[edge.node] if c.node in self._notes.seen]
        given = [self._notes.seen[c.node].outgoing[c.input] for c in consumers if c.input >= 0]
        number = sum(value != 0.0 for value in given)
        at = {"operation": edge.node.name(), "largest_given": max(given, default=0.0), "contributions": number}
        if number == 1:
            return cause("masked", where, **at, reason="a hook set it to zero")
        return cause("unknown", where, **at, reason="contributions cancel exactly, or a hook set them to zero")

    def _of_not_finite(self, edges: Sequence[Edge]) -> Cause:
        if not math.isfinite(self._notes.loss):
            return self._of_loss
        if not edges:
            return cause("unknown", "(backward)", reason="no operation was seen to make it: a hook may have")
        edge = _nearest(edges)
        where = self._notes.place.where(edge.node)
        if edge.at == "root":
            return cause(
                "nonfinite-loss",
                where,
                loss=in_words(self._notes.loss),
                largest_initial_gradient=in_words(self._notes.initial),
            )
        return self._cause_found(edge)

    @cached_property
    def _of_loss(self) -> Cause:
        """The loss itself is not finite: whatever the backward pass did, the forward pass came first."""
        gone = self._weights_gone()
        if gone is not None:
            return gone
        calls = self._notes.calls
        forward = Forward(self._notes.graph, self._notes.values, calls, self._notes.loss)
        values = forward.first_operation()
        if values is not None:
            return self._cause("nonfinite-op", values.node, in_forward(values).evidence)
        call = forward.first_call(calls)
        if call is not None:
            low = min((values.low for values in call.inputs), default=0.0)
            high = max((values.high for values in call.inputs), default=0.0)
            name = f"{type(call.module).__name__}.forward"
            return cause(
                "nonfinite-op", call.path, operation=name, direction="forward", input_min=low, input_max=high
            )
        state = _state_of_calls(calls) if calls else self._state_of_data(forward.entrance())
        return cause("nonfinite-loss", "loss", loss=in_words(self._notes.loss), **state)

    def _weights_gone(self) -> Cause | None:
        """Parameters that were not finite before the forward pass: all else follows from that."""
        leaves = self._notes.graph.leaves.values()
        with arithmetic():
            sizes = {
                name: (leaf, largest(leaf.variable)) for leaf in leaves if (name := self._notes.place.name(leaf))
            }
        gone = {name: leaf for name, (leaf, size) in sizes.items() if not math.isfinite(size)}
        if not gone:
            return None
        first = next(iter(gone))
        dtype = str(gone[first].variable.dtype).removeprefix("torch.")
        return cause(
            "nonfinite-weights", first, largest=in_words(sizes[first][1]), dtype=dtype, parameters=len(gone)
        )

    def _state_of_data(self, entrance: Values | None) -> dict[str, float | int | str]:
        """What is known where no calls of modules were noted."""
        if entrance is None:
            return {"reason": "no operation was seen to make it of finite numbers"}
        behind = self._notes.place.behind(entrance.node)
        at = {"first_nonfinite_input_of": entrance.name} | ({} if behind is None else {"beside": behind})
        return {**at, "reason": "it was not finite before it came in"}


def _nearest(edges: Sequence[Edge]) -> Edge:
    """Nearest to the parameter; of several as near, one where an operation did it."""
    return min(edges, key=lambda edge: (edge.distance, edge.at != "operation"))


def _state_of_calls(calls: Sequence[Call]) -> dict[str, float | int | str]:
    for call in calls:
        if not all(values.finite or values.mask for values in call.inputs):
            return {"first_nonfinite_input_of": call.path, "reason": "it was not finite before it came in"}
        if not all(values.finite for values in call.outputs):
            return {
                "first_nonfinite_output_of": call.path,
                "reason": WEIGHTS_GONE,
            }
    return {"reason": "every module's output was finite", "calls": len(calls)}
