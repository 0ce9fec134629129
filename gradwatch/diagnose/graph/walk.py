"""The graph that a backward pass runs through: its operations, who consumes whose output, its parameters.

An edge runs from a consumer to an input: gradients flow along it from the loss to the parameters. "Up" is
towards the loss.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gradwatch.diagnose.graph.catalogue import ROWS, Row

__all__ = [
    "NO_INPUT",
    "Consumer",
    "Graph",
    "Node",
    "hands_on",
    "is_leaf",
    "lasting",
    "made_as",
    "operation",
    "root_of",
    "row_of",
    "spreading",
]

# torch's nodes: C++ ones and those of Python's own autograd functions have no common type to name.
Node: TypeAlias = Any


class Consumer(NamedTuple):
    """Who takes an output: the operation, and the number of its input."""

    node: Node
    input: int


# Operations of Python's own. Since which version after 2.6 they do is left open: the other way is right as well.
_LIVE_BY_BEING_HELD = torch.__version__ >= "2.13"

_SUFFIX = re.compile(r"Backward\d+$")

# Stands for the input's number where there is none: a run inside a node, as a reentrant checkpoint's, has none.
NO_INPUT = -1


class Graph:
    """All operations below some roots.

    Args:
        roots: where the backward pass starts.

    Attributes:
        order: every operation, each after those that it takes its inputs from.
        inputs: of each operation: the operation that made its input and the number of the output; None where the
            input needs no gradient.
        consumers: of each operation, who takes its outputs.
        leaves: by ``id`` of a parameter: the operation that accumulates its gradient.
    """

    def __init__(self, roots: Iterable[Node]) -> None:
        self.roots = tuple(roots)
        self.order: list[Node] = []
        self.inputs: dict[Node, tuple[tuple[Node | None, int], ...]] = {}
        self.consumers: dict[Node, list[Consumer]] = {root: [] for root in self.roots}
        self.leaves: dict[int, Node] = {}
        for root in self.roots:
            self._descend(root)

    def producer(self, node: Node, index: int) -> Node | None:
        """What made an input, looking through operations that only hand it on; None for a constant."""
        made_by: Node | None = self.inputs[node][index][0]
        while made_by is not None and hands_on(made_by):
            made_by = self.inputs[made_by][0][0]
        return made_by

    def weight(self, node: Node, index: int) -> Tensor | None:
        """The parameter that an input is, reshaped or cast at the most; None where it is none."""
        made_by = self.producer(node, index)
        return made_by.variable if made_by is not None and is_leaf(made_by) else None

    def above(self, node: Node) -> Iterator[Node]:
        """An operation and those between it and the roots, nearest first."""
        return spreading([node], lambda at: [consumer.node for consumer in self.consumers.get(at, ())])

    def below(self, node: Node) -> Iterator[Node]:
        """An operation and what feeds it, nearest first."""
        return spreading([node], lambda at: [made for made, _ in self.inputs.get(at, ()) if made is not None])

    def adopt(self, inner: Graph, parent: Node) -> None:
        """Take in the graph of a run that happened inside one of the operations."""
        for node in inner.order:
            if node not in self.inputs:
                self.order.append(node)
                self.inputs[node] = inner.inputs[node]
            self.consumers.setdefault(node, []).extend(inner.consumers[node])
        for root in inner.roots:
            self.consumers[root].append(Consumer(parent, NO_INPUT))
        self.leaves.update(inner.leaves)

    def _descend(self, root: Node) -> None:
        """Depth first, without recursion: graphs of recurrent networks are deeper than Python's stack."""
        if root in self.inputs:
            return
        self._open(root)
        stack = [(root, iter(self.inputs[root]))]
        while stack:
            node, remaining = stack[-1]
            for below, _ in remaining:
                if below is not None and below not in self.inputs:
                    self._open(below)
                    stack.append((below, iter(self.inputs[below])))
                    break
            else:
                stack.pop()
                self.order.append(node)

    def _open(self, node: Node) -> None:
        self.inputs[node] = _inputs_of(node)
        self.consumers.setdefault(node, [])
        for index, (below, _) in enumerate(self.inputs[node]):
            if below is not None:
                self.consumers.setdefault(below, []).append(Consumer(node, index))
        if is_leaf(node):
            self.leaves[id(node.variable)] = node


def spreading(starts: Iterable[Any], onwards: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """What can be reached, each once and nearest first, from where it starts."""
    waiting = list(starts)
    met = set(waiting)
    for at in waiting:
        yield at
        for other in onwards(at):
            if other not in met:
                met.add(other)
                waiting.append(other)


def _inputs_of(node: Node) -> tuple[tuple[Node | None, int], ...]:
    try:
        return tuple(node.next_functions)
    except RuntimeError:
        # One of Python's own functions does not live by being held: its output is gone, and so is what it knew.
        return ()


def is_leaf(node: Node) -> bool:
    """Whether a node accumulates a parameter's gradient."""
    return hasattr(node, "variable")


def operation(node: Node) -> str:
    """An operation's name without torch's suffix: ``Tanh`` for ``TanhBackward0``.

    Only torch's own suffix has a number. ``TanhBackward`` stays what it is: a function of the user's own that is
    called like one of torch's, or what is left of ``TanhBackwardBackward0``, torch's slope of a slope. Neither
    saves what ``Tanh`` saves.
    """
    return _without_suffix(node.name())


# Asked of the same few in each pass.
@lru_cache(maxsize=1024)
def _without_suffix(name: str) -> str:
    return _SUFFIX.sub("", name.rpartition("::")[2])


def row_of(node: Node) -> Row | None:
    """What is known of an operation; None where that is nothing."""
    row = ROWS.get(operation(node))
    if row is None or row.without is None:
        return row
    name, other = row.without
    return row if _was_given(node, name) else ROWS[other]


def _was_given(node: Node, name: str) -> bool:
    try:
        return getattr(node, f"_saved_{name}", None) is not None
    except RuntimeError:  # a tensor that was, and is freed
        return True


def made_as(node: Node) -> int:
    """An operation's number in the order in which they were made; one that is gone comes last.

    Under torch 2.6 to ask that of one of Python's own that has not lived by being held ends the process.
    """
    if not _LIVE_BY_BEING_HELD and isinstance(node, torch._C._FunctionBase):
        try:
            _ = node.next_functions
        except RuntimeError:
            return sys.maxsize
    return int(node._sequence_nr())


def hands_on(node: Node) -> bool:
    """Whether an operation hands a tensor's values on as they are, in another shape, place or type."""
    row = row_of(node)
    return row is not None and row.family == "view"


def root_of(start: object) -> Node | None:
    """The operation that a backward pass starts at: of a tensor, or of a gradient edge."""
    if isinstance(start, Tensor):
        if start.grad_fn is not None or not start.requires_grad:
            return start.grad_fn
        return torch.autograd.graph.get_gradient_edge(start).node
    return getattr(start, "node", None)


def lasting(output: Tensor) -> Node:
    """Where a tensor comes from in its graph, or an operation behind that: by holding it the graph is held.

    Under torch 2.6 an operation of Python's own, as torch.compile makes them too, does not live by being held: one
    of C++ is put behind it.
    """
    made_by: Node = output.grad_fn
    if _LIVE_BY_BEING_HELD or not isinstance(made_by, torch._C._FunctionBase):
        return made_by
    with torch.enable_grad():
        return output.view_as(output).grad_fn
