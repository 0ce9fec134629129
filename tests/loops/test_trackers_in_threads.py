"""Trackers in threads and beside forked worker processes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Dataset

import gradwatch
from gradwatch.errors import TrackerStateError
from gradwatch.records import Health, RunInfo
from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


def in_threads(*work: Callable[[], None]) -> None:
    """Run all at once; the first error is the caller's."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            torch.set_num_threads(1)
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def trainer(run: Run, name: str, limit: float, shared: Any = None) -> Callable[[], None]:
    """A model, an optimizer and a tracker of its own; random numbers of its own, since threads share torch's."""
    generator = torch.Generator().manual_seed(len(name))
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tracker = run.track({name: optimizer}, model)

    def train() -> None:
        with tracker:
            for _ in range(30):
                optimizer.zero_grad()
                model(torch.randn(6, 4, generator=generator)).square().mean().mul(10).backward()
                run.before(name)
                norm = clip_grad_norm_(model.parameters(), limit)
                run.after(name, Clip(limit, norm))
                optimizer.step()

    return train


@conformance
def test_two_threads_with_a_tracker_each(run: Run) -> None:
    in_threads(trainer(run, "a", 0.5), trainer(run, "bb", 0.25))


@conformance
def test_two_threads_inside_one_tracker(run: Run) -> None:
    """Each thread trains its own model; the tracker holds both optimizers."""
    models = {name: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)) for name in ("a", "b")}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.05) for name, model in models.items()}

    def train(name: str) -> None:
        generator = torch.Generator().manual_seed(ord(name))
        for _ in range(30):
            optimizers[name].zero_grad()
            models[name](torch.randn(6, 4, generator=generator)).square().mean().mul(10).backward()
            run.before(name)
            norm = clip_grad_norm_(models[name].parameters(), 0.3)
            run.after(name, Clip(0.3, norm))
            optimizers[name].step()

    with run.track(optimizers, {f"model {name}": model for name, model in models.items()}) as tracker:
        tracker.ordered = False
        in_threads(lambda: train("a"), lambda: train("b"))


class Attacked(Dataset[Tensor]):
    """Batches made in worker processes, with the model's own gradients: backward, clip call and step happen there."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        torch.set_num_threads(1)
        x = torch.full((4,), float(index + 1)).requires_grad_()
        self.model(x).square().sum().backward()
        clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert x.grad is not None
        return (x + 0.1 * x.grad.sign()).detach()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@conformance
def test_forked_workers_that_train_a_copy(run: Run) -> None:
    """What they do to their copy of model and tracker is theirs; the records are those of the parent."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = []
    with run.track(optimizer, model, sinks=lambda: [gradwatch.sinks.Prometheus(port=free_port())]):
        loader = DataLoader(
            Attacked(model, optimizer), 2, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        for _ in range(2):
            for batch in loader:
                batches.append(batch)
                optimizer.zero_grad()
                model(batch).square().mean().mul(10).backward()
                run.before()
                norm = clip_grad_norm_(model.parameters(), 0.5)
                run.after("optimizer", Clip(0.5, norm))
                optimizer.step()
    run.leave(batches=batches)


def tracked() -> tuple[gradwatch.Watch, nn.Module, torch.optim.Optimizer]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return gradwatch.track(optimizer, model), model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


class EnteredMeanwhile(gradwatch.sinks.Memory):
    """While it is opened, another thread tries to enter the same tracker."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: gradwatch.Watch | None = None
        self.refused: list[TrackerStateError] = []
        self.thread = threading.Thread(target=self.enter)

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        if self.thread.ident is not None:
            return  # opened a second time: the other thread got in
        self.thread.start()
        # A tracker may also let the other one wait until this is done: then this does not wait for it.
        self.thread.join(timeout=0.2)

    def enter(self) -> None:
        assert self.watch is not None
        try:
            self.watch.__enter__()
        except TrackerStateError as error:
            self.refused.append(error)


def test_two_threads_cannot_both_enter() -> None:
    sink = EnteredMeanwhile()
    _, model, optimizer = tracked()
    watch = sink.watch = gradwatch.track(optimizer, model, sinks=[sink])
    watch.__enter__()
    sink.thread.join(timeout=60)
    train(model, optimizer)
    # Where both got in, one of two publishing threads may never end: that must not hang this test as well.
    closing = threading.Thread(target=watch.close, daemon=True)
    closing.start()
    closing.join(timeout=10)
    assert len(sink.refused) == 1
    assert len(sink.records) == 1
    assert not closing.is_alive()
