"""Tensors joined by ``cat`` or ``stack``: which part of the joint tensor each became."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from gradwatch.diagnose.graph.saved import read_saved, signed
from gradwatch.diagnose.graph.walk import Graph, Node, row_of

__all__ = ["Part", "leaves_out", "parts", "shape_of"]


class Part(NamedTuple):
    """A part of an input: what one of several tensors, joined by ``cat`` or ``stack``, became of it."""

    dim: int
    start: int
    length: int

    def of(self, values: Tensor) -> Tensor:
        """The part of a tensor that has the input's shape."""
        return values.narrow(self.dim, self.start, self.length)


def parts(graph: Graph, node: Node, index: int) -> tuple[Node | None, dict[int, Part]]:
    """Of an input that joins several tensors: the operation that joined them, and what each of them became.

    None and nothing where the input was not joined, or where the parts cannot be told in it.
    """
    joint = _whole(graph, graph.inputs[node][index][0])
    flattened = joint is not None and _moves(joint) == "counts"
    if joint is not None and flattened:
        joint = _whole(graph, graph.inputs[joint][0][0])
    row = None if joint is None else row_of(joint)
    if joint is None or row is None or row.family != "joint":
        return None, {}
    found = _parts_of(graph, joint)
    if flattened:
        found = _in_last_dimension(found, shape_of(joint, 0), shape_of(*graph.inputs[node][index]))
    return joint, found


def leaves_out(graph: Graph, node: Node) -> bool:
    """Whether it is a slice, and not one of those that torch 2.6 makes of each colon in ``[:, 2:]``."""
    return _moves(node) == "cuts" and shape_of(node, 0) != shape_of(*graph.inputs[node][0])


def _whole(graph: Graph, node: Node | None) -> Node | None:
    """What made it, seen through what leaves every element where it is."""
    while node is not None and (
        _moves(node) == "nothing" or (_moves(node) == "cuts" and not leaves_out(graph, node))
    ):
        node = graph.inputs[node][0][0]
    return node


def _moves(node: Node) -> str:
    row = row_of(node)
    return "" if row is None or row.family != "view" else row.moves


def _parts_of(graph: Graph, joint: Node) -> dict[int, Part]:
    made = next(made for made in graph.inputs[joint] if made[0] is not None)
    stacked = len(shape_of(joint, 0)) > len(shape_of(*made))
    dim = signed(read_saved(joint, "dim")) % len(shape_of(joint, 0))
    found, start = {}, 0
    for index, (made_by, output) in enumerate(graph.inputs[joint]):
        if made_by is None and not stacked:
            break  # the size of a constant has left no trace, and with it where the later ones begin
        length = 1 if stacked or made_by is None else shape_of(made_by, output)[dim]
        found[index] = Part(dim, start, length)
        start += length
    return found


def _in_last_dimension(found: dict[int, Part], joined: Sequence[int], seen: Sequence[int]) -> dict[int, Part]:
    """The same parts where only the dimensions before the last one were flattened."""
    last = len(joined) - 1
    if joined[-1] != seen[-1] or any(part.dim != last for part in found.values()):
        return {}
    return {index: part._replace(dim=len(seen) - 1) for index, part in found.items()}


def shape_of(made_by: Node, output: int) -> Sequence[int]:
    """The shape of what an operation made as this one of its outputs."""
    if hasattr(made_by, "variable"):
        return tuple(made_by.variable.shape)
    return tuple(made_by._input_metadata[output].shape)
