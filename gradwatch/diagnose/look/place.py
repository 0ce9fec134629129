"""Where an operation is: in which module, and what feeds it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf
from gradwatch.diagnose.look.calls import Call, Calls

__all__ = ["OWN_PARAMETERS", "Place"]

# What a lone module itself is called, and what is said to be in it that is in none of its children.
OWN_PARAMETERS = "(root)"


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

    def name(self, leaf: Node) -> str | None:
        """The name of the parameter that a leaf accumulates the gradient of; None for another tensor."""
        return self._names.get(id(leaf.variable))

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
            name = self.name(node) if is_leaf(node) else None
            if name is not None:
                return name.rpartition(".")[0] or name
        return None

    def in_network(self, node: Node) -> bool:
        """Whether an operation is inside a module that has parameters; a loss module has none."""
        return any(next(call.module.parameters(), None) is not None for call in self._around(node))

    @property
    def knows_modules(self) -> bool:
        """Whether any call of a module was noted."""
        return bool(self._calls.all)

    def beside_loss(self, node: Node) -> bool:
        """Whether an operation is in a module whose forward pass computes the loss as well."""
        around = self._around(node)
        return bool(around) and any(around[-1] in self._around(root) for root in self.graph.roots)

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
