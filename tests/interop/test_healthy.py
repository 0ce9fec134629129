"""The beginning of each healthy training of ``make healthy``: it learns, and the default rules say nothing."""

from __future__ import annotations

import pytest

from tests.healthy.run import Workload, carried_out
from tests.interop.library import library

library("stable_baselines3")
library("transformers")

from tests.healthy.workloads import WORKLOADS  # noqa: E402

pytestmark = pytest.mark.interop

STEPS = {"td3": 450, "ppo": 320, "gpt": 200, "resnet": 200}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_the_first_steps(workload: Workload) -> None:
    outcome = carried_out(workload, 1, STEPS[workload.name])
    assert sum(outcome.steps.values()) == STEPS[workload.name]
    assert outcome.episodes == ()
    # An agent needs more steps than these.
    assert outcome.has_learned or workload.goal == "return"
