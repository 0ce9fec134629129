"""Torch's clipping functions, in all the ways that they are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.nn.utils import clip_grad_norm_ as bound_early

import gradwatch
from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

Ways = dict[str, Callable[[Any], Tensor]]


def plain(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()


NORM_CLIPS: Ways = {
    "a generator": lambda m: clip_grad_norm_(m.parameters(), 1.0),
    "a list": lambda m: clip_grad_norm_(list(m.parameters()), 1.0),
    "a tuple by keyword": lambda m: clip_grad_norm_(max_norm=1.0, parameters=tuple(m.parameters())),
    "a filter": lambda m: clip_grad_norm_(filter(lambda p: p.requires_grad, m.parameters()), 1.0),
    "a chain of two layers": lambda m: clip_grad_norm_(
        (p for layer in (m[0], m[3]) for p in layer.parameters()), 1.0
    ),
    "limit as an int": lambda m: clip_grad_norm_(m.parameters(), 1),
    "foreach": lambda m: clip_grad_norm_(m.parameters(), 1.0, foreach=True),
    "one by one": lambda m: clip_grad_norm_(m.parameters(), 1.0, foreach=False),
    "error if nonfinite": lambda m: clip_grad_norm_(m.parameters(), 1.0, error_if_nonfinite=True),
    "bound early": lambda m: bound_early(m.parameters(), 1.0),
    "from torch.nn.utils": lambda m: torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0),
    "from clip_grad": lambda m: torch.nn.utils.clip_grad.clip_grad_norm_(m.parameters(), 1.0),
}


@pytest.mark.parametrize("clip", NORM_CLIPS.values(), ids=NORM_CLIPS)
@conformance
def test_clip_grad_norm(run: Run, clip: Callable[[Any], Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            norm = clip(model)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@pytest.mark.parametrize(
    ("norm_type", "foreach"),
    [(1.0, True), (1.0, False), (2, True), (3.5, False), (math.inf, True), (math.inf, False), ("inf", None)],
)
@conformance
def test_other_norms(run: Run, norm_type: float | str, foreach: bool | None) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(6):
            plain(model, optimizer)
            run.before()
            limit = (0.5, 100.0)[step % 2]
            norm = clip_grad_norm_(model.parameters(), limit, norm_type=norm_type, foreach=foreach)  # type: ignore[arg-type]
            run.after("optimizer", Clip(limit, norm, float(norm_type)))
            optimizer.step()


@conformance
def test_the_deprecated_alias(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            with pytest.warns(FutureWarning):
                norm = torch.nn.utils.clip_grad_norm(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@pytest.mark.parametrize("foreach", [True, False])
@conformance
def test_clip_by_value(run: Run, foreach: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            clip_grad_value_(model.parameters(), 0.05, foreach=foreach)
            run.after("optimizer", Clip(0.05, None, None, "clip_grad_value_"))
            optimizer.step()


@conformance
def test_clip_by_value_and_then_by_norm(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            clip_grad_value_(model.parameters(), 0.2)
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.2, None, None, "clip_grad_value_"), Clip(0.5, norm))
            optimizer.step()


@conformance
def test_a_norm_computed_first_and_applied_to_all(run: Run) -> None:
    """As a loop does that shares one norm between pipeline stages, or logs it before it clips."""
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])  # type: ignore[misc]
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, total)
            run.after("optimizer", Clip(1.0, total, None, "clip_grads_with_norm_", returned=False))
            optimizer.step()


@conformance
def test_one_tensor_alone(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            norm = clip_grad_norm_(model[0].weight, 0.1)
            run.after("optimizer", Clip(0.1, norm))
            optimizer.step()


@conformance
def test_each_parameter_by_itself(run: Run) -> None:
    """Block-wise clipping: as many calls in a step as there are tensors."""
    model = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(4, 4), nn.Tanh())))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            clips = [Clip(0.1, clip_grad_norm_(parameter, 0.1)) for parameter in model.parameters()]
            run.after("optimizer", *clips)
            optimizer.step()


@conformance
def test_two_halves_with_limits_of_their_own(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            first = clip_grad_norm_(model[0].parameters(), 0.5)
            second = clip_grad_norm_(model[3].parameters(), 0.25)
            run.after("optimizer", Clip(0.5, first), Clip(0.25, second))
            optimizer.step()


@conformance
def test_twice_the_second_tighter(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            first = clip_grad_norm_(model.parameters(), 1.0)
            second = clip_grad_norm_(model.parameters(), 0.3)
            run.after("optimizer", Clip(1.0, first), Clip(0.3, second))
            optimizer.step()


@conformance
def test_an_infinite_limit_as_a_way_to_measure(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            norm = clip_grad_norm_(model.parameters(), math.inf)
            run.after("optimizer", Clip(math.inf, norm))
            optimizer.step()


@conformance
def test_a_limit_of_zero(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.0)
            run.after("optimizer", Clip(0.0, norm))
            optimizer.step()


@conformance
def test_clipping_in_some_steps_only(run: Run) -> None:
    """A warm-up that clips, then none: a limit of an earlier step is not this one's."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(8):
            plain(model, optimizer)
            run.before()
            clips: list[Clip] = []
            if step % 4 != 2:
                clips.append(Clip(0.5, clip_grad_norm_(model.parameters(), 0.5)))
            run.after("optimizer", *clips)
            optimizer.step()


@conformance
def test_clipping_after_the_step(run: Run) -> None:
    """A fault that people make: what is clipped then is zeroed before it is used."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        late: list[Clip] = []
        for _ in range(6):
            plain(model, optimizer)
            run.after("optimizer", *late)
            optimizer.step()
            late = [Clip(0.5, clip_grad_norm_(model.parameters(), 0.5))]


@conformance
def test_clipping_other_parameters(run: Run) -> None:
    """A fault that people make: the wrong network is clipped; it is no clip call of this optimizer."""
    model, other = mlp(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for parameter in other.parameters():
        parameter.grad = torch.ones_like(parameter)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            clip_grad_norm_(other.parameters(), 0.5)
            run.after()
            optimizer.step()
    run.leave(other=other)


@conformance
def test_clip_and_scheduled_limit_as_a_tensor(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    limit = torch.tensor(2.0)
    with run.track(optimizer, model):
        for _ in range(6):
            plain(model, optimizer)
            run.before()
            norm = clip_grad_norm_(model.parameters(), limit)  # type: ignore[arg-type]
            run.after("optimizer", Clip(float(limit), norm))
            optimizer.step()
            limit = limit * 0.5


@conformance
def test_clipping_on_each_micro_batch(run: Run) -> None:
    """The sum as it stands after the last backward, of which the first part was clipped already."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def clip(parameters: Iterable[Tensor]) -> Clip:
        return Clip(0.5, clip_grad_norm_(parameters, 0.5))

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            first = clip(model.parameters())
            loss_of(model).backward()
            run.before()
            second = clip(model.parameters())
            run.after("optimizer", first, second, passes=2)
            optimizer.step()


@pytest.mark.parametrize("to_none", [True, False])
@conformance
def test_steps_left_out_by_the_loop_for_their_norm(run: Run, to_none: bool) -> None:
    """What was clipped for a step that was never taken is no clip call of the next one."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    passes = 0
    with run.track(optimizer, model):
        for step in range(9):
            optimizer.zero_grad(set_to_none=to_none)
            (loss_of(model) * (1e-3, 1.0, math.inf)[step % 3]).backward()
            passes += 1
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            if not norm.isfinite() or (step // 3 == 1 and norm > 0.5):
                continue
            run.after("optimizer", Clip(0.5, norm), passes=passes)
            optimizer.step()
            passes = 0


def test_clip_calls_for_steps_that_are_never_taken_fill_no_memory() -> None:
    model = mlp()
    stepped, waits = (torch.optim.SGD(model[i].parameters(), lr=0.05) for i in (0, 3))
    watch = gradwatch.track({"stepped": stepped, "waits": waits}, rules=[])
    with watch:
        for _ in range(20):
            model.zero_grad()
            loss_of(model).backward()
            clip_grad_norm_(model[0].parameters(), 1.0)
            clip_grad_norm_(model.parameters(), 1.0)
            stepped.step()
        waits.step()
    assert len(watch["waits"].clips) == 1
