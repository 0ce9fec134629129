"""NaN and Inf where a checkpoint keeps the forward pass from being read: found in what was run anew, or not claimed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradwatch
from gradwatch.diagnose import Diagnosis
from gradwatch.diagnose.contributions import PACKED
from gradwatch.diagnose.graph import saved
from gradwatch.records import Cause
from tests.zoo.nets import batch

Net = dict[str, nn.Module]


def again(run: Callable[[Tensor], Tensor], *given: Tensor) -> Tensor:
    out: Tensor = checkpoint(run, *given, use_reentrant=True)
    return out


def cause_of(forward: Callable[[Net, Tensor], Tensor]) -> Cause:
    torch.manual_seed(0)
    net: Net = {name: nn.Linear(4, 4) for name in ("first", "second", "third")}
    diagnosis = Diagnosis(net)
    with diagnosis:
        forward(net, batch(3, 4)).square().mean().backward()
    return diagnosis.causes["third"]


def made_inside(net: Net, x: Tensor) -> Tensor:
    return net["third"](again(lambda h: torch.log(net["second"](h) - 100), net["first"](x)))


def made_in_an_inner_one(net: Net, x: Tensor) -> Tensor:
    return net["third"](again(lambda h: again(lambda g: torch.log(net["second"](g) - 100), h), net["first"](x)))


def made_before(net: Net, x: Tensor) -> Tensor:
    return net["third"](again(net["second"], torch.log(net["first"](x) - 100)))


def made_before_another(net: Net, x: Tensor) -> Tensor:
    return again(net["third"], again(lambda h: torch.log(net["second"](h) - 100), net["first"](x)))


def made_behind(net: Net, x: Tensor) -> Tensor:
    return torch.log(net["third"](again(net["second"], net["first"](x))) - 100)


@pytest.mark.parametrize(
    "forward", [made_inside, made_in_an_inner_one, made_before, made_before_another, made_behind]
)
def test_the_operation_is_named_wherever_a_re_entrant_checkpoint_lies(
    forward: Callable[[Net, Tensor], Tensor],
) -> None:
    found = cause_of(forward)
    assert (found.kind, found.evidence["operation"], found.evidence["output"]) == (
        "nonfinite-op", "LogBackward0", "NaN",
    )  # fmt: skip


def test_data_that_are_not_finite_come_in_inside_of_it_too() -> None:
    data = batch(3, 4)
    data[0, 0] = math.nan
    found = cause_of(lambda net, x: net["third"](again(lambda h: h + net["second"](data), net["first"](x))))
    assert found.kind == "nonfinite-loss"
    assert "first_nonfinite_input_of" in found.evidence


def plainly_checkpointed(net: Net, x: Tensor) -> Tensor:
    hidden: Tensor = checkpoint(lambda h: torch.log(net["second"](h) - 100), net["first"](x), use_reentrant=False)
    return net["third"](hidden)


def offloaded(net: Net, x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return net["third"](torch.log(net["second"](net["first"](x)) - 100))


def all_checkpointed(net: Net, x: Tensor) -> Tensor:
    out: Tensor = checkpoint(lambda h: torch.log(net["third"](net["second"](net["first"](h))) - 100), x,
                             use_reentrant=False)  # fmt: skip
    return out


@pytest.mark.parametrize("forward", [offloaded, all_checkpointed])
def test_what_cannot_be_read_is_not_said_to_have_come_in(forward: Callable[[Net, Tensor], Tensor]) -> None:
    found = cause_of(forward)
    if forward is offloaded and not saved._TELLS_OF_HOOKS:
        # Such a torch is asked for what is packed, and what lies elsewhere is given out as often as it is asked for.
        assert (found.kind, found.evidence["operation"]) == ("nonfinite-op", "LogBackward0")
        return
    assert found.kind == "unknown"
    assert found.evidence["reason"] == PACKED


def test_what_is_proved_beside_it_is_told_all_the_same() -> None:
    assert cause_of(plainly_checkpointed).kind != "nonfinite-loss"
    data = batch(3, 4)
    data[0, 0] = math.nan
    found = cause_of(lambda net, x: all_checkpointed(net, x).exp() * net["first"](data))
    assert found.kind == "nonfinite-loss"
    assert "first_nonfinite_input_of" in found.evidence


def test_a_run_is_told_so_and_not_that_a_guard_would_find_it() -> None:
    torch.manual_seed(0)
    net: Net = {name: nn.Linear(4, 4) for name in ("first", "second", "third")}
    optimizer = torch.optim.SGD([p for part in net.values() for p in part.parameters()], lr=0.01)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(3):
            all_checkpointed(net, batch(3, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    known = [alert.cause for alert in watch.alerts if alert.rule == "nonfinite" and alert.state == "explained"]
    assert [cause.evidence["reason"] for cause in known if cause is not None] == [PACKED]
