"""How a diagnosis is armed, what it leaves behind, and that its own errors stay inside."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradwatch.diagnose.passes
from gradwatch.causes import REMEDIES
from gradwatch.diagnose import Diagnosis
from gradwatch.diagnose.graph.walk import Graph
from tests.zoo.healthy_still import actor_critic
from tests.zoo.nets import batch, filled


def dead_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(filled(nn.Linear(4, 4), bias=-50.0), nn.ReLU(), nn.Linear(4, 1))


def backward(net: nn.Module) -> None:
    net(torch.ones(3, 4)).sum().backward()


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_armed_and_finished_by_the_hooks_of_an_optimizer() -> None:
    """The loop knows nothing: the diagnosis is armed after one step and finished before the next."""
    net = dead_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    diagnosis = Diagnosis(net)
    optimizer.register_step_post_hook(lambda *_: diagnosis.start() if not diagnosis.passes else None)
    optimizer.register_step_pre_hook(lambda *_: diagnosis.finish())
    for _ in range(3):
        optimizer.zero_grad()
        backward(net)
        optimizer.step()
    assert diagnosis.causes["0"].kind == "dead-relu"
    assert diagnosis.passes == 1


def test_finished_at_the_end_of_the_backward_pass_from_within_it() -> None:
    net = dead_net()
    diagnosis = Diagnosis(net)
    queue = torch.autograd.Variable._execution_engine.queue_callback
    net[2].bias.register_post_accumulate_grad_hook(lambda _: queue(lambda: queue(diagnosis.finish)))
    diagnosis.start()
    backward(net)
    assert diagnosis.causes["0"].kind == "dead-relu"
    assert torch.autograd._engine_run_backward is torch.autograd.graph._engine_run_backward


def test_what_it_found_is_readable() -> None:
    net = dead_net()
    diagnosis = Diagnosis(net)
    assert str(diagnosis) == repr(diagnosis) == "No backward pass was looked at."
    with diagnosis:
        backward(net)
    head, dead, fed = str(diagnosis).splitlines()
    assert head == "1 backward pass looked at:"
    assert dead.startswith("  module 0 and 2 more: dead-relu at module 1 (")
    assert "4 of 4 units dead" in dead
    assert dead.endswith(REMEDIES["dead-relu"])
    assert fed.startswith("  2.weight: zero-input at module 2 (")
    with Diagnosis(nn.Linear(4, 4)) as healthy:
        nn.functional.linear(torch.ones(2, 4), torch.ones(4, 4, requires_grad=True)).sum().backward()
    assert "unused" in str(healthy)
    net[0].bias.data.fill_(1.0)
    with Diagnosis(net) as healthy:
        backward(net)
    assert (
        str(healthy) == "1 backward pass looked at: no gradient is zero, missing, not finite or next to nothing."
    )


def test_nothing_is_left_behind() -> None:
    net = dead_net()
    engine = torch.autograd._engine_run_backward
    assert hooks(net) == 0
    with Diagnosis(net):
        assert hooks(net) == 0
        assert torch.autograd._engine_run_backward is not engine
        backward(net)
    assert hooks(net) == 0
    assert torch.autograd._engine_run_backward is engine


def test_before_it_is_armed_nothing_is_touched() -> None:
    net = dead_net()
    diagnosis = Diagnosis(net)
    assert hooks(net) == 0
    backward(net)
    assert diagnosis.passes == 0
    assert diagnosis.causes == {}
    diagnosis.finish()
    assert diagnosis.causes == {}


def test_finishing_twice_changes_nothing() -> None:
    net = dead_net()
    with Diagnosis(net) as diagnosis:
        backward(net)
        diagnosis.finish()
        causes = diagnosis.causes
    assert diagnosis.causes is causes


def test_two_overlap_and_leave_out_of_order() -> None:
    net = dead_net()
    engine = torch.autograd._engine_run_backward
    first, second = Diagnosis(net), Diagnosis(net)
    first.start()
    second.start()
    backward(net)
    first.finish()
    assert torch.autograd._engine_run_backward is not engine
    second.finish()
    assert torch.autograd._engine_run_backward is engine
    assert first.causes["0"].kind == second.causes["0"].kind == "dead-relu"


def test_an_exception_of_the_loop_passes_through() -> None:
    net = dead_net()

    def fail(_: Tensor) -> None:
        raise ValueError("the user's own")

    def step() -> None:
        out = net(torch.ones(3, 4))
        out.register_hook(fail)
        out.sum().backward()

    diagnosis = Diagnosis(net)
    with pytest.raises(ValueError, match="the user's own"), diagnosis:
        step()
    assert hooks(net) == 0
    assert torch.autograd._engine_run_backward is torch.autograd.graph._engine_run_backward


def test_a_module_that_raises_does_not_confuse_the_next_call() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = dead_net()
            self.raises = True

        def forward(self, x: Tensor) -> Tensor:
            out = self.inner(x)
            if self.raises:
                raise ValueError("in a mood")
            return out

    net = Moody()
    with Diagnosis(net) as diagnosis:
        with pytest.raises(ValueError, match="in a mood"):
            net(torch.ones(3, 4))
        net.raises = False
        backward(net)
    assert diagnosis.causes["inner.0"].kind == "dead-relu"
    assert diagnosis.causes["inner.0"].where == "inner.1"


@pytest.mark.parametrize("broken", ["why", "Graph"])
def test_errors_inside_stay_inside(
    monkeypatch: pytest.MonkeyPatch, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("inside")

    holder = gradwatch.diagnose.passes
    monkeypatch.setattr(holder, broken, fail)
    net = dead_net()
    with Diagnosis(net) as diagnosis:
        backward(net)
    assert diagnosis.errors
    cause = diagnosis.causes["0.weight"]
    assert cause.kind == "unknown"
    assert "inside" in cause.evidence["error"]
    assert net[2].bias.grad is not None
    assert len([r for r in caplog.records if r.name == "gradwatch"]) == 1


def test_only_the_parameters_asked_for() -> None:
    net = dead_net()
    with Diagnosis({"net": net}, {"mine": net[0].weight, "alive": net[2].bias}) as diagnosis:
        backward(net)
    assert set(diagnosis.causes) == {"net.0", "mine"}


def test_a_module_is_ill_only_if_all_of_it_is() -> None:
    net = dead_net()
    with Diagnosis({"net": net, "layer": net[0]}) as diagnosis:
        backward(net)
    assert set(diagnosis.causes) == {
        "net.0", "layer", "net.0.weight", "net.0.bias", "layer.weight", "layer.bias", "net.2.weight",
    }  # fmt: skip
    assert diagnosis.causes["net.2.weight"].kind == "zero-input"


def test_gradients_taken_by_autograd_grad() -> None:
    net = dead_net()
    with Diagnosis(net) as diagnosis:
        torch.autograd.grad(net(torch.ones(3, 4)).sum(), list(net.parameters()))
    assert diagnosis.causes["0.bias"].kind == "dead-relu"


def test_parameters_without_modules() -> None:
    weight, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    with Diagnosis({}, {"group0.param0": weight, "group0.param1": other}) as diagnosis:
        torch.tanh(weight * 100).sum().backward()
    assert diagnosis.causes["group0.param0"].kind == "saturated-tanh"
    assert diagnosis.causes["group0.param1"].kind == "unknown"


@pytest.mark.parametrize("hinge", [torch.relu, lambda margin: margin.clamp(min=0)])
def test_a_hinge_that_is_kept_is_told_without_modules_too(hinge: Callable[[Tensor], Tensor]) -> None:
    weight = torch.full((4,), 9.0, requires_grad=True)
    with Diagnosis({}, {"group0.param0": weight}) as diagnosis:
        hinge(1 - weight).mean().backward()
    assert diagnosis.causes["group0.param0"].kind == "zero-loss"


@pytest.mark.parametrize(("end", "kind"), [(torch.relu, "dead-relu"), (lambda h: h.clamp(min=0), "clamped")])
def test_without_modules_what_a_loss_function_follows_is_no_hinge(
    end: Callable[[Tensor], Tensor], kind: str
) -> None:
    weight = torch.full((4,), -9.0, requires_grad=True)
    with Diagnosis({}, {"group0.param0": weight}) as diagnosis:
        (end(weight) - 1).square().mean().backward()
    assert diagnosis.causes["group0.param0"].kind == kind


def test_without_modules_a_network_is_not_taken_for_a_loss() -> None:
    first, bias, last = (
        nn.Parameter(torch.ones(3, 3)),
        nn.Parameter(torch.full((3,), -9.0)),
        nn.Parameter(torch.ones(3)),
    )
    with Diagnosis({}, {"first": first}) as diagnosis:
        torch.relu(torch.ones(2, 3) @ first + bias).sum().backward()
    assert diagnosis.causes["first"].kind == "dead-relu"
    with Diagnosis({}, {"last": last}) as diagnosis:
        (nn.functional.mse_loss(last, torch.zeros(3), reduction="none") * torch.zeros(3)).sum().backward()
    assert diagnosis.causes["last"].kind == "zero-loss"


def test_no_backward_no_causes() -> None:
    net = dead_net()
    with Diagnosis(net) as diagnosis:
        net(torch.ones(3, 4))
    assert diagnosis.causes == {}


def test_what_two_losses_give_is_taken_together() -> None:
    """The first loss leaves the head out, the second does not: nothing is wrong with the head."""
    body, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)
    with Diagnosis({"body": body, "head": head}) as diagnosis:
        body(x).sum().backward()
        head(body(x).detach()).sum().backward()
    assert diagnosis.causes == {}


class Weighted(nn.Module):
    """Its output is that of a function of its user's own, which torch frees with the output."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return x * weight

        @staticmethod
        def backward(ctx, given: Tensor) -> tuple[Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            return given * weight, (given * x).sum(0)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.Product.apply(x, self.weight)


def test_what_is_cut_off_after_a_function_of_ones_own_is_not_said_to_be_unused() -> None:
    body, head = Weighted(), nn.Linear(4, 1)
    with Diagnosis({"body": body, "head": head}) as diagnosis:
        head(body(batch(3, 4)).detach()).sum().backward()
    assert (diagnosis.causes["body"].kind, diagnosis.causes["body"].where) == ("detached", "body")
    assert diagnosis.errors == []


def test_a_gradient_written_by_other_means_is_no_missing_one() -> None:
    net, x = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}), batch(3, 4)
    with Diagnosis(net) as diagnosis:
        net["a"](x).sum().backward()
        for parameter in net["b"].parameters():
            parameter.grad = torch.ones_like(parameter)
    assert diagnosis.causes == {}


def test_a_gradient_left_from_before_is_no_new_one() -> None:
    net, x = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}), batch(3, 4)
    net["b"](x).sum().backward()
    with Diagnosis(net) as diagnosis:
        net["a"](x).sum().backward()
    assert diagnosis.causes["b"].kind == "unused"


def test_in_threads() -> None:
    found: dict[int, str] = {}

    def train(number: int) -> None:
        net = (
            dead_net()
            if number % 2
            else nn.Sequential(filled(nn.Linear(4, 4), bias=40.0), nn.Tanh(), nn.Linear(4, 1))
        )
        with Diagnosis(net) as diagnosis:
            backward(net)
        found[number] = diagnosis.causes["0"].kind + "@" + diagnosis.causes["0"].where

    threads = [threading.Thread(target=train, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: "dead-relu@1" if n % 2 else "saturated-tanh@1" for n in range(6)}


def test_activations_are_let_go() -> None:
    """Also of a branch that no backward pass ran through, whose graph still holds what it saved."""
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), batch(3, 4)
    other = nn.Linear(4, 1)
    held: list[weakref.ref[Tensor]] = []

    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor) -> Tensor:
            ctx.kept = value.clone()  # type: ignore[attr-defined]
            held.append(weakref.ref(ctx.kept))  # type: ignore[attr-defined]
            return value * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 2

    def step() -> None:
        Keeps.apply(net(x))
        other(Keeps.apply(net(x))).sum().backward()

    diagnosis = Diagnosis({"net": net, "other": other})
    with diagnosis:
        step()
    gc.collect()
    assert len(held) == 2
    assert [reference() for reference in held] == [None, None]


def test_tensors_packed_by_hooks_are_unpacked_as_often_as_without() -> None:
    unpacked: list[int] = []

    def step(net: nn.Module) -> int:
        unpacked.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: (unpacked.append(1), t)[1]):
            loss = net(torch.ones(3, 4)).sum()
        loss.backward()
        return len(unpacked)

    bare = step(dead_net())
    assert bare > 0
    with Diagnosis(net := dead_net()) as diagnosis:
        watched = step(net)
    assert diagnosis.causes["0"].kind == "dead-relu"
    # An older torch does not tell of hooks: there it is unpacked again, after the operation itself has done so.
    saved = torch.tanh(torch.ones(1, requires_grad=True)).grad_fn._raw_saved_result
    assert watched == bare if hasattr(saved, "unpack_hook") else watched >= bare


def test_inside_functional_transforms_and_tracing_it_keeps_out() -> None:
    net, x = nn.Linear(4, 1), batch(3, 4)
    values = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(net, parameters, sample).sum()

    with Diagnosis(net) as diagnosis:
        each = torch.func.vmap(torch.func.grad(loss), (None, 0))(values, x)
    assert each["weight"].shape == (3, 1, 4)
    assert diagnosis.errors == []


def test_downstream_follows_the_graph() -> None:
    torch.manual_seed(2)
    healthy = actor_critic()
    lines = {name: module.parameters() for name, module in healthy.modules.items()}
    with Diagnosis(healthy.modules, lines=lines) as diagnosis:
        healthy.step()
    assert diagnosis.downstream["actor"] == {"critic"}
    assert "actor" not in diagnosis.downstream.get("critic", set())


def counted(function: Callable[[], object]) -> int:
    """Graphs walked while a function runs."""
    walked: list[Graph] = []
    original = Graph.__init__

    def noted(self: Graph, *args: object) -> None:
        walked.append(self)
        original(self, *args)  # type: ignore[arg-type]

    Graph.__init__ = noted  # type: ignore[method-assign]
    try:
        function()
    finally:
        Graph.__init__ = original  # type: ignore[method-assign]
    return len(walked)


def test_it_costs_nothing_while_it_is_not_armed() -> None:
    net = dead_net()
    diagnosis = Diagnosis(net)
    assert counted(lambda: backward(net)) == 0
    diagnosis.start()
    assert counted(lambda: backward(net)) == 1
    diagnosis.finish()
    assert counted(lambda: backward(net)) == 0


@pytest.mark.parametrize("where", ["all of it", "a part", "none"])
def test_wrappers_are_seen_through(where: str) -> None:
    body: nn.Module = nn.Sequential(filled(nn.Linear(4, 4), bias=40.0), nn.Tanh())
    net: nn.Module = nn.Sequential(nn.DataParallel(body) if where == "a part" else body, nn.Linear(4, 1))
    net = nn.DataParallel(net) if where == "all of it" else net
    with Diagnosis({"net": net}) as diagnosis:
        net(batch(3, 4)).sum().backward()
    assert diagnosis.errors == []
    assert diagnosis.causes["net.0.0.weight"].kind == "saturated-tanh"
    assert {path: found.where for path, found in diagnosis.causes.items()} == dict.fromkeys(
        ("net.0", "net.0.0", "net.0.0.weight", "net.0.0.bias"), "net.0.1"
    )


def test_downstream_is_told_by_the_lines() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 1))
    lines = {"low": net[0][0].parameters(), "mid": net[0][1].parameters(), "high": net[1].parameters()}
    with Diagnosis(net, lines=lines) as told:
        net(batch(3, 4)).sum().backward()
    assert told.downstream == {"low": {"mid", "high"}, "mid": {"high"}}
