"""What all tests have in common: each is the same in every run, and leaves nothing behind for the next."""

from __future__ import annotations

import os
import socketserver
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

# Made-up values are the same in each run, and a machine that is busy is no fault.
hypothesis.settings.register_profile("gradwatch", deadline=None, derandomize=True)
hypothesis.settings.load_profile("gradwatch")

# How often Python's server looks whether it is to end: every half a second, which each test would wait that opens one.
socketserver.BaseServer.serve_forever.__defaults__ = (0.02,)


@pytest.fixture(autouse=True, scope="session")
def logs_of_agents(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stable-Baselines3 makes a folder for each agent, among those of the machine where nothing else is said."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("agents"))


@pytest.fixture(autouse=True)
def the_same_numbers() -> None:
    """What torch draws does not depend on the tests before."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """A diagnosis is careful in a process that has compiled something; torch counts that over all tests."""
    yield
    compiler = sys.modules.get("torch._dynamo.utils")
    if compiler is not None:
        compiler.counters.clear()


# One call each, or a few, that take a minute: side by side nothing is left beside the last of them.
LONG = ("tests/unseen/", "tests/zoo/", "tests/ranks/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side, a file of tests stays in one process; one with few tests that take long does not."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith("tests/ranks/"):
                return "tests/ranks"  # the ranks are started once
            return nodeid if nodeid.startswith("tests/unseen/") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # which would put files with few tests last
    return ByFile(config, log)
