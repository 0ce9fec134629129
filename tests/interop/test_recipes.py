"""The first steps of each usual recipe of ``python -m tests.healthy --recipes``: they run, and nothing is critical."""

from __future__ import annotations

import pytest

from tests.healthy.run import Workload, carried_out
from tests.interop.library import library

library("stable_baselines3")

from tests.healthy.recipes import RECIPES  # noqa: E402

pytestmark = pytest.mark.interop


# Name -> what is said there and should not be.
OPEN = {
    "gan-hinge": "Under a spectral norm the last layer owns nothing but its bias, whose gradient cancels: a critical zero.",
}

EACH = [
    pytest.param(
        w, id=w.name, marks=[pytest.mark.xfail(strict=True, reason=OPEN[w.name])] if w.name in OPEN else []
    )
    for w in RECIPES
]


@pytest.mark.parametrize("workload", EACH)
def test_the_first_steps(workload: Workload) -> None:
    outcome = carried_out(workload, 1, 12)
    assert sum(outcome.steps.values()) >= 12
    assert outcome.count("critical") == 0
