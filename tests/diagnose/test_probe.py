"""An operation asked in its own hook answers by its own formula, and nothing is changed by that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gradwatch.diagnose.graph.walk import Graph, is_leaf, root_of
from gradwatch.diagnose.look.probe import Answer, Probe


class Own(torch.autograd.Function):
    """Would count how often it is asked."""

    asked = 0

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        Own.asked += 1
        return gradient * 0


def answer(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor | None = None) -> Answer:
    """Of the operation that a function ends with."""
    x = x.clone().requires_grad_()
    out = function(x)
    said: list[Answer] = []

    def ask(outgoing: tuple[Tensor | None, ...], incoming: tuple[Tensor | None, ...]) -> None:
        said.append(Probe(out.grad_fn, incoming, outgoing).answer(0))

    out.grad_fn.register_hook(ask)
    before = torch.get_rng_state()
    out.backward(torch.ones_like(out) if gradient is None else gradient)
    assert torch.equal(torch.get_rng_state(), before)
    return said[0]


@pytest.mark.parametrize(
    ("function", "x", "gradient", "right"),
    [
        (torch.relu, torch.tensor([-1.0, -2.0]), None, "flat"),
        (torch.tanh, torch.tensor([40.0]), None, "flat"),
        (lambda x: x * torch.zeros(3), torch.full((3,), 1 + 1j), None, "flat"),
        (
            lambda x: x @ torch.full((3, 3), 1e-30 + 0j),
            torch.ones(1, 3) + 0j,
            torch.full((1, 3), 1e-20j),
            "underflow",
        ),
        # Alive, but not where the gradient came in.
        (torch.relu, torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 0.0]), "flat"),
        (torch.tanh, torch.tensor([5.0]), torch.tensor([1e-43]), "underflow"),
        (lambda x: x * 1e-30, torch.ones(2), torch.full((2,), 1e-20), "underflow"),
        # One and the same gradient for all candidates is none for a softmax.
        (lambda x: x.softmax(0), torch.zeros(2), None, "cancelled"),
        (Own.apply, torch.ones(2), None, "unasked"),
    ],
)
def test_what_it_answers(
    function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor | None, right: Answer
) -> None:
    Own.asked = 0
    assert answer(function, x, gradient) == right
    assert Own.asked == (right == "unasked")


def test_asked_again_each_operation_gives_what_the_engine_got() -> None:
    """Also of what is written in place, of attention, of a recurrent layer and of dropout."""
    torch.manual_seed(0)
    layer, rnn = (
        torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.nn.LSTM(8, 8, batch_first=True),
    )
    out = rnn(layer(torch.randn(2, 3, 8)))[0].clone()
    out[0] = functional.gelu(out[1].clone())
    loss = functional.cross_entropy(out.flatten(0, 1), torch.arange(6))
    asked: list[bool] = []

    def hooked(node: object) -> Callable[..., None]:
        def hook(outgoing: tuple[Tensor | None, ...], incoming: tuple[Tensor | None, ...]) -> None:
            probe = Probe(node, incoming, outgoing)
            if probe.can_be_asked:
                with torch.no_grad():
                    again = [probe._made(probe._ask(incoming), index) for index in range(len(outgoing))]
                pairs = [(one, other) for one, other in zip(again, outgoing, strict=True) if other is not None]
                asked.append(all(torch.equal(one, other) for one, other in pairs))

        return hook

    for node in Graph([root_of(loss)]).order:
        if not is_leaf(node):
            node.register_hook(hooked(node))
    loss.backward()
    assert len(asked) > 20
    assert all(asked)


@pytest.mark.parametrize(("name", "asked"), [("TanhBackward0", True), ("CudnnRnnBackward0", False)])
def test_what_uses_up_what_it_saved_is_not_asked(name: str, asked: bool) -> None:
    class Node:
        def name(self) -> str:
            return name

    assert Probe(Node(), [torch.ones(1)], [torch.ones(1)]).can_be_asked == asked
