"""Where an operation is said to be: its module, what feeds it, the line that made it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradwatch.diagnose import Diagnosis
from gradwatch.records import Cause
from tests.zoo.nets import batch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.layer(x) * 0)


def cause_of(net: nn.Module, x: Tensor) -> Cause:
    with Diagnosis({"net": net}) as diagnosis:
        net(x).sum().backward()
    return diagnosis.causes["net.layer.weight"]


def test_under_anomaly_mode_the_line_is_told_that_made_it() -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly(check_nan=False):
        found = cause_of(Net(), batch(3, 4))
    assert (found.kind, found.evidence["operation"]) == ("nonfinite-op", "LogBackward0")
    assert "in forward return torch.log(self.layer(x) * 0)" in str(found.evidence["line"])
    assert "test_place.py" in str(found.evidence["line"])


def test_without_it_no_line_is_told() -> None:
    torch.manual_seed(0)
    assert "line" not in cause_of(Net(), batch(3, 4)).evidence


def test_a_nan_that_came_in_is_told_of_by_the_module_and_the_line_that_it_came_into() -> None:
    x = batch(3, 4)
    x[1] = math.nan
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly(check_nan=False):
        found = cause_of(Net(), x)
    assert found.kind == "nonfinite-loss"
    assert found.evidence["first_nonfinite_input_of"] == "net.layer"
    assert "self.layer(x)" in str(found.evidence["line"])


def test_what_a_cast_made_of_finite_data_did_not_come_in_with_them() -> None:
    net = Net()
    net.forward = lambda x: net.layer(x)  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.float16):
        found = cause_of(net, torch.full((3, 4), 1e6))
    assert (found.kind, found.where) == ("nonfinite-op", "net.layer")
    assert found.evidence["input_max"] == 1e6
    assert "cast" in str(found.evidence["reason"])
