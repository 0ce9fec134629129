"""Several trackers at once, in any order; each tells the truth alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradwatch
from gradwatch.errors import TrackerStateError
from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_step


@conformance
def test_nested(run: Run) -> None:
    """The same optimizer and model, seen by both."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(3):
            usual_step(run, model, optimizer, "optimizer")
        with run.track(optimizer, {"first": model[0], "last": model[3]}):
            for _ in range(3):
                usual_step(run, model, optimizer, "optimizer")
        for _ in range(3):
            usual_step(run, model, optimizer, "optimizer")


@conformance
def test_three_deep_around_every_step(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track({"a": optimizer}, model):
        for _ in range(3):
            with run.track({"b": optimizer}, model), run.track({"c": optimizer}):
                usual_step(run, model, optimizer, "a", "b", "c")


@conformance
def test_left_out_of_order(run: Run) -> None:
    """Entered one after the other, and the first one is left first."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first, second = run.track({"first": optimizer}, model), run.track({"second": optimizer}, model)
    first.__enter__()
    for _ in range(3):
        usual_step(run, model, optimizer, "first")
    second.__enter__()
    for _ in range(3):
        usual_step(run, model, optimizer, "first", "second")
    first.__exit__(None, None, None)
    for _ in range(3):
        usual_step(run, model, optimizer, "second")
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
        usual_step(run, model, optimizer, "before clipping", "after clipping")
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
        usual_step(run, model, optimizer, *trackers)
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
        usual_step(run, model, optimizer, "optimizer")
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
            usual_step(run, model, optimizer, "outer", "inner")
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
                usual_step(run, model, optimizer, "optimizer")


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


def test_after_the_with_records_can_be_read_and_nothing_else_done() -> None:
    watch, model, optimizer = tracked()
    with watch:
        train(model, optimizer)
    train(model, optimizer)
    with pytest.raises(TrackerStateError, match="closed"):
        watch.flush()
    watch.close()
    assert [record.step for record in watch.history] == [1]
    assert watch["optimizer"] == watch.last["optimizer"] == watch.history[0]
    assert watch.alerts == watch.active == []
    assert watch.health().internal_errors == 0
