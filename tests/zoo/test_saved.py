"""In every step of every loop, a model is saved, pickled and copied as if nobody looked, also while somebody does."""

from __future__ import annotations

import pytest

from tests.loops.frozen import differences
from tests.zoo.families import FAULTS, HEALTHY
from tests.zoo.run import Run, carried_out

LOOPS = {**FAULTS, **HEALTHY}


@pytest.mark.parametrize("name", LOOPS)
def test_saved_as_without_tracking(name: str) -> None:
    loop = LOOPS[name].loop
    bare, left = carried_out(loop, tracked=False, saving=True)
    looked_at, left_tracked = carried_out(loop, tracked=True, saving=True)
    assert differences(left, left_tracked) == []
    if differing(bare, looked_at):
        # Strings that Python shares: what the first run of a process has made, the later ones find.
        bare, _ = carried_out(loop, tracked=False, saving=True)
    assert differing(bare, looked_at) == []


def differing(one: Run, other: Run) -> list[tuple[int, str]]:
    """The iterations in which they were not the same, and what."""
    assert len(one.saved) == len(other.saved) > 0
    pairs = enumerate(zip(one.saved, other.saved, strict=True), 1)
    return [(step, what) for step, (a, b) in pairs for what in a.keys() | b.keys() if a.get(what) != b.get(what)]
