"""Trainings that go wrong once a line comes in: ``python -m tests.monitoring.live.training GATEWAY SCENARIO:PORT ...``."""

import contextlib
import itertools
import math
import os
import signal
import sys
import threading
import time

import torch
from torch import nn

import gradwatch
from tests.monitoring.live.scale import MINUTE, scale_gradwatch

STEP_SECONDS = 0.02


class Actor(nn.Module):
    """A trunk, and a head behind a tanh that a large bias saturates; one loss may reach the trunk past the head."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        features = self.cnn(x)
        return features, self.mlp(features)


class Training:
    """Steps of a loop that has a fault from its ``onset`` on, counted in steps."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = Actor()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        self.data = torch.randn(16, 8)

    def loss(self, onset):
        features, actions = self.model(self.data)
        return actions.square().mean() + 1e-3 * features.square().mean()

    def step(self, onset):
        self.optimizer.zero_grad()
        self.loss(onset).backward()
        self.optimizer.step()


class Explodes(Training):
    def loss(self, onset):
        return super().loss(onset) * (1e4 if 0 <= onset < 5 else 1.0)


class IsNaNForOneStep(Training):
    """Goes back to a checkpoint at once."""

    def step(self, onset):
        saved = {name: value.clone() for name, value in self.model.state_dict().items()}
        super().step(onset)
        if onset == 0:
            self.model.load_state_dict(saved)

    def loss(self, onset):
        return super().loss(onset) * (math.nan if onset == 0 else 1.0)


class Dies(Training):
    """The head saturates, and for a moment another loss sends the trunk what explodes."""

    LASTS_STEPS = 4 * MINUTE / STEP_SECONDS

    def loss(self, onset):
        with torch.no_grad():
            self.model.mlp[0].bias.fill_(1e4 if 0 <= onset < self.LASTS_STEPS else 0.0)
        features, actions = self.model(self.data)
        return actions.square().mean() + (1e4 if 0 <= onset < 5 else 1.0) * features.square().mean()


class Hangs(Training):
    def step(self, onset):
        super().step(onset)
        if onset == 0:
            time.sleep(10 * MINUTE)


class IsOverSoon(Explodes):
    """Gone before anybody has scraped it: what it has to say lies at a Pushgateway."""

    LASTS_STEPS = 50

    def step(self, onset):
        super().step(onset)
        if onset == self.LASTS_STEPS:
            raise StopIteration


SCENARIOS = {
    "explodes": Explodes,
    "nan": IsNaNForOneStep,
    "dies": Dies,
    "hangs": Hangs,
    "killed": Training,
    "short": IsOverSoon,
}


def command(ports, gateway=None):
    """What starts trainings that show their metrics at these ports, by scenario, and leave the last at a gateway."""
    named = [str(gateway or ""), *(f"{scenario}:{port}" for scenario, port in ports.items())]
    return [sys.executable, "-m", "tests.monitoring.live.training", *named]


def main(gateway, *named):
    """A process for each; torch is imported once for all of them."""
    # Ends of pipes that are closed tell all of them at a time: that it is now, and that this process is gone.
    (now, say_now), (gone, alive) = os.pipe(), os.pipe()
    children = {}
    for one in named:
        scenario, port = one.split(":")
        children[scenario] = os.fork()
        if not children[scenario]:
            os.close(say_now)
            os.close(alive)
            train(scenario, int(port), gateway or None, now, gone)
    sys.stdin.readline()
    os.close(say_now)
    if "killed" in children:
        os.kill(children["killed"], signal.SIGKILL)
    signal.pause()


def train(scenario, port, gateway, when, gone):
    torch.set_num_threads(1)
    scale_gradwatch()
    training, now = SCENARIOS[scenario](), threading.Event()
    threading.Thread(target=_listen, args=(when, now, gone), daemon=True).start()
    model, onset = training.model, itertools.count()
    sink = gradwatch.sinks.Prometheus(port=port, pushgateway=gateway)
    with (
        contextlib.suppress(StopIteration),
        gradwatch.track(
            {"actor": training.optimizer}, {"cnn": model.cnn, "mlp": model.mlp}, sinks=[sink], run=scenario
        ),
    ):
        while True:
            training.step(next(onset) if now.is_set() else -1)
            time.sleep(STEP_SECONDS)
    os._exit(0)


def _listen(when, now, gone):
    os.read(when, 1)
    now.set()
    os.read(gone, 1)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
