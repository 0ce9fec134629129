"""``track`` around whole loops: training is not changed, and every number is the one a second look gives."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import gradwatch
from gradwatch.errors import TrackerStateError
from gradwatch.judge.rule import Finding
from gradwatch.measure import kernel
from gradwatch.measure.tracked import TrackedOptimizer
from gradwatch.records import Alert, Severity, StepRecord
from gradwatch.verdicts import Verdicts

Setup = tuple[dict[str, torch.optim.Optimizer], dict[str, nn.Module], Callable[[], None]]


def mlp(inputs: int = 8, outputs: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, outputs))


def look(parameters: Sequence[Tensor]) -> float:
    """The norm of the gradients, computed the long way."""
    squares = (x * x for p in parameters if p.grad is not None for x in p.grad.double().flatten().tolist())
    return math.sqrt(math.fsum(squares))


# Loops: each makes its models and optimizers anew and returns a function that trains them.


def adam_with_clipping() -> Setup:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def train() -> None:
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(32, 8)).square().mean().mul(50).backward()
            clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()

    return {"optimizer": optimizer}, {"model": model}, train


def sgd_with_accumulation() -> Setup:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def train() -> None:
        for step in range(12):
            (model(torch.randn(16, 8)).square().mean() / 3).backward()
            if step % 3 == 2:
                clip_grad_value_(model.parameters(), 0.05)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=False)

    return {"optimizer": optimizer}, {"model": model}, train


def lbfgs() -> Setup:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe")
    x, y = torch.randn(32, 4), torch.randn(32, 1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (model(x) - y).square().mean()
        loss.backward()
        return loss

    def train() -> None:
        for _ in range(4):
            optimizer.step(closure)

    return {"optimizer": optimizer}, {"model": model}, train


def actor_and_critic() -> Setup:
    actor, critic = mlp(6, 2), mlp(8, 1)
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), lr=1e-2),
        "critic": torch.optim.AdamW(critic.parameters(), lr=1e-2),
    }

    def train() -> None:
        for step in range(8):
            state = torch.randn(16, 6)
            optimizers["critic"].zero_grad()
            (critic(torch.randn(16, 8)) - torch.rand(16, 1)).square().mean().mul(30).backward()
            clip_grad_norm_(critic.parameters(), 1.0)
            optimizers["critic"].step()
            if step % 2:
                optimizers["actor"].zero_grad()
                (-critic(torch.cat([state, actor(state)], 1)).mean()).backward()
                clip_grad_norm_(actor.parameters(), 0.01)
                optimizers["actor"].step()

    return dict(optimizers), {"actor_net": actor, "critic_net": critic}, train


LOOPS = [adam_with_clipping, sgd_with_accumulation, lbfgs, actor_and_critic]


def flat(state: Any) -> Iterator[Any]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield key
            yield from flat(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from flat(value)
    else:
        yield state.detach().numpy().tobytes() if isinstance(state, Tensor) else state


def outcome(loop: Callable[[], Setup], tracked: bool, **arguments: Any) -> list[Any]:
    torch.manual_seed(7)
    optimizers, modules, train = loop()
    if tracked:
        with gradwatch.track(optimizers, modules, **arguments) as watch:
            train()
        assert watch.health().internal_errors == 0
        assert watch.history or arguments.get("every", 1) > 3
    else:
        train()
    gradients = [p.grad for m in modules.values() for p in m.parameters()]
    states = [m.state_dict() for m in modules.values()], [o.state_dict() for o in optimizers.values()]
    return list(flat([states, gradients, torch.get_rng_state()]))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("every", [1, 3])
def test_training_is_equal_bit_for_bit(loop: Callable[[], Setup], every: int) -> None:
    assert outcome(loop, True, every=every, sinks=[gradwatch.sinks.Memory()]) == outcome(loop, False)


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop is not lbfgs])
def test_norms_equal_a_second_computation(loop: Callable[[], Setup]) -> None:
    optimizers, modules, train = loop()
    expected: dict[str, list[float]] = {name: [] for name in optimizers}
    for name, optimizer in optimizers.items():
        held = [p for group in optimizer.param_groups for p in group["params"]]
        noted = expected[name]
        optimizer.register_step_pre_hook(lambda *_, held=held, noted=noted: noted.append(look(held)))
    with gradwatch.track(optimizers, modules) as watch:
        train()
    for name, norms in expected.items():
        records = [record for record in watch.history if record.optimizer == name]
        assert len(records) == len(norms) > 3
        assert [record.norm_after for record in records] == pytest.approx(norms, rel=1e-6)
        for record in records:
            # Each of these optimizers holds one module, and holds all of it.
            (module,) = record.modules.values()
            assert module == pytest.approx((record.norm_before, record.norm_after), rel=1e-12)


def test_modules_norms_equal_a_second_computation() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        model(torch.randn(8, 8)).square().sum().backward()
        expected = {name: look(list(model[int(name)].parameters())) for name in ("0", "3")}
        optimizer.step()
    record = watch["optimizer"]
    assert {name: norms.norm_after for name, norms in record.modules.items()} == pytest.approx(expected, rel=1e-6)
    each = {name: look([parameter]) for name, parameter in model.named_parameters()}
    assert {name: norms.norm_before for name, norms in record.parameters.items()} == pytest.approx(each, rel=1e-6)


def test_a_closure_is_measured_at_its_first_evaluation() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    x = torch.randn(32, 4)
    noted: list[list[float]] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (model(x) - 1).square().mean()
        loss.backward()
        noted[-1].append(look(list(model.parameters())))
        return loss

    with gradwatch.track(optimizer, model) as watch:
        for _ in range(3):
            noted.append([])
            optimizer.step(closure)
    assert len(noted[0]) > 1
    assert [record.norm_after for record in watch.history] == pytest.approx([n[0] for n in noted], rel=1e-6)
    assert [record.norm_before for record in watch.history] == pytest.approx([n[0] for n in noted], rel=1e-6)
    assert [record.backward_passes for record in watch.history] == [1, 1, 1]


def test_norm_before_is_from_before_the_first_clip_call() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        for limit in (0.5, 0.25, 1e6):
            optimizer.zero_grad()
            model(torch.randn(8, 8)).square().sum().backward()
            before = look(list(model.parameters()))
            returned = clip_grad_norm_(model.parameters(), 2 * limit)
            clip_grad_norm_(model.parameters(), limit)
            after = look(list(model.parameters()))
            optimizer.step()
            record = watch["optimizer"]
            assert record.norm_before == pytest.approx(before, rel=1e-6)
            assert record.norm_after == pytest.approx(after, rel=1e-6)
            assert record.clip_ratio == pytest.approx(after / before, rel=1e-6)
            assert (record.max_norm, record.clipped) == (limit, limit < 1e6)
            assert [c.limit for c in record.clips] == [2 * limit, limit]
            assert record.clips[0].norm_returned == float(returned)
            assert record.clips[0].scope_before == pytest.approx(before, rel=1e-6)


def test_a_model_of_one_number_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model) as watch:
        model(torch.tensor([8.0])).sum().backward()
        clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
    record = watch["optimizer"]
    assert (record.step, record.norm_before, record.backward_passes) == (1, 8.0, 1)
    assert record.norm_after == pytest.approx(2.0, rel=1e-6)
    assert record.clip_ratio == pytest.approx(0.25, rel=1e-6)
    assert dict(record.modules) == {"(root)": (8.0, record.norm_after)}
    assert list(record.parameters) == ["weight"]


def simple() -> tuple[nn.Linear, torch.optim.SGD]:
    model = nn.Linear(3, 1, bias=False)
    return model, torch.optim.SGD(model.parameters(), lr=0.0)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, scale: float = 1.0) -> None:
    """One step with a gradient of (1, 2, 2) * scale: a norm of 3 * scale."""
    optimizer.zero_grad()
    model(torch.tensor([1.0, 2.0, 2.0]) * scale).sum().backward()
    optimizer.step()


def test_clipping_by_the_users_own_code() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        model(torch.tensor([1.0, 2.0, 2.0])).sum().backward()
        model.weight.grad.mul_(0.5)  # type: ignore[union-attr]
        optimizer.step()
    record = watch["optimizer"]
    assert (record.norm_before, record.norm_after, record.max_norm) == (3.0, 1.5, None)


def test_a_gradient_that_is_replaced() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        model(torch.tensor([1.0, 2.0, 2.0])).sum().backward()
        model.weight.grad = torch.tensor([[0.0, 0.0, 1.0]])
        optimizer.step()
    assert (watch["optimizer"].norm_before, watch["optimizer"].norm_after) == (3.0, 1.0)


def test_a_gradient_that_no_backward_wrote() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        for norm in (2.0, 4.0):
            model.weight.grad = torch.tensor([[0.0, 0.0, norm]])
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert [r.norm_before for r in watch.history] == [2.0, 4.0]
    assert [r.norm_after for r in watch.history] == pytest.approx([1.0, 1.0], rel=1e-5)
    assert [r.backward_passes for r in watch.history] == [0, 0]


def test_what_an_earlier_step_measured_is_not_reported_again() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        step(model, optimizer)
        model.weight.grad = torch.tensor([[0.0, 0.0, 7.0]])
        optimizer.step()
    assert (watch["optimizer"].norm_before, watch["optimizer"].norm_after) == (7.0, 7.0)


class _DoesNotFitError(Exception):
    """A micro-batch that does not fit into memory."""


def _micro_batch(net: nn.Sequential, fits: bool) -> None:
    def refuse(_: Tensor) -> None:
        raise _DoesNotFitError

    # The last layer is written by then, and the first is not.
    hook = None if fits else net[0].weight.register_hook(refuse)
    with contextlib.suppress(_DoesNotFitError):
        net(torch.randn(8, 4)).square().mean().backward()
    if hook is not None:
        hook.remove()


def test_what_a_pass_has_written_that_ended_in_an_exception_is_measured() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            for fits in (True, True, False):
                _micro_batch(net, fits)
            expected = gradwatch.global_norm(net).item()
            optimizer.step()
            assert watch["optimizer"].norm_before == pytest.approx(expected, rel=1e-12)
            assert watch["optimizer"].clip_ratio == 1.0


def test_a_pass_that_ended_in_an_exception_and_is_repeated_is_none_that_was_lost() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(20):
            for fits in (False, True):
                optimizer.zero_grad()
                _micro_batch(net, fits)
            optimizer.step()
    assert watch.alerts == []


@pytest.mark.parametrize("shared", [False, True])
def test_an_optimizer_that_torch_does_not_hook_is_told_of(shared: bool, caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Linear(4, 1)
    unhooked, hooked = (torch.optim.SGD(net.parameters(), lr=0.1) for _ in range(2))
    vars(unhooked)["step"] = lambda: hooked.step()
    optimizers = {"one": unhooked, "other": hooked} if shared else {"one": unhooked}
    with gradwatch.track(optimizers, net):
        for _ in range(4):
            unhooked.zero_grad()
            net(torch.randn(8, 4)).square().mean().backward()
            unhooked.step()
    told = [message for message in caplog.messages if "saw no step of one and has no record of it" in message]
    assert len(told) == (0 if shared else 1)


@pytest.mark.parametrize("replaced", [False, True])
def test_an_optimizer_that_the_loop_replaces_is_told_of(replaced: bool, caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Linear(4, 1)
    first = optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(first, net):
        for step in range(80):
            if replaced and step == 5:
                optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
            optimizer.zero_grad()
            net(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    told = [message for message in caplog.messages if "saw no step" in message]
    assert ["saw no step of optimizer after step 5" in message for message in told] == [True] * replaced


def test_gradients_summed_for_long_are_no_steps_unseen(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(optimizer, net):
        for micro_batch in range(1, 3 * 70 + 66):
            (net(torch.randn(8, 4)).square().mean() / 70).backward()
            if micro_batch % 70 == 0:
                optimizer.step()
                optimizer.zero_grad()
    assert not any("saw no step" in message for message in caplog.messages)


@pytest.mark.parametrize(("passes", "told"), [(80, 1), (20, 0)])
def test_an_optimizer_that_never_steps_is_told_of(
    passes: int, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    generator, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    of_generator, of_critic = (torch.optim.SGD(net.parameters(), lr=0.01) for net in (generator, critic))
    optimizers, modules = {"g": of_generator, "d": of_critic}, {"g": generator, "d": critic}
    with gradwatch.track(optimizers, modules, rules=[]):
        for _ in range(passes):
            of_generator.zero_grad()
            of_critic.zero_grad()
            critic(generator(torch.randn(8, 4))).square().mean().backward()
            of_critic.step()
    assert sum("g has not stepped once" in message for message in caplog.messages) == told
    assert not any("d has not stepped" in message for message in caplog.messages)


def test_parameters_that_come_later_are_no_weights_that_have_changed(caplog: pytest.LogCaptureFixture) -> None:
    net, more = nn.Linear(4, 1), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradwatch.track(optimizer):
        net(torch.randn(8, 4)).square().mean().backward()
        optimizer.add_param_group({"params": list(more.parameters())})
        more(torch.randn(8, 4)).square().mean().backward()
    assert caplog.messages == []


def test_the_clip_calls_of_an_optimizer_that_waits_while_another_steps_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TrackedOptimizer, "MOST_CLIPS", 2)
    net = nn.Linear(4, 1)
    first, then = (torch.optim.SGD(net.parameters(), lr=0.1) for _ in range(2))
    with gradwatch.track({"first": first, "then": then}, net) as watch:
        for limit in range(1, 11):
            (first if limit < 10 else then).zero_grad()
            net(torch.randn(8, 4)).square().mean().backward()
            clip_grad_norm_(net.parameters(), float(limit))
            (first if limit < 10 else then).step()
    assert [clip.limit for clip in watch["then"].clips] == [7.0, 8.0, 9.0, 10.0]


def test_a_block_whose_report_was_interrupted_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
        watch.flush()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Verdicts, "take", _interrupted)
            for _ in range(40):
                optimizer.zero_grad()
                net(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
    dropped = watch.health().dropped_records
    assert dropped > 0
    assert watch.state_dict()["steps"]["optimizer"] == len(watch.history) + dropped


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_optimizer_whose_groups_are_filled_later_is_not_ill_before() -> None:
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD([{"params": []}], lr=0.1)
    with gradwatch.track(optimizer) as watch:
        for step in range(12):
            if step == 6:
                optimizer.add_param_group({"params": list(net.parameters())})
            optimizer.zero_grad()
            net(torch.ones(2, 3)).sum().backward()
            optimizer.step()
    assert watch.alerts == []
    assert [record.norm_before > 0 for record in watch.history] == [False] * 6 + [True] * 6


def test_a_group_added_mid_run_is_measured_at_the_end_of_backward() -> None:
    model, late = nn.Linear(3, 1, bias=False), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer) as watch:
        optimizer.add_param_group({"params": [late]})
        step(model, optimizer)
        (late * 8).sum().backward()
        late.grad.mul_(0.5)  # type: ignore[union-attr]
        optimizer.step()
    assert watch["optimizer"].parameters["group1.param0"] == (8.0, 4.0)


ZEROINGS: dict[str, Callable[[nn.Module, torch.optim.Optimizer], None]] = {
    "optimizer": lambda m, o: o.zero_grad(),
    "optimizer to zero": lambda m, o: o.zero_grad(set_to_none=False),
    "model": lambda m, o: m.zero_grad(),
    "by hand": lambda m, o: [p.grad.zero_() for p in m.parameters() if p.grad is not None] and None,  # type: ignore[func-returns-value]
    "to none by hand": lambda m, o: [setattr(p, "grad", None) for p in m.parameters()] and None,
}


@pytest.mark.parametrize("name", ZEROINGS)
def test_every_way_to_zero(name: str) -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        for scale in (1.0, 2.0, 3.0):
            with torch.no_grad():
                ZEROINGS[name](model, optimizer)
            model(torch.tensor([1.0, 2.0, 2.0]) * scale).sum().backward()
            optimizer.step()
    assert [(r.norm_before, r.norm_after) for r in watch.history] == [(3.0, 3.0), (6.0, 6.0), (9.0, 9.0)]


@pytest.mark.parametrize("to_none", [False, True])
def test_a_gradient_zeroed_before_the_step(to_none: bool) -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        model(torch.tensor([1.0, 2.0, 2.0])).sum().backward()
        optimizer.zero_grad(set_to_none=to_none)
        optimizer.step()
    record = watch["optimizer"]
    assert record.norm_before == 3.0
    assert math.isnan(record.norm_after) if to_none else record.norm_after == 0.0
    assert record.missing == (("weight",) if to_none else ())


def test_a_missing_gradient_is_missing_and_never_zero() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        model["used"](torch.ones(3)).sum().backward()
        optimizer.step()
    record = watch["optimizer"]
    assert record.missing == ("unused.weight", "unused.bias")
    assert record.missing_modules == ("unused",)
    assert math.isnan(record.modules["unused"].norm_after)
    assert record.norm_after == pytest.approx(2.0)


def test_float64_gradients_beyond_their_squares() -> None:
    model, optimizer = simple()
    model.double()
    with gradwatch.track(optimizer, model) as watch:
        model.weight.grad = torch.tensor([[1e200, 2e200, 2e200]], dtype=torch.float64)
        optimizer.step()
    assert watch["optimizer"].norm_after == pytest.approx(3e200, rel=1e-12)


def test_sparse_gradients() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        model(torch.tensor([1, 1, 3])).sum().backward()  # row 1 gets (2, 2), row 3 gets (1, 1)
        optimizer.step()
    assert watch["optimizer"].norm_after == pytest.approx(math.sqrt(10), rel=1e-12)
    assert watch.health().internal_errors == 0


def test_parameters_without_a_module_are_numbered() -> None:
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=0.1)
    with gradwatch.track(optimizer) as watch:
        (one * 3 + other * 4).sum().backward()
        optimizer.step()
    record = watch["optimizer"]
    assert dict(record.parameters) == {"group0.param0": (3.0, 3.0), "group1.param0": (4.0, 4.0)}
    assert (record.norm_after, dict(record.modules)) == (5.0, {})


def test_every_third_step_is_measured() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model, every=3) as watch:
        for scale in range(1, 11):
            step(model, optimizer, scale)
    assert [(r.step, r.norm_before, r.backward_passes) for r in watch.history] == [
        (3, 9.0, 1),
        (6, 18.0, 1),
        (9, 27.0, 1),
    ]


def test_history_is_bounded_and_holds_the_newest() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model, history=3) as watch:
        for _ in range(5):
            step(model, optimizer)
    assert [r.step for r in watch.history] == [3, 4, 5]
    with gradwatch.track(optimizer, model, history=0) as none:
        step(model, optimizer)
    assert none.history == []
    assert none["optimizer"].step == 1


def test_an_empty_set_of_rules_is_no_default() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model, rules=()) as watch:
        step(model, optimizer, math.nan)
    assert watch.alerts == []


def test_a_param_group_added_mid_run() -> None:
    model, late = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    both = nn.ModuleDict({"model": model, "late": late})
    with gradwatch.track(optimizer, both) as watch:
        step(model, optimizer)
        optimizer.add_param_group({"params": list(late.parameters())})
        for _ in range(2):
            optimizer.zero_grad()
            (model(torch.tensor([1.0, 2.0, 2.0])) + late(torch.tensor([0.0, 0.0, 4.0]))).sum().backward()
            clip_grad_norm_(both.parameters(), 1.0)
            optimizer.step()
    first, second, third = watch.history
    assert (first.norm_after, list(first.modules)) == (3.0, ["model"])
    assert (second.norm_after, list(second.modules)) == (pytest.approx(1.0, rel=1e-5), ["model", "late"])
    assert third.norm_before == 5.0
    assert third.modules["late"] == (4.0, pytest.approx(0.8, rel=1e-5))
    assert not any(p._post_accumulate_grad_hooks for p in both.parameters())


def test_a_tied_parameter_counts_once_in_the_optimizer() -> None:
    one, other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    other.weight = one.weight
    optimizer = torch.optim.SGD([one.weight], lr=0.1)
    with gradwatch.track(optimizer, {"one": one, "other": other}) as watch:
        one.weight.grad = torch.ones(3, 3)
        optimizer.step()
    record = watch["optimizer"]
    assert record.norm_after == record.modules["one"].norm_after == record.modules["other"].norm_after == 3.0


def test_trackers_nest() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as outer:
        step(model, optimizer)
        with gradwatch.track(optimizer, model) as inner:
            step(model, optimizer, 2.0)
        step(model, optimizer, 3.0)
    assert [r.norm_after for r in outer.history] == [3.0, 6.0, 9.0]
    assert [(r.step, r.norm_after) for r in inner.history] == [(1, 6.0)]


# What a watch answers.


def test_reading_a_watch() -> None:
    model, optimizer = simple()
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with gradwatch.track({"a": optimizer, "b": other}, {"m": model}) as watch:
        with pytest.raises(KeyError, match="no measured step yet"):
            watch["a"]
        assert watch.last == {}
        step(model, optimizer)
        assert watch["a"] == watch.last["a"] == watch.history[-1]
        with pytest.raises(KeyError, match=r"'unknown'.*'a', 'b'"):
            watch["unknown"]
        with pytest.raises(KeyError):
            watch["b"]
    assert watch["a"].norm_after == 3.0
    assert list(watch.last) == ["a"]


def test_what_is_read_is_a_copy() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        step(model, optimizer)
        watch.history.clear()
        assert len(watch.history) == 1


def test_entering_twice() -> None:
    model, optimizer = simple()
    watch = gradwatch.track(optimizer, model)
    with watch, pytest.raises(TrackerStateError, match="entered already"), watch:
        pass
    with pytest.raises(TrackerStateError, match="closed already"):
        watch.__enter__()
    watch.close()


def test_nothing_is_seen_after_close() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        step(model, optimizer)
        watch.close()
        step(model, optimizer)
    assert len(watch.history) == 1


def test_all_is_written_when_the_with_is_left_also_after_an_exception() -> None:
    model, optimizer = simple()
    memory = gradwatch.sinks.Memory()
    with pytest.raises(ZeroDivisionError), gradwatch.track(optimizer, model, sinks=[memory]) as watch:
        for _ in range(20):
            step(model, optimizer)
        1 / 0
    assert memory.records == watch.history
    assert len(memory.records) == 20


def test_flush_waits_for_the_sinks() -> None:
    model, optimizer = simple()
    memory = gradwatch.sinks.Memory()
    with gradwatch.track(optimizer, model, sinks=[memory]) as watch:
        step(model, optimizer)
        watch.flush()
        assert memory.records == watch.history


# Alerts.


def test_a_nan_reaches_the_log_the_watch_the_sink_and_the_callback(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = simple()
    memory, told = gradwatch.sinks.Memory(), list[Alert]()
    with (
        caplog.at_level(logging.INFO, "gradwatch"),
        gradwatch.track(optimizer, model, sinks=[memory], on_alert=told.append) as watch,
    ):
        step(model, optimizer, math.nan)
        assert [a.rule for a in watch.active] == ["nonfinite"]
        for _ in range(10):
            step(model, optimizer)
    assert [(a.rule, a.state) for a in told] == [("nonfinite", s) for s in ("firing", "explained", "resolved")]
    assert watch.alerts == memory.alerts == told
    assert watch.active == []
    assert watch.history[0].nonfinite == ("weight",)
    levels = [r.levelno for r in caplog.records if "nonfinite" in r.getMessage()]
    assert levels == [logging.ERROR, logging.ERROR, logging.INFO]


def test_nothing_is_logged_or_printed_on_a_healthy_run(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer = simple()
    with caplog.at_level(logging.INFO, "gradwatch"), gradwatch.track(optimizer, model):
        for _ in range(30):
            step(model, optimizer)
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


# Nothing of gradwatch's, and nothing it was given, disturbs training.


class Faulty:
    id = "faulty"
    severity: Severity = "warning"
    fires_after = clears_after = 1

    def look(self, record: StepRecord) -> Iterator[Finding]:
        raise ZeroDivisionError


class FaultySink:
    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        raise ZeroDivisionError

    def close(self) -> None:
        raise ZeroDivisionError


def fail(alert: Alert) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rules": [Faulty()]}, "'faulty'"),
        ({"sinks": [FaultySink()]}, "FaultySink"),
        ({"on_alert": fail}, "gradwatch failed in"),
    ],
)
def test_what_fails_is_logged_once_and_training_goes_on(
    arguments: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = simple()
    with caplog.at_level(logging.ERROR, "gradwatch"), gradwatch.track(optimizer, model, **arguments) as watch:
        for scale in itertools.chain([math.nan], [1.0] * 12):
            step(model, optimizer, scale)
    assert len(watch.history) == 13
    assert sum(says in record.getMessage() for record in caplog.records) == 1
    assert all(record.name == "gradwatch" for record in caplog.records)


def test_a_failing_sink_is_counted_and_takes_no_other_with_it() -> None:
    model, optimizer = simple()
    memory = gradwatch.sinks.Memory()
    with gradwatch.track(optimizer, model, sinks=[FaultySink(), memory]) as watch:
        for _ in range(3):
            step(model, optimizer)
    assert watch.health().sink_errors["FaultySink"] >= 2
    assert watch.health().sink_errors["Memory"] == 0
    assert len(memory.records) == 3


def test_an_error_in_measuring_is_kept_in_logged_once_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    model, optimizer = simple()
    expected = nn.Linear(3, 1, bias=False)
    with gradwatch.track(optimizer, model) as watch:
        monkeypatch.setattr(kernel, "norms", broken)
        for _ in range(3):
            step(model, optimizer)
            clip_grad_norm_(model.parameters(), 1.0)
    assert watch.history == []
    assert watch.health().internal_errors >= 6
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(set(messages)) <= 3
    assert expected.weight.grad is None


def test_an_interrupt_from_the_keyboard_is_the_users() -> None:
    def interrupt(alert: Alert) -> None:
        raise KeyboardInterrupt

    model, optimizer = simple()
    with pytest.raises(KeyboardInterrupt), gradwatch.track(optimizer, model, on_alert=interrupt):
        step(model, optimizer, math.nan)


def test_an_interrupt_while_the_tracker_closes_leaves_no_sink_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: bool) -> None:
        raise KeyboardInterrupt

    class Closed(gradwatch.sinks.Memory):
        times = 0

        def close(self) -> None:
            self.times += 1

    model, optimizer = simple()
    sink = Closed()
    watch = gradwatch.track(optimizer, model, sinks=[sink])
    monkeypatch.setattr(watch._observer, "_finish", interrupt)
    with pytest.raises(KeyboardInterrupt), watch:
        step(model, optimizer)
    assert (len(sink.records), sink.times) == (1, 1)


def test_health_counts_time() -> None:
    model, optimizer = simple()
    with gradwatch.track(optimizer, model) as watch:
        assert watch.health().overhead_seconds == 0.0
        step(model, optimizer)
        assert 0.0 < watch.health().overhead_seconds < 60.0
    assert watch.health().dropped_records == 0


def test_a_callback_hears_of_a_step_before_the_next_one() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer, heard = torch.optim.SGD([weight], lr=0.0), []
    with gradwatch.track(optimizer, on_alert=heard.append):
        weight.grad = torch.full((2,), math.nan)
        optimizer.step()
        assert [alert.rule for alert in heard] == ["nonfinite"]
