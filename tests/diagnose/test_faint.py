"""What took a gradient's size: one operation, or many, counted in decades."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradwatch.diagnose import Diagnosis
from gradwatch.diagnose.look.site import Finding
from gradwatch.diagnose.reasons.attenuation import Edge, of_most
from tests.zoo.nets import batch, filled


def losses(*decades: float) -> list[Edge]:
    nodes = (torch.ones((), requires_grad=True).tanh().grad_fn for _ in decades)
    return [Edge("operation", node, 0, 0, lost) for node, lost in zip(nodes, decades, strict=True)]


def test_one_that_took_most_is_blamed() -> None:
    found = losses(0.5, 9.0, 1.0)
    most, numbers = of_most(found, lambda _: Finding("unknown", {}))
    assert most is found[1]
    assert numbers == {"decades_lost": 10.5, "operations_that_lose": 3, "decades_lost_here": 9.0}


@pytest.mark.parametrize("decades", [(4.5, 4.5), (3.9,), (6.0, 1.0, 1.0, 1.0), ()])
def test_nobody_is_blamed_without_an_overwhelming_share(decades: tuple[float, ...]) -> None:
    assert of_most(losses(*decades), lambda _: Finding("unknown", {}))[0] is None


def test_a_mean_over_many_elements_is_no_loss() -> None:
    """Each of 10,000 elements gets 1e-4, and all of them are added up again in the weight."""
    net, x = nn.Linear(4, 4), batch(2500, 4)
    with Diagnosis({"net": net}) as diagnosis:
        (net(x).mean() * 1e-9).backward()
    found = diagnosis.faint["net.weight"]
    assert found.kind == "zero-loss"
    assert found.evidence["operation"] == "MulBackward0"
    assert found.evidence["decades_lost_here"] == pytest.approx(9.0, abs=0.01)


def test_nothing_is_said_of_a_gradient_that_is_not_small() -> None:
    net, x = nn.Linear(4, 4), batch(3, 4)
    with Diagnosis({"net": net}) as diagnosis:
        net(x).mean().backward()
    assert diagnosis.faint == {}


def test_of_several_passes_the_one_that_gave_most_counts() -> None:
    net, x = filled(nn.Linear(4, 4), bias=-30.0), batch(3, 4)
    with Diagnosis({"net": net}) as diagnosis:
        (torch.sigmoid(net(x)).sum() * 1e-30).backward()
        torch.sigmoid(net(x)).sum().backward()
    assert diagnosis.faint["net.weight"].kind == "saturated-sigmoid"


@pytest.mark.parametrize(
    ("act", "bias", "kind"),
    [
        (torch.sigmoid, -30.0, "saturated-sigmoid"),
        (torch.tanh, 8.9, "saturated-tanh"),
        (functional.elu, -30.0, "dead-relu"),
        (functional.softplus, -30.0, "dead-relu"),
        (functional.silu, -35.0, "saturated-sigmoid"),
    ],
)
def test_a_slope_that_is_next_to_nothing(act: object, bias: float, kind: str) -> None:
    net, x = filled(nn.Linear(4, 4), bias=bias), batch(3, 4)
    with torch.no_grad():
        net.weight.mul_(0.01)  # type: ignore[operator,union-attr]
    with Diagnosis({"net": net}) as diagnosis:
        act(net(x)).sum().backward()  # type: ignore[operator]
    found = diagnosis.faint["net.weight"]
    assert found.kind == kind
    assert 0 < found.evidence["largest_slope"] < 1e-5
    assert found.evidence["behind"] == "net"


@pytest.mark.parametrize("act", [functional.softmax, functional.log_softmax])
def test_a_softmax_is_not_saturated_where_it_got_the_same_for_all_candidates(act: object) -> None:
    """What it hands on is a rounding error: the sum of all candidates does not depend on any of them."""
    torch.manual_seed(3)
    net, x = nn.Linear(4, 4), batch(3, 4)
    with Diagnosis({"net": net}) as diagnosis:
        out = act(net(x), dim=1)  # type: ignore[operator]
        shares = net(x).detach().softmax(1)
        out.backward(torch.ones(3, 4) if act is functional.softmax else shares)
    assert shares.max() < 0.9
    assert net.weight.grad is not None
    assert 0 < float(net.weight.grad.abs().max()) < 1e-6
    found = diagnosis.faint["net.weight"]
    assert found.kind == "unknown"
    assert found.evidence["ruled_out"] == "saturated-sigmoid"


def test_a_policy_that_is_nearly_dead() -> None:
    """Few units are not flat, and they bring the gradient: three decades are lost, and its tanh is the cause."""
    torch.manual_seed(0)
    net, x = filled(nn.Linear(4, 40), weight=0.0, bias=4.7), batch(3, 4)
    with Diagnosis({"net": net}) as diagnosis:
        (torch.tanh(net(x)).sum() * 5e-4).backward()
    found = diagnosis.faint["net.weight"]
    assert found.kind == "saturated-tanh"
    assert found.evidence["share_flat"] == 1.0
    assert 3.0 <= found.evidence["decades_lost_here"] < 4.0


def test_what_is_lost_little_by_little_has_a_remedy_though_no_operation_is_to_blame() -> None:
    net = nn.Sequential(*(layer for _ in range(20) for layer in (nn.Linear(16, 16), nn.Sigmoid())))
    with Diagnosis({"net": net}) as diagnosis:
        net(batch(8, 16)).mean().backward()
    found = diagnosis.faint["net.0.weight"]
    assert found.kind == "unknown"
    assert "little by little" in str(found)
    assert found.remedy.startswith("Normalise between the layers")


def test_a_hinge_that_is_kept_has_elements_and_no_units() -> None:
    net = filled(nn.Linear(4, 1), bias=-9.0)
    with Diagnosis({"net": net}) as diagnosis:
        torch.relu(net(torch.zeros(3, 4)).squeeze() + 1).mean().backward()
    found = diagnosis.causes["net.weight"]
    assert found.evidence["elements"] == 3
    assert str(found).startswith("zero-loss at Relu (all at 0, ")
