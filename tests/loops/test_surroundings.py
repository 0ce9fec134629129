"""Loops under settings of the process, in generators and coroutines, and over tensors of every form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_step


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@conformance
def test_another_default_type(run: Run, dtype: torch.dtype) -> None:
    """What is made without a type is then of this one, also inside gradwatch."""
    torch.set_default_dtype(dtype)
    try:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with run.track(optimizer, model):
            for _ in range(6):
                usual_step(run, model, optimizer)
    finally:
        torch.set_default_dtype(torch.float32)


@conformance
def test_another_default_device(run: Run) -> None:
    """What is made without a device is then on this one, where nothing has a value."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with torch.device("meta"), run.track(optimizer, model):
        for _ in range(6):
            usual_step(run, model, optimizer)


@conformance
def test_the_default_device_changes_while_training(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(3):
            usual_step(run, model, optimizer)
            with torch.device("meta"):
                nn.Linear(3, 3)
                usual_step(run, model, optimizer)


@conformance
def test_deterministic_algorithms(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    torch.use_deterministic_algorithms(True)
    try:
        with run.track(optimizer, model):
            for _ in range(6):
                usual_step(run, model, optimizer)
    finally:
        torch.use_deterministic_algorithms(False)


@conformance
def test_operations_counted_by_the_user(run: Run) -> None:
    """The floating point operations that a loop is charged with are its own."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model), FlopCounterMode(display=False) as flops:
        for _ in range(6):
            usual_step(run, model, optimizer)
    run.leave(flops=flops.get_total_flops())


@conformance
def test_autograd_in_one_thread(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model), torch.autograd.set_multithreading_enabled(False):
        for _ in range(6):
            usual_step(run, model, optimizer)


@conformance
def test_gradients_off_except_where_they_are_needed(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with torch.no_grad(), run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = loss_of(model)
            loss.backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
@conformance
def test_gradients_with_a_graph_that_are_used_again(run: Run) -> None:
    """``create_graph=True`` in ``backward``: ``.grad`` is part of a graph, and a second backward adds to it."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward(create_graph=True)
            sum((p.grad.square().sum() for p in model.parameters()), torch.zeros(())).backward()  # type: ignore[union-attr]
            run.before()
            with torch.no_grad():
                norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.step()
            # The graph holds the gradients and they hold it.
            optimizer.zero_grad()


def endless(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> Iterator[None]:
    """A training loop as a generator: it is left when nobody asks for more."""
    with run.track({name: optimizer}, model):
        while True:
            usual_step(run, model, optimizer, name)
            yield


@conformance
def test_a_generator_that_is_abandoned(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps = endless(run, model, optimizer, "optimizer")
    for _ in range(6):
        next(steps)
    steps.close()  # type: ignore[attr-defined]


@conformance
def test_generators_in_turn(run: Run) -> None:
    """Three loops interleaved in one thread, closed in the order in which they were begun."""
    models = [mlp() for _ in range(3)]
    loops = [
        endless(run, model, torch.optim.SGD(model.parameters(), lr=0.05), f"loop {i}")
        for i, model in enumerate(models)
    ]
    for turn in range(9):
        for loop in loops[: 1 + turn]:
            next(loop)
    for loop in loops:
        loop.close()  # type: ignore[attr-defined]


@conformance
def test_coroutines(run: Run) -> None:
    async def train(name: str, steps: int) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with run.track({name: optimizer}, model):
            for _ in range(steps):
                usual_step(run, model, optimizer, name)
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(train("a", 4), train("b", 7))

    asyncio.run(both())


@conformance
def test_large_tensors_of_every_layout(run: Run) -> None:
    """Transposed, channels last, expanded, every second column, and one element more than a round number."""
    shapes = nn.ParameterDict(
        {
            "transposed": torch.randn(121, 150).t(),
            "channels": torch.randn(48, 48, 3, 3).to(memory_format=torch.channels_last),
            "expanded": torch.randn(130, 130),
            "strided": torch.randn(130, 130),
            "odd": torch.randn((1 << 14) + 1),
        }
    )
    optimizer = torch.optim.SGD(shapes.parameters(), lr=0.01)
    wide = torch.randn(130, 260)
    with run.track(optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            sum((p * torch.randn_like(p)).sum() for p in shapes.values()).backward()  # type: ignore[union-attr]
            run.before()
            for parameter in shapes.values():
                parameter.grad.mul_(0.1)
            shapes["expanded"].grad = torch.full((1, 1), 0.1).expand(130, 130)
            shapes["strided"].grad = wide[:, ::2]
            run.after()
            optimizer.step()


@conformance
def test_many_small_tensors(run: Run) -> None:
    parts = nn.ParameterList([torch.randn(1 + i % 7) for i in range(400)])
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.01)
    with run.track(optimizer, {"parts": parts}):
        for _ in range(3):
            optimizer.zero_grad()
            torch.cat(list(parts)).square().sum().backward()
            run.before()
            norm = clip_grad_norm_(parts.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@conformance
def test_tracked_before_the_lazy_layers_know_their_shapes(run: Run) -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


class Named(nn.Parameter):
    """A user's own kind of parameter."""

    def __new__(cls, data: Tensor) -> Named:
        return torch.Tensor._make_subclass(cls, data, True)  # type: ignore[return-value]


@conformance
def test_parameters_of_a_class_of_the_users_own(run: Run) -> None:
    model = nn.Linear(4, 1)
    model.weight = Named(torch.randn(1, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            usual_step(run, model, optimizer)


@conformance
def test_an_optimizer_over_tensors_that_are_no_parameters(run: Run) -> None:
    """An image that is optimized itself, and a latent vector: leaves, of no module."""
    image, latent = torch.randn(3, 4, 4, requires_grad=True), torch.randn(5, requires_grad=True)
    network = nn.Conv2d(3, 2, 3).requires_grad_(False)
    optimizer = torch.optim.Adam([image, latent], lr=0.05)
    with run.track(optimizer):
        for _ in range(6):
            optimizer.zero_grad()
            (network(image[None]).square().mean() + latent.square().sum()).backward()
            run.before()
            norm = clip_grad_norm_([image, latent], 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()
    run.leave(image=image, latent=latent)
