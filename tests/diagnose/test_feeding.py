"""The loss that reaches one module around another."""

from __future__ import annotations

import math

import pytest
import torch

from gradwatch.diagnose import Diagnosis, shortcut
from tests.zoo.still_slopes import ActorCritic

FED = {"cnn": {"mlp"}}


def test_the_seeds_agent() -> None:
    torch.manual_seed(3)
    agent = ActorCritic()
    lines = {name: module.parameters() for name, module in agent.modules().items()}
    with Diagnosis(agent.modules(), lines=lines) as diagnosis:
        agent.actor_step()
    norms = {
        name: math.sqrt(math.fsum(float(p.grad.double().square().sum()) for p in module.parameters()))
        for name, module in agent.modules().items()
    }
    assert norms["actor_mlp"] == 0.0 < norms["actor_cnn"]
    found = shortcut(norms, diagnosis.downstream)
    assert found is not None
    assert (found.kind, found.where) == ("shortcut", "actor_cnn")
    assert found.evidence["share"] == 1.0
    assert found.evidence["silent"] == "actor_mlp"
    assert diagnosis.causes["actor_mlp"].kind == "saturated-tanh"


@pytest.mark.parametrize(
    ("norms", "fed"),
    [
        ({"cnn": 5.0, "mlp": 1e-9}, FED),  # small is not zero
        ({"cnn": 5.0, "mlp": 0.0}, {}),  # side by side
        ({"cnn": 0.0, "mlp": 5.0}, FED),  # the silent one is upstream: no way around it
        ({"cnn": 1.0, "mlp": 0.0, "other": 1.0}, FED),  # not nearly all of it
        ({"cnn": 0.0, "mlp": 0.0}, FED),
        ({"cnn": math.nan, "mlp": 0.0}, FED),
        ({}, FED),
    ],
)
def test_what_is_none(norms: dict[str, float], fed: dict[str, set[str]]) -> None:
    assert shortcut(norms, fed) is None


def test_beside_a_norm_that_is_not_finite() -> None:
    found = shortcut({"cnn": 5.0, "mlp": 0.0, "other": math.nan}, FED)
    assert found is not None
    assert found.where == "cnn"
