"""Every planted fault is found and its cause told; every healthy loop stays silent."""

from __future__ import annotations

import pytest

from tests.zoo.families import FAULTS, HEALTHY
from tests.zoo.judged import judged_fault, judged_healthy


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    complaints = judged_fault(FAULTS[name]).complaints
    if complaints:
        pytest.fail("\n".join(["", *complaints]), pytrace=False)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy(name: str) -> None:
    complaints = judged_healthy(HEALTHY[name]).complaints
    if complaints:
        pytest.fail("\n".join(["", *complaints]), pytrace=False)
