"""Where an operation is: in which module, and on which side of the loss."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping

from gradwatch.diagnose.forward import Call, Calls
from gradwatch.diagnose.walk import HANDS_ON, Graph, Node, is_leaf, operation

__all__ = ["LOSS_FUNCTIONS", "OWN_PARAMETERS", "Place"]

# What a lone module itself is called, and what is said to be in it that is in none of its children.
OWN_PARAMETERS = "(root)"

# Only reshape, scale or add up: a loss that goes through nothing else on its way is already a loss.
LINEAR = HANDS_ON | frozenset([
    "Add", "Cat", "Div", "Index", "Mean", "Mul", "Neg", "Stack", "Sub", "Sum",
])  # fmt: skip

# What makes a loss of what a network gave.
LOSS_FUNCTIONS = frozenset([
    "Abs", "BinaryCrossEntropy", "BinaryCrossEntropyWithLogits", "CtcLoss", "HuberLoss", "LogSigmoid",
    "LogSoftmax", "MseLoss", "MultiMarginLoss", "MultilabelMarginLoss", "NllLoss", "NllLoss2D", "Pow",
    "SmoothL1Loss", "SoftMarginLoss",
])  # fmt: skip


class Place:
    """Tells of an operation where it is.

    Args:
        graph: of the backward pass.
        calls: of the modules.
        thread: identity of the thread that ran the forward pass; None for this one.
        names: names of parameters, by their ``id``.
    """

    # Operations looked at below one for the module that feeds it: a graph may have a hundred thousand.
    _NEAR = 256

    def __init__(
        self, graph: Graph, calls: Calls, thread: int | None = None, names: Mapping[int, str] | None = None
    ) -> None:
        self.graph = graph
        self._calls = calls
        self._names = names or {}
        self._thread = threading.get_ident() if thread is None else thread

    def call(self, node: Node) -> Call | None:
        """The innermost call of a module that an operation was made in."""
        around = self._around(node)
        return around[0] if around else None

    def path(self, node: Node) -> str | None:
        """The path of that module; None for an operation outside every module."""
        call = self.call(node)
        return call.path if call else None

    def where(self, node: Node) -> str:
        """What a cause gives as its place: a module, else the operation itself.

        Where no calls were noted, an operation between two parameters of a module is inside that module.
        """
        path = self.path(node)
        if path is None and not self._calls.all:
            path = _common_path(self.behind(node), self._ahead(node))
        return path or str(node.name())

    def behind(self, node: Node) -> str | None:
        """The module whose parameter is nearest below an operation: what feeds it; None where none is near."""
        below = (made_by for at in self._below(node) for made_by, _ in self.graph.inputs.get(at, ()))
        return self._owner(made_by for made_by in below if made_by is not None)

    def _ahead(self, node: Node) -> str | None:
        """The module whose parameter is the next that an operation's output meets."""
        above = ((at, index) for at in self.graph.above(node) for index in range(len(self.graph.inputs[at])))
        return self._owner(
            made_by for at, index in above if (made_by := self.graph.producer(at, index)) is not None
        )

    def _below(self, node: Node) -> Iterator[Node]:
        waiting, seen = [node], {node}
        for at in waiting:
            if len(seen) > self._NEAR:
                return
            yield at
            for made_by, _ in self.graph.inputs.get(at, ()):
                if made_by is not None and made_by not in seen:
                    seen.add(made_by)
                    waiting.append(made_by)

    def _owner(self, nodes: Iterable[Node]) -> str | None:
        for node in nodes:
            name = self._names.get(id(node.variable)) if is_leaf(node) else None
            if name is not None:
                return name.rpartition(".")[0] or name
        return None

    def in_network(self, node: Node) -> bool:
        """Whether an operation is inside a module that has parameters; a loss module has none."""
        return any(next(call.module.parameters(), None) is not None for call in self._around(node))

    def outside_or_beside_loss(self, node: Node) -> bool:
        """Whether an operation is outside the network, or in one whose forward pass computes the loss as well."""
        if not self.in_network(node):
            return True
        outermost = self._around(node)[-1]
        return any(outermost in self._around(root) for root in self.graph.roots)

    def of_loss(self, node: Node, index: int) -> bool:
        """Whether an operation weighs or cuts a *loss*, rather than what the network gave.

        All that follows it only adds up and scales, and what it is applied to is not the network's own output:
        a loss has been made of that before.
        """
        producer = self.graph.producer(node, index)
        if producer is None or is_leaf(producer) or not self.linear_above(node):
            return False
        if self._calls.all and not self.in_network(node):
            return not self.in_network(producer)
        # Without modules there is no telling a network from a loss but by what a loss is made of.
        return self.outside_or_beside_loss(node) and self._made_by_loss_function(producer)

    def linear_above(self, node: Node, also: Collection[str] = ()) -> bool:
        """Whether all that follows an operation only reshapes, adds up and scales, or is among ``also``."""
        return all(operation(above) in LINEAR or operation(above) in also for above in self.graph.above(node))

    def _made_by_loss_function(self, node: Node) -> bool:
        """Whether something is a loss function's value, scaled and added up at the most."""
        while operation(node) in LINEAR:
            below = next((made_by for made_by, _ in self.graph.inputs[node] if made_by is not None), None)
            if below is None:
                return False
            node = below
        return operation(node) in LOSS_FUNCTIONS

    def _around(self, node: Node) -> list[Call]:
        return self._calls.around(node, self._thread)


def _common_path(one: str | None, other: str | None) -> str | None:
    """The innermost module that two paths lie in; None where there is none."""
    if one is None or other is None:
        return None
    shared = []
    for mine, its in zip(one.split("."), other.split("."), strict=False):
        if mine != its:
            break
        shared.append(mine)
    return ".".join(shared) or None
