"""What tracking costs. Figures are printed; `make bench` shows them."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from torch import nn

import gradwatch
from examples.carla_td3.agent import TD3
from examples.carla_td3.presets import PRESETS
from examples.carla_td3.replay import Batch

pytestmark = pytest.mark.bench


def seconds_a_call(call, rounds):
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def compare(name, make_step, track, rounds=10, calls=2):
    """Untracked and tracked in alternation, round by round, so that a drifting machine hits both alike."""
    step = make_step()
    seconds_a_call(step, 3)
    bare, tracked = [], []
    for _ in range(rounds):
        bare += seconds_a_call(step, calls)
        with track():
            step()
            tracked += seconds_a_call(step, calls)
    ratio = statistics.median(tracked) / statistics.median(bare)
    added = 1e6 * (statistics.median(tracked) - statistics.median(bare))
    print(
        f"\n{name}: {1e3 * statistics.median(bare):.2f} ms bare, {1e3 * statistics.median(tracked):.2f} ms tracked, "
        f"ratio {ratio:.4f}, added {added:.0f} us a step ({torch.get_num_threads()} threads)"
    )


def loop_of(net, make_input):
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)

    def step():
        optimizer.zero_grad()
        net(make_input()).pow(2).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return step, lambda: gradwatch.track(optimizer, {"net": net}, sinks=[gradwatch.sinks.Memory()])


def test_a_tiny_network():
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    step, track = loop_of(net, lambda: torch.randn(32, 64))
    compare("tiny MLP, 6 tensors", lambda: step, track, calls=100)


def test_a_thousand_layers_of_64():
    net = nn.Sequential(*[nn.Linear(8, 8) for _ in range(1000)])
    step, track = loop_of(net, lambda: torch.randn(4, 8))
    compare("2,000 small tensors", lambda: step, track)


def made_up_batch(n):
    def images():
        return torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8)

    return Batch(
        image=images(),
        vector=torch.randn(n, 53),
        action=torch.rand(n, 2) * 2 - 1,
        reward=torch.randn(n, 1),
        next_image=images(),
        next_vector=torch.randn(n, 53),
        not_done=torch.ones(n, 1),
    )


def test_the_td3_agent_at_batch_64():
    torch.manual_seed(0)
    agent = TD3(PRESETS["fixed"], torch.device("cpu"))
    batch = made_up_batch(64)

    def two_updates():
        agent.update(batch)
        agent.update(batch)

    def track():
        return gradwatch.track(agent.optimizers, agent.modules, sinks=[gradwatch.sinks.Memory()])

    compare("TD3 agent, batch 64, two updates", lambda: two_updates, track)
