"""What the agent does on a device: it waits for none in an update, and its copies go through page-locked memory."""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import gradwatch
from examples.carla_td3.checkpoint import Checkpoints
from examples.carla_td3.options import parse
from examples.carla_td3.replay import SPLIT, Batch, Replay
from examples.carla_td3.td3 import TD3, train
from examples.carla_td3.transfer import downloaded, uploaded
from tests.gpu.devices import CUDA, MODE_IS_YOUNG, no_waiting

READS = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__array__")


def asked(preset):
    return parse(["--preset", preset, "--prometheus-port", "0"])


def agent_on(device, preset="fixed"):
    torch.manual_seed(0)
    return TD3(asked(preset), device)


def made_up_batch(size=2):
    frames = torch.zeros(size, 5, 84, 84, dtype=torch.uint8)
    return Batch(frames[:, :4], frames[:, 1:], *torch.split(torch.zeros(size, sum(SPLIT)), SPLIT, dim=1))


def reads_of(preset, monkeypatch):
    """Reads of four updates on tensors that have no values: those that get through, and those that raise."""
    reads = Counter()

    def counted(name):
        real = getattr(Tensor, name)

        def reading(self, *given, **named):
            reads[name] += 1
            return real(self, *given, **named)

        return reading

    with FakeTensorMode(), monkeypatch.context() as patched:
        # Such tensors can be neither moved nor copied with their module.
        patched.setattr(torch.nn.Module, "to", lambda module, device: module)
        patched.setattr(copy, "deepcopy", lambda network: type(network)(asked(preset)))
        agent, batch = agent_on(torch.device("cpu"), preset), made_up_batch()
        for name in READS:
            patched.setattr(Tensor, name, counted(name))
        try:
            for _ in range(4):
                agent.update(batch)
        except (RuntimeError, ValueError):  # a value that is not there
            assert reads
    return reads


@pytest.mark.parametrize("preset", ["fixed", "legacy"])
def test_an_update_reads_no_value(preset, monkeypatch):
    assert reads_of(preset, monkeypatch) == {}


@pytest.mark.parametrize("name", ["item", "cpu", "__float__", "__bool__"])
def test_an_update_that_reads_is_noticed(name, monkeypatch):
    real = TD3._descend

    def reading(self, network, optimizer, loss, clip):
        getattr(loss.detach(), name)()
        real(self, network, optimizer, loss, clip)

    monkeypatch.setattr(TD3, "_descend", reading)
    assert name in reads_of("fixed", monkeypatch)


def test_what_goes_up_is_page_locked_and_nobody_waits_for_it(monkeypatch):
    done = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: done.append("pinned") or self)
    monkeypatch.setattr(Tensor, "to", lambda self, *given, **named: done.append((given, named)) or self)
    uploaded(np.zeros(3, np.float32), torch.device("cuda:1"))
    assert done == ["pinned", ((torch.device("cuda:1"),), {"non_blocking": True})]
    done.clear()
    assert torch.equal(uploaded(np.ones(3, np.float32), torch.device("cpu")), torch.ones(3))
    assert done == []


def test_what_comes_down_is_read_once_it_is_there():
    assert downloaded(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]


def test_the_random_state_of_the_device_in_use_is_kept(tmp_path, monkeypatch):
    kept, given = torch.arange(16, dtype=torch.uint8), []
    chance = np.random.default_rng(0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: kept)
    monkeypatch.setattr(torch.cuda, "set_rng_state", given.append)
    Checkpoints(tmp_path).save(1, {}, chance)
    Checkpoints(tmp_path).load({}, chance)
    assert len(given) == 1
    assert torch.equal(given[0], kept)


def test_a_run_on_the_cpu_leaves_cuda_asleep(tmp_path, monkeypatch):
    def woken(*given):
        raise AssertionError("CUDA was woken up")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state", woken)
    monkeypatch.setattr(torch.cuda, "set_rng_state", woken)
    Checkpoints(tmp_path).save(1, {}, np.random.default_rng(0))
    assert Checkpoints(tmp_path).load({}, np.random.default_rng(0)) == 1


@pytest.mark.parametrize(("asked", "meant"), [("cuda", "cuda:0"), ("auto", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_cuda_device_is_named_by_its_number(asked, meant, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse(["--device", asked, "--prometheus-port", "0"]).device == meant


@pytest.mark.filterwarnings(MODE_IS_YOUNG)
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_no_watched_update_waits_for_the_device(device, tmp_path):
    there = torch.device(device)
    agent, replay, chance = agent_on(there), Replay(8, tmp_path), np.random.default_rng(0)
    seen = {"image": np.zeros((4, 84, 84), np.uint8), "vector": np.zeros(53, np.float32)}
    for _ in range(8):
        replay.add(seen, np.zeros(2, np.float32), 1.0, seen, terminated=False)
    with gradwatch.track({"actor": agent.actor_optimizer, "critic": agent.critic_optimizer}) as watch:
        for _ in range(4):  # what is made once may wait
            agent.update(replay.sample(2, chance, there))
        with no_waiting(device):
            for _ in range(4):
                agent.update(replay.sample(2, chance, there))
        assert watch.health().internal_errors == 0


def test_training_makes_its_device_the_one_that_is_meant_where_none_is_named(monkeypatch):
    class ReachedError(Exception):
        pass

    def reached(device):
        raise ReachedError(str(device))

    monkeypatch.setattr(torch.cuda, "set_device", reached)
    with pytest.raises(ReachedError, match="cuda:1"):
        train(replace(asked("fixed"), device="cuda:1"), None, None)
