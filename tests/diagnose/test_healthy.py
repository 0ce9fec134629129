"""Healthy loops have no causes, and are left as they are bit for bit."""

from __future__ import annotations

import pytest
import torch

from gradwatch.diagnose import Diagnosis
from tests.diagnose.loops import LOOPS, Healthy

STEPS = 4


def built(name: str) -> Healthy:
    torch.manual_seed(11)
    return LOOPS[name]()


@pytest.mark.parametrize("name", LOOPS)
def test_no_cause_and_nothing_changed(name: str) -> None:
    bare = built(name)
    for _ in range(STEPS):
        bare.step()

    watched = built(name)
    for number in range(STEPS):
        if number % 2:
            watched.step()
            continue
        with Diagnosis(watched.modules) as diagnosis:
            watched.step()
        assert diagnosis.errors == []
        assert diagnosis.causes == {}
        assert diagnosis.passes >= 1
    assert watched.state() == bare.state()


def test_the_comparison_can_fail() -> None:
    one, other = built("mlp"), built("mlp")
    one.step()
    other.step()
    assert one.state() == other.state()
    with torch.no_grad():
        other.parameters[0].grad[0, 0] += 1e-7
    assert one.state() != other.state()
