"""One backward pass, looked at by hooks on its operations, and what it showed: plain numbers and findings."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradwatch.diagnose.graph.parts import leaves_out, parts
from gradwatch.diagnose.graph.saved import is_packed
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf, made_as, root_of, row_of
from gradwatch.diagnose.look.calls import Calls, readable
from gradwatch.diagnose.look.numbers import arithmetic, badness, largest
from gradwatch.diagnose.look.place import Place
from gradwatch.diagnose.look.probe import Probe
from gradwatch.diagnose.look.site import Finding, Sighting, Site
from gradwatch.diagnose.look.values import Values, values_of
from gradwatch.diagnose.reasons.lost import why

__all__ = ["Pass"]


class Pass:
    """Looks at one run of the autograd engine.

    Args:
        roots: tensors, or gradient edges, that it starts from.
        gradients: what it starts with.
        calls: of the modules, so far.
        failed: told of errors; nothing here raises into the backward pass.
        names: names of parameters, by their ``id``.

    Attributes:
        graph: what it runs through.
        place: tells where operations are.
        loss: largest absolute value of what the pass started from, NaN or Inf where it was not finite.
        initial: the same of the gradients that it started with.
        seen: largest gradients into and out of each operation.
        arrived: largest gradient that was about to be accumulated, by the operation that accumulates it.
        findings: by operation and number of its input, where and why the gradient went wrong: there, or of one of
            several tensors that were joined, at the operation above that gave this one nothing.
        values: what operations saved of the forward pass; only where the loss is not finite.
        inner: the runs that happened inside of operations, and these: a re-entrant checkpoint's.
        packed: what some operation saved could not be read, as in a checkpoint; only where the loss is not finite.
    """

    def __init__(
        self,
        roots: Sequence[object],
        gradients: Sequence[object],
        calls: Calls,
        failed: Callable[[Exception], object],
        names: Mapping[int, str],
    ) -> None:
        self.graph = Graph(node for node in map(root_of, roots) if node is not None)
        self.place = Place(self.graph, calls, threading.get_ident(), names)
        self.loss, self.initial = _worst(roots, none=0.0), _worst(gradients, none=1.0)
        self.seen: dict[Node, Sighting] = {}
        self.arrived: dict[Node, float] = {}
        self.findings: dict[tuple[Node, int], tuple[Node, Finding]] = {}
        self.values: dict[Node, Values] = {}
        # With the number of the operation that each ran inside, which may be gone when it is over.
        self.inner: list[tuple[int, Pass]] = []
        self.packed = False
        self._failed = failed
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Hook every operation."""
        for node in self.graph.order:
            register = node.register_prehook if is_leaf(node) else node.register_hook
            self._handles.append(register(self._hook(node, self._arriving if is_leaf(node) else self._look)))

    def detach(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()

    def adopt(self, inner: Pass, parent: Node) -> None:
        """Take in what a run inside one of the operations showed."""
        self.graph.adopt(inner.graph, parent)
        self.seen |= inner.seen
        self.arrived |= inner.arrived
        self.findings |= inner.findings
        self.values |= inner.values
        self.inner.append((made_as(parent), inner))

    def _hook(self, node: Node, look: Callable[..., None]) -> Callable[..., None]:
        def hook(*gradients: Any) -> None:
            try:
                if readable():
                    with arithmetic():
                        look(node, *gradients)
            except Exception as error:
                self._failed(error)

        return hook

    def _arriving(self, node: Node, gradients: Sequence[Tensor | None]) -> None:
        self.arrived[node] = _worst(gradients, none=0.0)

    def _look(self, node: Node, outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:
        came, left = _worst(incoming, none=0.0), tuple(map(largest, outgoing))
        self.seen[node] = Sighting(came, left, _spread(node, incoming, outgoing))
        if not math.isfinite(self.loss):
            self.values[node] = values_of(self.graph, node)
            # Only now: a torch that does not tell of hooks gives out what is packed once.
            self.packed = self.packed or is_packed(node)
        if came != 0.0 or not all(map(math.isfinite, left)):
            self._explain(Probe(node, incoming, outgoing), came, left)

    def _explain(self, probe: Probe, came: float, left: Sequence[float]) -> None:
        """Why it hands on nothing, next to nothing, or what is not finite; now, while what it saved is alive."""
        self._look_at_parts(probe, came)
        for index, size in enumerate(left):
            if self.graph.inputs[probe.node][index][0] is not None and (probe.node, index) not in self.findings:
                found = why(Site(probe, index, self.place, came, size))
                self.findings |= {} if found is None else {(probe.node, index): (probe.node, found)}

    def _look_at_parts(self, probe: Probe, came: float) -> None:
        """Where an input was joined of several tensors, one of them may get nothing while the others do.

        The operation that joined them would be seen to turn it zero, but only passes on what it got.
        """
        row = row_of(probe.node)
        if row is None or not (row.splits or leaves_out(self.graph, probe.node)):
            return
        for index, handed_on in enumerate(probe.outgoing):
            joint, joined = (None, {}) if handed_on is None else parts(self.graph, probe.node, index)
            for number, part in joined.items():
                if handed_on is not None and largest(part.of(handed_on)) == 0.0:
                    found = why(Site(probe, index, self.place, came, 0.0, part))
                    self.findings |= {} if found is None else {(joint, number): (probe.node, found)}


def _worst(values: Iterable[object], none: float) -> float:
    """The largest absolute value in several tensors, NaN or Inf where there is one."""
    with arithmetic():
        return max((largest(value) for value in values if isinstance(value, Tensor)), default=none, key=badness)


def _spread(node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None]) -> float:
    """Over how many elements a mean or a loss spreads each that came in; 1 for what does not.

    Each of n elements gets 1/n of it: what is lost to each is added up again further down.
    """
    row = row_of(node)
    if row is None or not (row.teaches or row.family in ("loss", "reduction")):
        return 1.0
    came, went = (sum(g.numel() for g in gradients if g is not None) for gradients in (incoming, outgoing))
    return max(1.0, went / max(1, came))
