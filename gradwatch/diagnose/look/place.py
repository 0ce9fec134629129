"""Where an operation is: in which module, on which side of the loss, and what feeds it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf, row_of
from gradwatch.diagnose.look.calls import Call, Calls
from gradwatch.diagnose.look.sides import Side, sides_of
from gradwatch.records import Cause

__all__ = ["OWN_PARAMETERS", "Place"]

# What a lone module itself is called, and what is said to be in it that is in none of its children.
OWN_PARAMETERS = "(root)"

# Lines in these are nobody's who asks where something was made.
_NOT_OWN = tuple(f'File "{folder}' for folder in (Path(torch.__file__).parent, Path(__file__).parents[2]))


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

    def cause(self, kind: str, node: Node, evidence: Mapping[str, float | int | str]) -> Cause:
        """A cause at an operation; where no module tells its place, what feeds it does."""
        where, behind, line, row = self.where(node), self.behind(node), line_of(node), row_of(node)
        told: dict[str, float | int | str] = dict(evidence)
        if behind is not None and where in (node.name(), OWN_PARAMETERS):
            told["behind"] = behind
        if line is not None:
            told["line"] = line
        fitting = None if row is None else {"nonfinite-op": row.remedy, "constant": row.constant}.get(kind)
        return cause(kind, where, fitting, **told)

    def of_input(self, node: Node) -> dict[str, float | int | str]:
        """The evidence of an operation whose input came from outside the graph."""
        behind, line = self.behind(node), line_of(node)
        told = {"first_nonfinite_input_of": self.path(node) or str(node.name()), "beside": behind, "line": line}
        return {name: value for name, value in told.items() if value is not None}

    def name(self, leaf: Node) -> str | None:
        """The name of the parameter that a leaf accumulates the gradient of; None for another tensor."""
        return self._names.get(id(leaf.variable))

    def behind(self, node: Node) -> str | None:
        """The module whose parameter is nearest below an operation: what feeds it; None where none is near."""
        return self._owner(islice(self.graph.below(node), self._NEAR))

    def _ahead(self, node: Node) -> str | None:
        """The module whose parameter is the next that an operation's output meets."""
        above = islice(self.graph.above(node), 1, None)
        met = (self.graph.producer(at, index) for at in above for index in range(len(self.graph.inputs[at])))
        return self._owner(made_by for made_by in met if made_by is not None)

    def _owner(self, nodes: Iterable[Node]) -> str | None:
        for node in nodes:
            name = self.name(node) if is_leaf(node) else None
            if name is not None:
                return name.rpartition(".")[0] or name
        return None

    def side(self, node: Node) -> Side:
        """The side of what an operation makes."""
        return self._sides.get(node, "network")

    @cached_property
    def _sides(self) -> Mapping[Node, Side]:
        return sides_of(self.graph, self._is_outside if self._calls.all else None)

    def _is_outside(self, node: Node) -> bool:
        """Of every module that has parameters; a loss module has none."""
        return all(next(call.module.parameters(), None) is None for call in self._around(node))

    def _around(self, node: Node) -> list[Call]:
        return self._calls.around(node, self._thread)


def line_of(node: Node) -> str | None:
    """The line of Python that made an operation, where torch has noted it: under its anomaly mode."""
    stack = [" ".join(entry.split()) for entry in node.metadata.get("traceback_") or ()]
    own = [entry for entry in stack if not entry.startswith(_NOT_OWN)]
    return own[-1] if own else stack[-1] if stack else None


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
