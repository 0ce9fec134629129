"""The step rate while 200 scrapers, once a second each, and 200 clients that ask for nothing come to the endpoint.

In turns with that while the same crowd comes to the endpoint of another process, so that what the crowd itself takes of the
machine is in both. ``python -m tests.soak.crowd``
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import torch
from torch import nn

import gradwatch

CROWD, TURNS, SECONDS = 200, 8, 3.0


def clients(port: int) -> None:
    """Come for ever: each scraper once a second, each of the slow again when it was sent away."""

    def scrape() -> None:
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read()
            time.sleep(1.0)

    def dawdle() -> None:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as one:
                one.recv(1)
            time.sleep(0.1)

    for work in [scrape, dawdle] * CROWD:
        threading.Thread(target=work, daemon=True).start()
    sys.stdin.read()


def main() -> None:
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    batch = torch.randn(64, 64)

    def rate() -> float:
        steps, until = 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            optimizer.zero_grad()
            net(batch).square().mean().backward()
            optimizer.step()
            steps += 1
        return steps / SECONDS

    def beside(port: str) -> float:
        crowd = subprocess.Popen([sys.executable, "-m", "tests.soak.crowd", port], stdin=subprocess.PIPE)
        time.sleep(3.0)
        steps = rate()
        crowd.communicate(b"")
        time.sleep(2.0)
        return steps

    sink = gradwatch.sinks.Prometheus(0)
    command = [sys.executable, "-m", "tests.soak.crowd", "serve"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    other_port = other.stdout.readline().strip()
    with gradwatch.track(optimizer, net, sinks=[sink]):
        rate()
        ratios = []
        for _ in range(TURNS):
            elsewhere, here = beside(other_port), beside(_port(sink))
            ratios.append(here / elsewhere)
            print(
                f"{elsewhere:.0f} steps a second with {2 * CROWD} clients elsewhere, {here:.0f} with them here",
                flush=True,
            )
    other.communicate("")
    print(f"median of the ratios: {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


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
    elif sys.argv[1:]:
        clients(int(sys.argv[1]))
    else:
        main()
