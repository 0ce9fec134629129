"""The step rate while 200 scrapers, once a second each, and 200 clients that ask for nothing come to the endpoint.

In turns with that while the same crowd comes to the endpoint of another process, so that what the crowd itself takes of the
machine is in both. ``python -m tests.soak.crowd [SCRAPERS SLOW]``

A machine that is shared changes its speed within seconds: so the turns are short and many, and beside the rate there is
the time on a core that each step took, of the thread that trains and of the whole process, which is less disturbed.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import nn

import gradwatch

TURNS, SECONDS = 40, 1.5
# For those who come to have come, and for those who go to have gone.
SETTLING_SECONDS = 1.0


class Rate(NamedTuple):
    """What a step took, in seconds: by the clock, and on a core."""

    clock: float
    thread: float
    process: float


def clients(port: int, scrapers: int, slow: int) -> None:
    """Come while a line says so: each scraper once a second, each of the slow again when it was sent away."""
    are_here = threading.Event()

    def come(request: bytes, pause: float) -> None:
        while True:
            are_here.wait()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.3) as one:
                one.sendall(request)
                while are_here.is_set():
                    with suppress(TimeoutError):
                        if not one.recv(1 << 16):
                            break
            time.sleep(pause)

    for request, pause in [(b"GET /metrics HTTP/1.0\r\n\r\n", 1.0)] * scrapers + [(b"", 0.1)] * slow:
        threading.Thread(target=come, args=(request, pause), daemon=True).start()
    for line in sys.stdin:
        if line == "come\n":
            are_here.set()
        else:
            are_here.clear()


class Crowd:
    """Comes to a port of this machine, and goes."""

    def __init__(self, port: str, scrapers: str, slow: str) -> None:
        command = [sys.executable, "-m", "tests.soak.crowd", "clients", port, scrapers, slow]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        self._say("come")
        time.sleep(SETTLING_SECONDS)
        yield
        self._say("go")
        time.sleep(SETTLING_SECONDS)

    def end(self) -> None:
        self._process.communicate("")

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()


def main(scrapers: str = "200", slow: str = "200") -> None:
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    batch = torch.randn(64, 64)

    def rate() -> Rate:
        clocks = time.monotonic, time.thread_time, time.process_time
        began, steps = [clock() for clock in clocks], 0
        while time.monotonic() < began[0] + SECONDS:
            optimizer.zero_grad()
            net(batch).square().mean().backward()
            optimizer.step()
            steps += 1
        return Rate(*((clock() - before) / steps for clock, before in zip(clocks, began, strict=True)))

    sink = gradwatch.sinks.Prometheus(0)
    command = [sys.executable, "-m", "tests.soak.crowd", "serve"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    other_port = other.stdout.readline().strip()
    with gradwatch.track(optimizer, net, sinks=[sink]):
        rate()
        elsewhere, here = (Crowd(port, scrapers, slow) for port in (other_port, _port(sink)))
        pairs = []
        for turn in range(TURNS):
            found = {}
            for crowd in (elsewhere, here) if turn % 2 else (here, elsewhere):
                with crowd.here():
                    found[crowd] = rate()
            pairs.append((found[elsewhere], found[here]))
        for crowd in (elsewhere, here):
            crowd.end()
    other.communicate("")
    print(
        f"{scrapers} scrapers and {slow} slow clients here against elsewhere, {TURNS} turns of {SECONDS} s each:"
    )
    for what in Rate._fields:
        ratios = sorted(getattr(one[1], what) / getattr(one[0], what) for one in pairs)
        quarters = statistics.quantiles(ratios, n=4)
        usual = statistics.median(getattr(one[0], what) for one in pairs)
        print(f"{what}: {1e6 * usual:.0f} us a step elsewhere; here times {quarters[1]:.3f}, "
              f"half of the turns from {quarters[0]:.3f} to {quarters[2]:.3f}")  # fmt: skip


def serve() -> None:
    """The endpoint of a process that does nothing else."""
    net = nn.Linear(64, 1)
    sink = gradwatch.sinks.Prometheus(0)
    with gradwatch.track(torch.optim.SGD(net.parameters(), lr=1e-4), net, sinks=[sink]):
        print(_port(sink), flush=True)
        sys.stdin.read()


def _port(sink: gradwatch.sinks.Prometheus) -> str:
    return str(sink.url).split(":")[2].split("/")[0]


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    elif sys.argv[1:2] == ["clients"]:
        clients(*map(int, sys.argv[2:]))
    else:
        main(*sys.argv[1:])
