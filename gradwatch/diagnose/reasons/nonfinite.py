"""Which operation made NaN or Inf out of finite numbers: first in the forward pass, else in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gradwatch.diagnose.graph.walk import Graph, Node, hands_on, is_leaf, row_of
from gradwatch.diagnose.look.calls import Call
from gradwatch.diagnose.look.numbers import Extent, extent
from gradwatch.diagnose.look.site import Evidence, Finding
from gradwatch.diagnose.look.values import Values, input_range
from gradwatch.diagnose.reasons.bounds import Bounds, is_shifted, largest_of_type

__all__ = ["CAME_IN", "Forward", "in_backward", "in_forward"]

CAME_IN = "what came into it was not finite, and only the loss was kept from it: leave it out before it comes here"


class Forward:
    """What is known of the forward pass behind a loss that is not finite.

    Args:
        graph: of the backward pass.
        seen: what the operations saved.
        calls: of the modules.
        loss: the largest absolute value of what the pass started from.
    """

    def __init__(self, graph: Graph, seen: Mapping[Node, Values], calls: Sequence[Call], loss: float) -> None:
        self._graph = graph
        self._seen = seen
        self._made = _outputs(graph, seen, calls)
        if len(graph.roots) == 1:
            self._made.setdefault(graph.roots[0], Extent(loss, loss, loss))
        self._suspects = self._not_known_finite()
        self._bounds = Bounds(graph, {node: values.inputs for node, values in seen.items()}, self._made)

    def first_operation(self) -> Values | None:
        """The first operation known to have made something not finite of inputs that were all finite.

        None where it cannot be proved: an input's range is not known, or was not finite.
        """
        broken = [node for node in self._suspects if node in self._seen and not self._finite(node)]
        if not broken:
            return None
        first = min(broken, key=lambda node: self._seen[node].number)
        values = self._seen[first]._replace(output=self._made[first])
        fed = [below for below, _ in self._graph.inputs[first] if below is not None]
        shifted = any(is_shifted(self._graph, below) for below in fed)
        can_overflow = self._bounds.of_inputs(first) >= largest_of_type(first)
        if not self._fed_finite(first, values) or self._cannot_break(first, can_overflow):
            return self._overflow_below(first)
        if not shifted and not can_overflow:
            return None  # numbers of these sizes do not overflow there: something else wrote to what it made
        if values.inputs or not fed:
            return values
        return values._replace(at_most=max(map(self._bounds.of, fed)), shifted=shifted)

    def _overflow_below(self, broken: Node) -> Values | None:
        """The only operation that can have overflowed, of those below a broken one whose numbers nothing tells."""
        waiting, unseen = [broken], [broken]
        while waiting:
            for below, _ in self._graph.inputs[waiting.pop()]:
                if below is not None and below not in self._made and below not in unseen and not is_leaf(below):
                    unseen.append(below)
                    waiting.append(below)
        can = [node for node in unseen[1:] if self._bounds.of(node) == math.inf]
        first = min(can, key=lambda node: node._sequence_nr(), default=None)
        if first is None or first not in self._seen or not self._only_overflows(first):
            return None
        fed = [below for below, _ in self._graph.inputs[first] if below is not None]
        return self._seen[first]._replace(at_most=max(map(self._bounds.of, fed), default=math.inf))

    def _only_overflows(self, node: Node) -> bool:
        """Whether what comes into an operation is known to fit its type, and what it makes may not."""
        values = self._seen[node]
        return self._fed_finite(node, values) and math.inf > self._bounds.of_inputs(node) >= largest_of_type(node)

    def entrance(self) -> Values | None:
        """The first operation that NaN or Inf came into from outside the graph, as from the data."""
        entered = (values for values in self._seen.values() if self._enters(values))
        return min(entered, key=lambda values: values.number, default=None)

    def _enters(self, values: Values) -> bool:
        return any(made_by is None and not values.inputs[name].finite for name, made_by in values.fed_by.items())

    def first_call(self, calls: Sequence[Call]) -> Call | None:
        """The first call of a module, innermost, that made something not finite of finite inputs and weights."""
        for call in calls:  # in the order in which they were left: inner ones come before outer ones
            leads_on = not call.made or any(node in self._suspects for node in call.made)
            if leads_on and not all(values.finite for values in call.outputs):
                sound = all(values.finite or values.mask for values in call.inputs) and _finite_parameters(call)
                return call if sound else None
        return None

    def _cannot_break(self, node: Node, can_overflow: bool) -> bool:
        """Whether an operation cannot have made this of finite numbers of moderate size."""
        row = row_of(node)
        if row is None:
            return False
        narrows = hands_on(node) and can_overflow
        # An exponential overflows to Inf: a NaN must have come in.
        came_in_as_nan = row.breaks == "inf" and math.isnan(self._made[node].low)
        return came_in_as_nan or (row.breaks == "nothing" and not narrows)

    def _not_known_finite(self) -> set[Node]:
        """What the loss can have its NaN or Inf from: below it, through nothing that is known to be finite."""
        waiting = list(self._graph.roots)
        suspects = set(waiting)
        while waiting:
            for below, _ in self._graph.inputs.get(waiting.pop(), ()):
                if below is not None and below not in suspects and not self._finite(below, unknown=False):
                    suspects.add(below)
                    waiting.append(below)
        return suspects

    def _finite(self, node: Node, unknown: bool = True) -> bool:
        values = self._made.get(node)
        return unknown if values is None else values.finite

    def _fed_finite(self, node: Node, values: Values) -> bool:
        """Whether all that came in was finite: it was saved, or its size has a bound."""
        if not all(entering.finite for entering in values.inputs.values()):
            return False
        read = {producer for producer in values.fed_by.values() if producer is not None}
        others = (below for below, _ in self._graph.inputs[node] if below is not None and below not in read)
        return all(self._bounds.of(below) < largest_of_type(below) for below in others)


def in_forward(values: Values) -> Finding:
    """The evidence of an operation that made something not finite in the forward pass."""
    ranges = list(values.inputs.values())
    evidence: Evidence = {"operation": values.name, "direction": "forward"}
    if ranges:
        evidence["input_min"] = min(low for low, _, _ in ranges)
        evidence["input_max"] = max(high for _, high, _ in ranges)
        evidence["input_nearest_0"] = min(nearest for _, _, nearest in ranges)
    if values.at_most is not None:
        evidence["computed_input_at_most" if values.shifted else "input_at_most"] = values.at_most
    if values.shifted:
        evidence["reason"] = "a constant was put into its input, as a mask is: look at that"
    if values.output is not None:
        evidence["output"] = _what(values.output)
    return Finding("nonfinite-op", evidence)


def in_backward(node: Node, handed_on: float, arrives: float) -> Finding:
    """The evidence of an operation that was given a finite gradient and handed on another."""
    what = "NaN" if math.isnan(handed_on) else "Inf"
    ranges = input_range(node)
    came_in: Evidence = {} if all(map(math.isfinite, ranges.values())) else {"reason": CAME_IN}
    at: Evidence = {"operation": node.name(), "direction": "backward", "output": what, "largest_incoming": arrives}
    return Finding("nonfinite-op", {**at, **ranges, **came_in})


def _outputs(graph: Graph, seen: Mapping[Node, Values], calls: Sequence[Call]) -> dict[Node, Extent]:
    """Ranges of what operations made: as they saved it, as the next one did, or as a module gave it."""
    made = {node: values.output for node, values in seen.items() if values.output is not None}
    for values in seen.values():
        for name, producer in values.fed_by.items():
            if producer is not None:
                made.setdefault(producer, values.inputs[name])
    for call in calls:
        for node, output in zip(call.made, call.outputs, strict=False):
            if node is not None:
                made.setdefault(node, output)
    _down_through_views(graph, made)
    return made


def _down_through_views(graph: Graph, made: dict[Node, Extent]) -> None:
    """What is not finite and was only handed on, into no narrower type, was the same before."""
    for node in reversed(graph.order):
        below = graph.inputs[node][0][0] if graph.inputs[node] else None
        known = made.get(node)
        if below is None or known is None or known.finite:
            continue
        if hands_on(node) and not _narrows(below, node):
            made.setdefault(below, known)


def _narrows(before: Node, after: Node) -> bool:
    return largest_of_type(after) < largest_of_type(before)


def _finite_parameters(call: Call) -> bool:
    tensors = [*call.module.parameters(recurse=False), *call.module.buffers(recurse=False)]
    return all(extent(tensor).finite for tensor in tensors if tensor.is_floating_point())


def _what(values: Extent) -> str:
    if math.isnan(values.low):
        return "NaN"
    if -values.low == values.high == math.inf:
        return "Inf or NaN"
    return "Inf" if values.high == math.inf else "-Inf"
