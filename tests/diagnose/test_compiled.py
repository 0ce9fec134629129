"""What torch.compile hides is said to be hidden, and is not compiled again for being looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gradwatch.diagnose import Diagnosis
from tests.zoo.nets import batch, filled

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    counters.clear()


def graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def saturated() -> nn.Sequential:
    return nn.Sequential(filled(nn.Linear(4, 4), bias=40.0), nn.Tanh(), nn.Linear(4, 1))


def test_a_compiled_module_is_no_guess_and_is_not_compiled_again() -> None:
    net, x = saturated(), batch(3, 4)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    compiled(x).sum().backward()
    before = graphs()
    with Diagnosis({"net": net, "compiled": compiled}) as diagnosis:
        compiled(x).sum().backward()
    compiled(x)
    assert graphs() == before
    cause = diagnosis.causes["net.0"]
    assert cause.kind == "unknown"
    assert "torch.compile" in cause.evidence["reason"]
    assert diagnosis.errors == []


def test_first_compiled_while_armed() -> None:
    net, x = saturated(), batch(3, 4)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with Diagnosis(net) as diagnosis:
        compiled(x).sum().backward()
    assert diagnosis.causes["0"].kind == "unknown"
    assert diagnosis.errors == []


def test_calls_inside_are_not_seen_and_not_said_to_be_none() -> None:
    net, head, x = saturated(), nn.Linear(1, 1), batch(3, 4)
    compiled = torch.compile(net, backend="aot_eager")
    with Diagnosis({"net": net, "head": head}) as diagnosis:
        head(compiled(x).detach()).sum().backward()
    assert diagnosis.causes["net"].kind == "unknown"
    with Diagnosis({"net": compiled, "head": head}) as diagnosis:
        head(compiled(x).detach()).sum().backward()
    assert diagnosis.causes["net"].kind != "unused"


def test_a_loss_that_is_not_finite_leaves_no_error() -> None:
    """What a compiled function saved is freed before its hook runs, and torch raises where it is asked for."""
    net, x = saturated(), batch(3, 4)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with Diagnosis({"net": net}) as diagnosis:
        (compiled(x).sum() * math.nan).backward()
    assert diagnosis.errors == []
    assert diagnosis.causes["net.0"].kind == "nonfinite-loss"
