import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.monitoring.live.processes import running, wait_for
from tests.monitoring.live.scale import scaled

STARTS_ONE = """
import time
from tests.monitoring.live.processes import running
with running(["sleep", "600"]) as process:
    print(process.pid, flush=True)
    time.sleep(600)
"""


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # One that nobody has waited for is dead too.
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"


def test_what_runs_is_gone_when_the_block_is_left_by_an_error():
    with pytest.raises(KeyboardInterrupt), running(["sleep", "600"]) as process:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv of util-linux is not here")
def test_what_runs_is_gone_when_we_are_killed():
    with running([sys.executable, "-c", STARTS_ONE], stdout=subprocess.PIPE, text=True) as ours:
        pid = int(ours.stdout.readline())
        # From then on it dies with whoever has started it.
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", 10, "the process to run")
        ours.kill()
        ours.wait()
        assert wait_for(lambda: is_gone(pid), 10, "the process to be gone")


def test_only_durations_are_shortened():
    text = "increase(x_5m[5m]) > 300 or y offset 1h\n  for: 0s\n  summary: 'five minutes, 60 s, le=\"5.0\"'"
    assert scaled(text) == text.replace("[5m]", "[10s]").replace("300", "10").replace("1h", "120s")
