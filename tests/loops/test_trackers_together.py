"""Several trackers at once, in any order, in threads and beside worker processes; each tells the truth alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Dataset

import gradwatch
from gradwatch.errors import TrackerStateError
from gradwatch.records import Health, RunInfo
from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


def step(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, *names: str) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    for name in names:
        run.before(name)
    norm = clip_grad_norm_(model.parameters(), 0.5)
    for name in names:
        run.after(name, Clip(0.5, norm))
    optimizer.step()


@conformance
def test_nested(run: Run) -> None:
    """The same optimizer and model, seen by both."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(3):
            step(run, model, optimizer, "optimizer")
        with run.track(optimizer, {"first": model[0], "last": model[3]}):
            for _ in range(3):
                step(run, model, optimizer, "optimizer")
        for _ in range(3):
            step(run, model, optimizer, "optimizer")


@conformance
def test_three_deep_around_every_step(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track({"a": optimizer}, model):
        for _ in range(3):
            with run.track({"b": optimizer}, model), run.track({"c": optimizer}):
                step(run, model, optimizer, "a", "b", "c")


@conformance
def test_left_out_of_order(run: Run) -> None:
    """Entered one after the other, and the first one is left first."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first, second = run.track({"first": optimizer}, model), run.track({"second": optimizer}, model)
    first.__enter__()
    for _ in range(3):
        step(run, model, optimizer, "first")
    second.__enter__()
    for _ in range(3):
        step(run, model, optimizer, "first", "second")
    first.__exit__(None, None, None)
    for _ in range(3):
        step(run, model, optimizer, "second")
    second.__exit__(None, None, None)
    optimizer.zero_grad()


@conformance
def test_entered_in_the_middle_of_a_step(run: Run) -> None:
    """Between backward and clipping, and between clipping and step: what a tracker has not seen, it does not claim."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before_clipping = run.track({"before clipping": optimizer}, model)
    after_clipping = run.track({"after clipping": optimizer}, model)
    optimizer.zero_grad()
    loss_of(model).backward()
    before_clipping.__enter__()
    run.before("before clipping")
    norm = clip_grad_norm_(model.parameters(), 0.5)
    after_clipping.__enter__()
    run.after("before clipping", Clip(0.5, norm), passes=0)
    run.after("after clipping", passes=0)
    optimizer.step()
    for _ in range(5):
        step(run, model, optimizer, "before clipping", "after clipping")
    before_clipping.__exit__(None, None, None)
    after_clipping.__exit__(None, None, None)


@conformance
def test_left_in_the_middle_of_a_step(run: Run) -> None:
    """A step that had begun and was not taken inside is none."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    trackers = {name: run.track({name: optimizer}, model) for name in ("backward", "clipping")}
    for tracker in trackers.values():
        tracker.__enter__()
    for _ in range(3):
        step(run, model, optimizer, *trackers)
    optimizer.zero_grad()
    loss_of(model).backward()
    trackers["backward"].__exit__(None, None, None)
    clip_grad_norm_(model.parameters(), 0.5)
    trackers["clipping"].__exit__(None, None, None)
    optimizer.step()


@conformance
def test_left_inside_a_backward(run: Run) -> None:
    """By a hook of the user's; the pass ends without anybody to tell."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    tracker = run.track(optimizer, model)
    tracker.__enter__()
    for _ in range(3):
        step(run, model, optimizer, "optimizer")
    hidden = model[:2](torch.randn(6, 4))
    hidden.register_hook(lambda _: tracker.__exit__(None, None, None))
    model[2](hidden).square().mean().backward()
    optimizer.step()


@conformance
def test_an_exception_leaves_both(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with (
        pytest.raises(ZeroDivisionError),
        run.track({"outer": optimizer}, model),
        run.track({"inner": optimizer}, model),
    ):
        for _ in range(3):
            step(run, model, optimizer, "outer", "inner")
        loss_of(model).backward()
        1 / 0
    optimizer.step()


@conformance
def test_one_tracker_an_epoch(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(4):
        with run.track(optimizer, model):
            for _ in range(3):
                step(run, model, optimizer, "optimizer")


@conformance
def test_trackers_of_different_optimizers(run: Run) -> None:
    """Each tracker's record names only what it tracks; a clip call over both models is seen by both."""
    first, second = mlp(), mlp()
    one, other = torch.optim.SGD(first.parameters(), lr=0.05), torch.optim.Adam(second.parameters(), lr=0.01)
    everything = nn.ModuleList([first, second])
    with run.track({"one": one}, first), run.track({"other": other}, second):
        for _ in range(6):
            everything.zero_grad()
            (loss_of(first) + loss_of(second)).backward()
            run.before("one")
            run.before("other")
            norm = clip_grad_norm_(everything.parameters(), 0.5)
            run.after("one", Clip(0.5, norm))
            one.step()
            run.after("other", Clip(0.5, norm))
            other.step()


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


def test_a_tracker_is_entered_once() -> None:
    watch, model, optimizer = tracked()
    with watch:
        train(model, optimizer)
        with pytest.raises(TrackerStateError, match="entered"):
            watch.__enter__()
        train(model, optimizer)
    with pytest.raises(TrackerStateError, match="closed"):
        watch.__enter__()
    assert [record.step for record in watch.history] == [1, 2]


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


def test_after_the_with_records_can_be_read_and_nothing_else_done() -> None:
    watch, model, optimizer = tracked()
    with watch:
        train(model, optimizer)
    train(model, optimizer)
    with pytest.raises(TrackerStateError, match="closed"):
        watch.flush()
    watch.close()
    assert [record.step for record in watch.history] == [1]
    assert watch["optimizer"] is watch.last["optimizer"] is watch.history[0]
    assert watch.alerts == watch.active == []
    assert watch.health().internal_errors == 0
