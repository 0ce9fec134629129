"""A question to an operation itself: what would its backward formula make of another gradient?

In the hook that follows an operation's backward, what it saved is still alive, and the operation can be called
from Python: that runs its formula and frees nothing. Which operations may be asked: docs/decisions/0019.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from gradwatch.diagnose.graph.catalogue import UNKNOWN
from gradwatch.diagnose.graph.saved import is_packed
from gradwatch.diagnose.graph.walk import Node, row_of
from gradwatch.diagnose.look.numbers import largest, stored

__all__ = ["Answer", "Probe"]

Answer = Literal["underflow", "flat", "cancelled", "unasked"]

# torch's own generated operations: those of Python's functions, of extensions and of compilers may do anything.
_GENERATED = re.compile(r"^\w+Backward\d+$")


class Probe:
    """Asks one operation, in its own hook.

    Args:
        node: the operation.
        incoming: gradients that came to it.
        outgoing: gradients that it handed on; tell shape and type of each.

    Attributes:
        node, incoming, outgoing: the same; of what came in, the values that are stored.
    """

    def __init__(self, node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None]) -> None:
        self.node = node
        self.incoming = [None if gradient is None else stored(gradient) for gradient in incoming]
        self.outgoing = outgoing

    def answer(self, index: int, part: Callable[[Tensor], Tensor] | None = None) -> Answer:
        """Why nothing was handed on to an input, or to a part of it.

        ``underflow``: the formula gives something for the same gradient at a size of 1. ``flat``: it gives exactly
        0 for every gradient at the elements that one came in for. ``cancelled``: it gives something for another.
        """
        if not self.can_be_asked:
            return "unasked"
        made = (self._made(gradients, index) for gradients in (self._scaled, *self._live))
        scaled, *live = (largest(one if part is None else part(one)) for one in made)
        return "underflow" if scaled else "cancelled" if any(live) else "flat"

    def slopes(self, index: int) -> Tensor | None:
        """What the input gets of a gradient of ones; of an elementwise operation, its slopes."""
        return self._made(self._ones, index) if self.can_be_asked else None

    @cached_property
    def can_be_asked(self) -> bool:
        """Whether the operation's formula may be run again."""
        if not _GENERATED.match(self.node.name()) or (row_of(self.node) or UNKNOWN).once:
            return False
        return not is_packed(self.node)

    def _made(self, handed_on: Sequence[Tensor | None], index: int) -> Tensor:
        """As the engine takes it: in the shape and type of the input."""
        made, like = handed_on[index], self.outgoing[index]
        if made is None or like is None:
            return torch.zeros(())
        return stored(made).sum_to_size(like.shape).to(like.dtype)

    @cached_property
    def _scaled(self) -> Sequence[Tensor | None]:
        return self._ask([None if g is None else _at_size_one(g) for g in self.incoming])

    @cached_property
    def _live(self) -> Sequence[Sequence[Tensor | None]]:
        live = [None if g is None else (g != 0).to(g.dtype) for g in self.incoming]
        return self._ask(live), self._ask([None if g is None else g * _signs(g) for g in live])

    @cached_property
    def _ones(self) -> Sequence[Tensor | None]:
        return self._ask([None if g is None else torch.ones_like(g) for g in self.incoming])

    def _ask(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        made = self.node(*gradients)
        return made if isinstance(made, tuple) else (made,)


def _at_size_one(gradient: Tensor) -> Tensor:
    """Times the power of 2 that brings it near 1: no digit is lost."""
    exponent = -math.frexp(largest(gradient) or 1.0)[1]
    # In two steps, since the power itself may be beyond the type's largest number.
    return gradient * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)


def _signs(like: Tensor) -> Tensor:
    """Signs without a pattern that anything else could have; no random number is drawn."""
    turns = torch.arange(like.numel(), dtype=torch.float64, device=like.device) * ((math.sqrt(5) - 1) / 2)
    return (1 - 2 * (turns.frac() > 0.5).to(like.real.dtype)).reshape(like.shape)
