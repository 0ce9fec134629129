"""Evaluations within a training are brief: whole ones take most of its time, and are tested by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gymnasium.wrappers import TimeLimit

from examples.carla_td3 import td3

DECISIONS = 20


@pytest.fixture(scope="package", autouse=True)
def brief_evaluations() -> Iterator[None]:
    whole = td3.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(td3, "evaluate", lambda act, env, *more: whole(act, TimeLimit(env, DECISIONS), *more))
        yield
