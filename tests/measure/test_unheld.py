"""Parameters that no optimizer holds are told of once they have a gradient."""

import torch
from torch import nn

from gradwatch.measure.unheld import Unheld
from gradwatch.records import OUTSIDE


def test_those_that_have_a_gradient_are_told_of_by_module() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    unheld = Unheld()
    assert unheld.with_gradients() == {}
    unheld.modules = {name: list(part.named_parameters()) for name, part in model.named_children()}
    model[1](torch.ones(1, 2)).sum().backward()
    assert unheld.with_gradients() == {"1": ("weight", "bias")}
    model[1].weight.grad = None
    assert unheld.with_gradients() == {"1": ("bias",)}


def test_a_stray_is_told_of_until_somebody_writes_to_it() -> None:
    first, second = (torch.ones(2, requires_grad=True) for _ in range(2))
    unheld = Unheld()
    unheld.add_strays([("first", first, first._version)])
    unheld.add_strays([("second", second, second._version)])
    assert unheld.with_gradients() == {}
    (first + second).sum().backward()
    assert unheld.with_gradients() == {OUTSIDE: ("first", "second")}
    with torch.no_grad():
        first.sub_(first.grad)
    assert unheld.with_gradients() == {OUTSIDE: ("second",)}
