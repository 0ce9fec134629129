"""One operation in the middle of its backward: what its reader may look at."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.diagnose.forward import Call, Calls
from gradwatch.diagnose.numbers import as_dense
from gradwatch.diagnose.walk import Graph, Node, operation

__all__ = ["Finding", "Part", "Place", "Site", "no_grad_nor_autocast", "parts", "read_saved", "saved_names", "signed"]

# Only reshape, scale or add up: a loss that goes through nothing else on its way is already a loss.
LINEAR = frozenset(
    [
        "Add",
        "Alias",
        "Clone",
        "Div",
        "Expand",
        "Mean",
        "Mul",
        "Neg",
        "Permute",
        "Reshape",
        "ReshapeAlias",
        "Select",
        "Slice",
        "Squeeze",
        "Stack",
        "Sub",
        "Sum",
        "T",
        "ToCopy",
        "Transpose",
        "Unsqueeze",
        "UnsafeView",
        "View",
        "Cat",
        "Unbind",
        "Index",
    ]
)


# Sums of products: a part of an input meets a part of the other factor, which their reader takes itself.
PRODUCTS = frozenset(["Addmm", "Mm"])


class Finding(NamedTuple):
    """What a reader says: the kind of cause and the numbers that prove it."""

    kind: str
    evidence: Mapping[str, float | int | str]


class Place:
    """Where operations are: in which module, and on which side of the loss.

    Args:
        graph: of the backward pass.
        calls: of the modules.
        thread: the thread that ran the forward pass.
    """

    def __init__(self, graph: Graph, calls: Calls, thread: int | None = None) -> None:
        self.graph = graph
        self._calls = calls
        self._thread = threading.get_ident() if thread is None else thread

    def call(self, node: Node) -> Call | None:
        """The innermost call of a module that an operation was made in."""
        around = self._calls.around(node, self._thread)
        return around[0] if around else None

    def path(self, node: Node) -> str | None:
        """The path of that module; None for an operation outside every module."""
        call = self.call(node)
        return call.path if call else None

    def in_network(self, node: Node) -> bool:
        """Whether an operation is inside a module that has parameters; a loss module has none."""
        around = self._calls.around(node, self._thread)
        return any(next(call.module.parameters(), None) is not None for call in around)

    def of_loss(self, node: Node, index: int) -> bool:
        """Whether an operation weighs or cuts a *loss*, rather than what the network gave.

        It is outside the network, all that follows only adds up and scales, and what it is applied to is not the
        network's own output: something has been made of that before.
        """
        if self.in_network(node) or not self.linear_above(node):
            return False
        producer = self.graph.producer(node, index)
        return producer is not None and not self.in_network(producer) and not hasattr(producer, "variable")

    def linear_above(self, node: Node, also: Collection[str] = ()) -> bool:
        """Whether all that follows an operation only reshapes, adds up and scales, or is among ``also``."""
        return all(operation(above) in LINEAR or operation(above) in also for above in self.graph.above(node))


class Part(NamedTuple):
    """A part of an input: what one of several tensors, joined by ``cat`` or ``stack``, became of it."""

    dim: int
    start: int
    length: int

    def of(self, values: Tensor) -> Tensor:
        """The part of a tensor that has the input's shape."""
        return values.narrow(self.dim, self.start, self.length)


@dataclass(frozen=True)
class Site:
    """One input of one operation whose incoming gradient is right and whose outgoing one is not.

    Attributes:
        node: the operation.
        index: number of the input.
        incoming: gradients that came to it.
        outgoing: the gradient that it handed on to the input; None where it handed none on.
        place: where it is.
        part: the part of the input that is looked at; None for all of it.
    """

    node: Node
    index: int
    incoming: Sequence[Tensor | None]
    outgoing: Tensor | None
    place: Place
    part: Part | None = None
    _read: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def graph(self) -> Graph:
        """The graph that it is in."""
        return self.place.graph

    @property
    def gradient(self) -> Tensor:
        """The first incoming gradient that there is; of an elementwise operation, the part that is looked at."""
        return self._in_part(as_dense(next(gradient for gradient in self.incoming if gradient is not None)))

    def saved(self, name: str) -> Any:
        """What the operation saved under a name; None where it saved nothing or it cannot be read."""
        if name not in self._read:
            self._read[name] = read_saved(self.node, name)
        return self._read[name]

    def tensor(self, name: str) -> Tensor | None:
        """A saved tensor, outside any graph; of one with the input's shape, the part that is looked at."""
        value = self.saved(name)
        return self._in_part(value.detach()) if isinstance(value, Tensor) else None

    def _in_part(self, values: Tensor) -> Tensor:
        if self.part is None or self.outgoing is None or operation(self.node) in PRODUCTS:
            return values
        if values.shape != self.outgoing.shape:
            return values
        return self.part.of(values)


def read_saved(node: Node, name: str) -> Any:
    """What an operation saved under a name; None where it saved nothing or it must not be read.

    A tensor that is packed by hooks (a checkpoint, offloading) is left alone: unpacking it a second time is the
    packer's business, and a checkpoint refuses.
    """
    raw = getattr(node, f"_raw_saved_{name}", None)
    if getattr(raw, "unpack_hook", None) is not None:
        return None
    # Freed, changed in place since, or (in a torch that does not tell of hooks) given out once and for all.
    with contextlib.suppress(RuntimeError, AssertionError):
        return getattr(node, f"_saved_{name}", None)
    return None


def saved_names(node: Node) -> list[str]:
    """Under which names an operation saved tensors."""
    return [name.removeprefix("_raw_saved_") for name in dir(node) if name.startswith("_raw_saved_")]


def parts(graph: Graph, node: Node, index: int) -> tuple[Node | None, dict[int, Part]]:
    """Of an input that joins several tensors: the operation that joined them, and what each of them became.

    None and nothing where the input was not joined, or where the parts cannot be told in it.
    """
    joint: Node | None = graph.inputs[node][index][0]
    flattened = joint is not None and operation(joint) in ("View", "UnsafeView", "ReshapeAlias")
    if joint is not None and (flattened or operation(joint) == "ToCopy"):
        joint = graph.inputs[joint][0][0]
    if joint is None or operation(joint) not in ("Cat", "Stack"):
        return None, {}
    found = _parts_of(graph, joint)
    if flattened:
        found = _in_last_dimension(found, _shape(joint, 0), _shape(*graph.inputs[node][index]))
    return joint, found


def _parts_of(graph: Graph, joint: Node) -> dict[int, Part]:
    stacked = operation(joint) == "Stack"
    dim = signed(read_saved(joint, "dim")) % len(_shape(joint, 0))
    found, start = {}, 0
    for index, (made_by, output) in enumerate(graph.inputs[joint]):
        if made_by is None and not stacked:
            break  # the size of a constant has left no trace, and with it where the later ones begin
        length = 1 if stacked or made_by is None else _shape(made_by, output)[dim]
        found[index] = Part(dim, start, length)
        start += length
    return found


def _in_last_dimension(found: dict[int, Part], joined: Sequence[int], seen: Sequence[int]) -> dict[int, Part]:
    """The same parts where only the dimensions before the last one were flattened."""
    last = len(joined) - 1
    if joined[-1] != seen[-1] or any(part.dim != last for part in found.values()):
        return {}
    return {index: part._replace(dim=len(seen) - 1) for index, part in found.items()}


def signed(index: int) -> int:
    """A dimension as it was given: torch hands out one below 0 as its 64-bit pattern."""
    return index - 2**64 if index >= 2**63 else index


def _shape(made_by: Node, output: int) -> Sequence[int]:
    if hasattr(made_by, "variable"):
        return tuple(made_by.variable.shape)
    return tuple(made_by._input_metadata[output].shape)


def no_grad_nor_autocast() -> contextlib.ExitStack:
    """Computing here makes no graph and keeps its own types."""
    stack = contextlib.ExitStack()
    stack.enter_context(torch.no_grad())
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack
