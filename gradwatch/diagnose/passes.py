"""One backward pass: looked at by hooks on its operations, and what it showed of each parameter."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradwatch.diagnose import operations
from gradwatch.diagnose.forward import Calls, readable
from gradwatch.diagnose.frontier import Crossing, Sighting, not_finite_from, zero_from
from gradwatch.diagnose.nonfinite import Forward, Values, found_in_forward, input_range, values_of
from gradwatch.diagnose.numbers import arithmetic, largest
from gradwatch.diagnose.parts import parts
from gradwatch.diagnose.place import Place
from gradwatch.diagnose.remedies import cause
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.walk import Graph, Node, is_leaf, operation, root_of
from gradwatch.records import Cause

__all__ = ["Contribution", "Pass"]


class Contribution(NamedTuple):
    """What one backward pass gave to one parameter.

    Attributes:
        size: largest absolute value of the gradient; NaN or Inf where it is not finite.
        cause: why it is zero or not finite; None where it is neither.
    """

    size: float
    cause: Cause | None


class Pass:
    """Looks at one run of the autograd engine.

    Args:
        roots: tensors, or gradient edges, that it starts from.
        gradients: what it starts with.
        calls: of the modules, so far.
        failed: told of errors; nothing here raises into the backward pass.
    """

    def __init__(
        self,
        roots: Sequence[object],
        gradients: Sequence[object],
        calls: Calls,
        failed: Callable[[Exception], object],
    ) -> None:
        self.graph = Graph(node for node in map(root_of, roots) if node is not None)
        self._calls = calls
        self._failed = failed
        self._thread = threading.get_ident()
        self._place = Place(self.graph, calls, self._thread)
        with arithmetic():
            self.loss = max(
                (largest(root) for root in roots if isinstance(root, Tensor)), default=0.0, key=_badness
            )
        self._given = max((largest(g) for g in gradients if isinstance(g, Tensor)), default=1.0, key=_badness)
        self._seen: dict[Node, Sighting] = {}
        self._findings: dict[tuple[Node, int], Finding] = {}
        self._values: dict[Node, Values] = {}
        self._in_part: dict[tuple[Node, int], tuple[Node, Finding]] = {}
        self._arrived: dict[Node, float] = {}
        self._handles: list[RemovableHandle] = []

    def reaches(self, parameters: Iterable[int]) -> bool:
        """Whether one of the parameters, by ``id``, is below the roots."""
        return any(parameter in self.graph.leaves for parameter in parameters)

    def attach(self) -> None:
        """Hook every operation."""
        for node in self.graph.order:
            hook = self._arriving(node) if is_leaf(node) else self._passing(node)
            register = node.register_prehook if is_leaf(node) else node.register_hook
            self._handles.append(register(hook))

    def detach(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()

    def adopt(self, inner: Pass, parent: Node) -> None:
        """Take in what a run inside one of the operations showed."""
        self.graph.adopt(inner.graph, parent)
        self._seen.update(inner._seen)
        self._findings.update(inner._findings)
        self._in_part.update(inner._in_part)
        self._values.update(inner._values)
        self._arrived.update(inner._arrived)

    def contributions(self, parameters: Iterable[int]) -> dict[int, Contribution]:
        """By ``id``, what each of the parameters got; those that the pass did not reach are left out."""
        found = {}
        for parameter in parameters:
            leaf = self.graph.leaves.get(parameter)
            size = None if leaf is None else self._size_at(leaf)
            if leaf is not None and size is not None:
                found[parameter] = Contribution(size, self._why(leaf, size))
        return found

    def _size_at(self, leaf: Node) -> float | None:
        if leaf in self._arrived:
            return self._arrived[leaf]
        # torch.autograd.grad takes the gradient before it is accumulated.
        given = [
            self._seen[consumer.node].outgoing[consumer.input]
            for consumer in self.graph.consumers[leaf]
            if consumer.node in self._seen
        ]
        return max(given, key=_badness) if given else None

    def _why(self, leaf: Node, size: float) -> Cause | None:
        if size == 0.0:
            return self._of_zero(zero_from(self.graph, self._seen, leaf))
        if not math.isfinite(size):
            return self._of_not_finite(not_finite_from(self.graph, self._seen, leaf))
        return None

    def _of_zero(self, crossings: Sequence[Crossing]) -> Cause:
        if not crossings:
            return cause("unknown", "(backward)", reason="no operation was seen to turn it zero")
        nearest = _nearest(crossings)
        found = self._cause_at(nearest)
        kinds = {self._cause_at(other).kind for other in crossings} - {found.kind}
        if kinds:
            found = cause(found.kind, found.where, **found.evidence, also=", ".join(sorted(kinds)))
        return found

    def _cause_at(self, crossing: Crossing) -> Cause:
        where = self._place.path(crossing.node) or crossing.node.name()
        if crossing.at == "root":
            return cause("zero-loss", where, largest_initial_gradient=self._given)
        if crossing.at == "edge":
            return self._cause_on_edge(crossing, where)
        return self._cause_found(crossing, where)

    def _cause_found(self, crossing: Crossing, where: str) -> Cause:
        key = (crossing.node, crossing.input)
        if key in self._in_part:
            node, finding = self._in_part[key]
            return cause(finding.kind, self._place.path(node) or node.name(), **finding.evidence)
        found = self._findings.get(key)
        if found is None:
            return cause("unknown", where, operation=crossing.node.name(), reason="it could not be read")
        return cause(found.kind, where, **found.evidence)

    def _cause_on_edge(self, crossing: Crossing, where: str) -> Cause:
        consumers = [c for c in self.graph.consumers[crossing.node] if c.node in self._seen]
        given = [self._seen[c.node].outgoing[c.input] for c in consumers if c.input >= 0]
        number = sum(value != 0.0 for value in given)
        at = {"operation": crossing.node.name(), "largest_given": max(given, default=0.0), "contributions": number}
        if number == 1:
            return cause("masked", where, **at, reason="a hook set it to zero")
        return cause("unknown", where, **at, reason="contributions cancel exactly, or a hook set them to zero")

    def _of_not_finite(self, crossings: Sequence[Crossing]) -> Cause:
        if not math.isfinite(self.loss):
            return self._of_loss()
        if not crossings:
            return cause("unknown", "(backward)", reason="no operation was seen to make it: a hook may have")
        crossing = _nearest(crossings)
        where = self._place.path(crossing.node) or crossing.node.name()
        if crossing.at == "root":
            return cause("nonfinite-loss", where, loss=self.loss, largest_initial_gradient=self._given)
        return self._cause_found(crossing, where)

    def _of_loss(self) -> Cause:
        """The loss itself is not finite: whatever the backward pass did, the forward pass came first."""
        calls = [call for call in self._calls.all if call.thread == self._thread]
        forward = Forward(self.graph, self._values, calls)
        values = forward.first_operation()
        if values is not None:
            return cause("nonfinite-op", values.path or values.name, **found_in_forward(values).evidence)
        call = forward.first_call(calls)
        if call is not None:
            low, high = (
                min((v.low for v in call.inputs), default=0.0),
                max((v.high for v in call.inputs), default=0.0),
            )
            name = f"{type(call.module).__name__}.forward"
            return cause(
                "nonfinite-op", call.path, operation=name, direction="forward", input_min=low, input_max=high
            )
        return cause("nonfinite-loss", "loss", loss=self.loss, **_state_of_calls(calls))

    def _arriving(self, node: Node) -> Callable[[Sequence[Tensor | None]], None]:
        def hook(gradients: Sequence[Tensor | None]) -> None:
            try:
                if readable():
                    with arithmetic():
                        self._arrived[node] = max(map(largest, gradients), default=0.0, key=_badness)
            except Exception as error:
                self._failed(error)

        return hook

    def _passing(self, node: Node) -> Callable[[Any, Any], None]:
        def hook(outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:
            try:
                if readable():
                    self._look(node, incoming, outgoing)
            except Exception as error:
                self._failed(error)

        return hook

    def _look(self, node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None]) -> None:
        with arithmetic():
            sighting = Sighting(tuple(map(largest, incoming)), tuple(map(largest, outgoing)))
        self._seen[node] = sighting
        if not math.isfinite(self.loss):
            self._values[node] = values_of(self.graph, node, self._place.path(node))
        arrives = max(sighting.incoming, default=0.0, key=_badness)
        if arrives == 0.0 and all(map(math.isfinite, sighting.outgoing)):
            return
        with arithmetic():
            self._look_at_parts(node, incoming, outgoing)
        for index, handed_on in enumerate(sighting.outgoing):
            if self.graph.inputs[node][index][0] is None:
                continue
            if handed_on == 0.0:
                site = Site(node, index, incoming, outgoing[index], self._place)
                self._findings[node, index] = operations.read(site)
            elif not math.isfinite(handed_on) and math.isfinite(arrives):
                self._findings[node, index] = self._made_not_finite(node, handed_on, arrives)

    def _look_at_parts(
        self, node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None]
    ) -> None:
        """Where an input was joined of several tensors, one of them may get nothing while the others do.

        The operation that joined them would be seen to turn it zero, but only passes on what it got.
        """
        if operation(node) not in operations.BY_PARTS:
            return
        for index, handed_on in enumerate(outgoing):
            if handed_on is None:
                continue
            joint, joined = parts(self.graph, node, index)
            for number, part in joined.items():
                if largest(part.of(handed_on)) == 0.0:
                    site = Site(node, index, incoming, handed_on, self._place, part)
                    self._in_part[joint, number] = (node, operations.read(site))

    def _made_not_finite(self, node: Node, handed_on: float, arrives: float) -> Finding:
        what = "NaN" if math.isnan(handed_on) else "Inf"
        numbers: Mapping[str, float | int | str] = {
            "operation": node.name(),
            "direction": "backward",
            "output": what,
            "largest_incoming": arrives,
            **input_range(node),
        }
        return Finding("nonfinite-op", numbers)


def _nearest(crossings: Sequence[Crossing]) -> Crossing:
    """Nearest to the parameter; of several as near, one where an operation did it."""
    return min(crossings, key=lambda crossing: (crossing.distance, crossing.at != "operation"))


def _badness(size: float) -> tuple[bool, bool, float]:
    """Orders sizes: NaN above Inf above finite ones."""
    return (math.isnan(size), math.isinf(size), 0.0 if math.isnan(size) else size)


def _state_of_calls(calls: Sequence[Any]) -> dict[str, float | int | str]:
    for call in calls:
        if not all(values.finite for values in call.inputs):
            return {"first_nonfinite_input_of": call.path, "reason": "it was not finite before it came in"}
        if not all(values.finite for values in call.outputs):
            return {
                "first_nonfinite_output_of": call.path,
                "reason": "a parameter or buffer was not finite already",
            }
    return {"reason": "every module's output was finite", "calls": len(calls)}
