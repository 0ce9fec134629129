"""A training that is killed leaves a JSONL file that can be read, in which at most the last block is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.killed import BLOCK

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

KILLS = 25


@pytest.mark.parametrize("options", [[], ["--beside-a-slow-sink"]], ids=["alone", "beside a slow sink"])
def test_at_most_the_last_block_is_missing(options):
    command = [sys.executable, "-m", "tests.soak.killed", str(KILLS), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == KILLS
    for one in found:
        # "reached": each child waits until all but the last block that it handed over are written.
        assert all(one[name] for name in ("killed", "reached", "in a row", "readable")), one
        # The block that is being filled, and the one before it.
        assert one["missing"] <= 2 * BLOCK, one
