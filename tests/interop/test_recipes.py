"""The first steps of each usual recipe of ``python -m tests.healthy --recipes``: they run, and nothing is critical."""

from __future__ import annotations

import pytest

from tests.healthy.run import Workload, carried_out
from tests.interop.library import library

library("stable_baselines3")

from tests.healthy.recipes import RECIPES  # noqa: E402
from tests.healthy.warm_ups import WARM_UPS  # noqa: E402

pytestmark = pytest.mark.interop


TRIED = (*RECIPES, WARM_UPS[0])


@pytest.mark.parametrize("workload", TRIED, ids=[workload.name for workload in TRIED])
def test_the_first_steps(workload: Workload) -> None:
    outcome = carried_out(workload, 1, 12)
    assert sum(outcome.steps.values()) >= 12
    assert outcome.count("critical") == 0
