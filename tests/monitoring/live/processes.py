"""Processes of our own, and waiting for what they do."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


@contextmanager
def running(command, folder=ROOT, **options):
    """A process that is gone when the block is left, or when we are killed."""
    setpriv = shutil.which("setpriv")
    mortal = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with subprocess.Popen([*mortal, *command], cwd=folder, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition, seconds, what):
    """What the condition gives, once that is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.1)
    return found
