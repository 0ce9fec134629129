"""The first steps of each usual recipe of ``python -m tests.healthy --recipes``: they run, and nothing is critical."""

from __future__ import annotations

import pytest

from tests.healthy.run import Workload, carried_out
from tests.interop.library import library

library("stable_baselines3")

from tests.healthy.first_steps import AGENTS, FIRST, largest_jump, sequences  # noqa: E402
from tests.healthy.recipes import RECIPES  # noqa: E402
from tests.healthy.warm_ups import WARM_UPS  # noqa: E402

pytestmark = pytest.mark.interop


TRIED = (*RECIPES, WARM_UPS[0])


@pytest.mark.parametrize("workload", TRIED, ids=[workload.name for workload in TRIED])
def test_the_first_steps(workload: Workload) -> None:
    outcome = carried_out(workload, 1, 12)
    assert sum(outcome.steps.values()) >= 12
    assert outcome.count("critical") == 0


def test_how_far_a_run_jumps() -> None:
    assert largest_jump([1.0, 1.0, 10.0, 12.0, 11.0]) == 11.0
    assert largest_jump([4.0, 2.0, 1.0, 1.0]) < 1.0
    a2c = next(agent for agent in AGENTS if agent.name == "A2C on CartPole-v1")
    (norms,) = sequences(a2c, 0, None).values()
    assert len(norms) == FIRST
    assert min(norms) > 0.0
