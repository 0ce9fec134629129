"""Threads that train at once, each with a tracker: nobody touches a gradient that another's backward is writing.

The engine writes ``.grad`` without the interpreter's lock, so that a read at the wrong moment ends the process: hence
a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading, torch, gradwatch
from torch import nn

def train(limit):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model, rules=()) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.ones(4)).sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
    assert len(watch.history) == 20 and watch.health().internal_errors == 0

for _ in range(40):
    threads = [threading.Thread(target=train, args=(limit,)) for limit in (0.5, 1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_no_tracker_touches_what_another_thread_writes() -> None:
    ran = subprocess.run([sys.executable, "-X", "faulthandler", "-c", SCRIPT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stderr == ""
