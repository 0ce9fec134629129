"""One backward pass, looked at by hooks on its operations."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradwatch.diagnose.graph.parts import leaves_out, parts
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf, root_of, row_of
from gradwatch.diagnose.look.calls import Calls, readable
from gradwatch.diagnose.look.notes import Notes
from gradwatch.diagnose.look.numbers import arithmetic, badness, largest
from gradwatch.diagnose.look.place import Place
from gradwatch.diagnose.look.probe import Probe
from gradwatch.diagnose.look.sides import Sides
from gradwatch.diagnose.look.site import Sighting, Site
from gradwatch.diagnose.look.values import values_of
from gradwatch.diagnose.reasons.lost import LEFT, why_lost
from gradwatch.diagnose.reasons.nonfinite import in_backward

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
        notes: what has been seen so far.
    """

    def __init__(
        self,
        roots: Sequence[object],
        gradients: Sequence[object],
        calls: Calls,
        failed: Callable[[Exception], object],
        names: Mapping[int, str],
    ) -> None:
        thread = threading.get_ident()
        graph = Graph(node for node in map(root_of, roots) if node is not None)
        here = [call for call in calls.all if call.thread == thread]
        place = Place(graph, calls, thread, names)
        self._sides = Sides(place)
        self.notes = Notes(place, here, _worst(roots, none=0.0), _worst(gradients, none=1.0))
        self._failed = failed
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Hook every operation."""
        for node in self.notes.graph.order:
            hook = self._arriving(node) if is_leaf(node) else self._passing(node)
            register = node.register_prehook if is_leaf(node) else node.register_hook
            self._handles.append(register(hook))

    def detach(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()

    def _arriving(self, node: Node) -> Callable[[Sequence[Tensor | None]], None]:
        def hook(gradients: Sequence[Tensor | None]) -> None:
            try:
                if readable():
                    with arithmetic():
                        self.notes.arrived[node] = max(map(largest, gradients), default=0.0, key=badness)
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
        self.notes.seen[node] = sighting
        if not math.isfinite(self.notes.loss):
            self.notes.values[node] = values_of(self.notes.graph, node)
        arrives = sighting.worst
        if arrives == 0.0 and all(map(math.isfinite, sighting.outgoing)):
            return
        with arithmetic():
            self._explain(node, incoming, outgoing, arrives)

    def _explain(
        self, node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None], arrives: float
    ) -> None:
        """Why it hands on nothing, next to nothing, or what is not finite; now, while what it saved is alive."""
        probe = Probe(node, incoming, outgoing)
        self._look_at_parts(node, incoming, outgoing, probe)
        self.notes.spread[node] = _spread(node, incoming, outgoing)
        for index, handed_on in enumerate(self.notes.seen[node].outgoing):
            if self.notes.graph.inputs[node][index][0] is None:
                continue
            site = Site(node, index, incoming, outgoing, probe, self._sides)
            if handed_on == 0.0 or handed_on < LEFT * arrives < math.inf:
                self.notes.findings[node, index] = why_lost(site)
            elif not math.isfinite(handed_on) and math.isfinite(arrives):
                self.notes.findings[node, index] = in_backward(node, handed_on, arrives)

    def _look_at_parts(
        self, node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None], probe: Probe
    ) -> None:
        """Where an input was joined of several tensors, one of them may get nothing while the others do.

        The operation that joined them would be seen to turn it zero, but only passes on what it got.
        """
        row = row_of(node)
        if row is None or not (row.splits or leaves_out(self.notes.graph, node)):
            return
        for index, handed_on in enumerate(outgoing):
            if handed_on is None:
                continue
            joint, joined = parts(self.notes.graph, node, index)
            for number, part in joined.items():
                if largest(part.of(handed_on)) == 0.0:
                    site = Site(node, index, incoming, outgoing, probe, self._sides, part)
                    self.notes.in_part[joint, number] = (node, why_lost(site))


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
