"""What torch.compile hides is said to be hidden, and is not compiled again for being looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

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


class Scaled(nn.Module):
    """Not a module of torch's own, which the compiler calls in another way."""

    def __init__(self, hook: bool) -> None:
        super().__init__()
        self.inner = saturated()
        if hook:
            self.inner[0].register_forward_hook(lambda _module, _args, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 0.5


def wrapped(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(net, backend="aot_eager", fullgraph=True)


def inside_another(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(nn.Sequential(net), backend="aot_eager", fullgraph=True)


def in_place(net: nn.Module) -> Callable[[Tensor], Tensor]:
    net.compile(backend="aot_eager", fullgraph=True)
    return net


def in_a_function(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(lambda x: net(x), backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize("hook", [False, True])
@pytest.mark.parametrize("first_compiled", ["before", "while armed", "in between"])
@pytest.mark.parametrize("way", [wrapped, inside_another, in_place, in_a_function])
def test_compiled_once_whether_it_is_looked_at_or_not(
    way: Callable[[nn.Module], Callable[[Tensor], Tensor]], first_compiled: str, hook: bool
) -> None:
    net, x = Scaled(hook), batch(3, 4)
    compiled = way(net) if first_compiled != "while armed" else None
    if first_compiled == "before":
        compiled(x).sum().backward()
    with Diagnosis(net) as diagnosis:
        compiled = way(net) if compiled is None else compiled
        compiled(x).sum().backward()
    compiled(x).sum().backward()
    assert graphs() == 1
    assert diagnosis.errors == []


def test_what_is_compiled_in_place_is_itself_seen_to_be_called() -> None:
    net, head, x = Scaled(False), nn.Linear(1, 1), batch(3, 4)
    in_place(net)
    with Diagnosis({"net": net, "head": head}) as diagnosis:
        head(net(x).detach()).sum().backward()
    assert (diagnosis.causes["net"].kind, diagnosis.causes["net"].where) == ("detached", "net")
