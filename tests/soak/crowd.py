"""The step rate beside 200 scrapers and 200 clients that ask for nothing, in turns with that without them.

``python -m tests.soak.crowd``: the clients are a process of their own, and need a core of their own.
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

    sink = gradwatch.sinks.Prometheus(0)
    with gradwatch.track(optimizer, net, sinks=[sink]):
        rate()
        ratios = []
        for _ in range(TURNS):
            alone = rate()
            port = str(sink.url).split(":")[2].split("/")[0]
            crowd = subprocess.Popen([sys.executable, "-m", "tests.soak.crowd", port], stdin=subprocess.PIPE)
            time.sleep(2.0)
            beside = rate()
            crowd.communicate(b"")
            time.sleep(6.0)
            ratios.append(beside / alone)
            print(f"{alone:.0f} steps a second alone, {beside:.0f} beside {2 * CROWD} clients", flush=True)
    print(f"median of the ratios: {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        clients(int(sys.argv[1]))
    else:
        main()
