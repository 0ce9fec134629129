"""Operations that are flat whatever comes in: which of them, and the reason that is given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradwatch.diagnose import Diagnosis


def attention(projected: Tensor) -> Tensor:
    tokens = projected.reshape(5, 1, 1, 4)
    return functional.scaled_dot_product_attention(tokens, torch.ones(5, 1, 1, 4), torch.ones(5, 1, 1, 4))


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (attention, "a softmax over one token is 1 whatever comes in"),
        (lambda x: x**0, "the power 0 is 1 whatever comes in"),
        (nn.GroupNorm(4, 4), "it normalises over one element"),
    ],
    ids=[
        "attention over one token",
        "power 0",
        "a normaliser over one element",
    ],
)
def test_what_it_makes_does_not_depend_on_what_comes_in(after: Callable[[Tensor], Tensor], reason: str) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 4))
    with Diagnosis(net) as diagnosis:
        after(net(torch.ones(5, 4)).mul(1.0)).sum().backward()
    found = diagnosis.causes["0"]
    assert found.kind == "constant"
    assert reason in str(found.evidence["reason"])


def test_a_normaliser_of_a_constant_gives_its_weight_nothing() -> None:
    net = nn.Sequential(nn.LayerNorm(4))
    with Diagnosis(net) as diagnosis:
        (net(torch.ones(5, 4)) * torch.arange(4.0)).sum().backward()
    found = diagnosis.causes["0.weight"]
    assert (found.kind, found.evidence["reason"]) == ("zero-input", "a constant input is normalised to 0")


def test_a_factor_that_a_limit_keeps_at_nothing_is_clamped() -> None:
    net = nn.ModuleDict({"gate": nn.Linear(4, 4), "value": nn.Linear(4, 4)})
    with torch.no_grad():
        net["gate"].bias.fill_(-40.0)
    with Diagnosis(net) as diagnosis:
        x = torch.ones(5, 4)
        (torch.maximum(net["gate"](x), torch.zeros(5, 4)) * net["value"](x)).sum().backward()
    found = diagnosis.causes["value"]
    assert (found.kind, found.evidence["factor_made_by"]) == ("clamped", "MaximumBackward0")
