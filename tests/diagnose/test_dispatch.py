"""The calls of modules are seen, and no module has anything of ours on it."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.diagnose import Diagnosis
from gradwatch.diagnose.look.calls import Calls
from gradwatch.diagnose.look.dispatch import module_calls
from tests.saved import saved

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Listening:
    """Notes which modules were entered and left."""

    def __init__(self) -> None:
        self.events: list[tuple[str, nn.Module]] = []

    def entered(self, module: nn.Module, given: object) -> None:
        self.events.append(("entered", module))

    def left(self, module: nn.Module, output: Any) -> None:
        self.events.append(("left", module))


@contextmanager
def listening() -> Iterator[Listening]:
    listener = Listening()
    module_calls.listen(listener)
    try:
        yield listener
    finally:
        module_calls.stop_listening(listener)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(self.body(x)) * scale


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is counted no more")
def test_a_thousand_calls_that_are_seen_leave_none_as_many_references() -> None:
    module = nn.Identity()
    with listening() as listener:
        module(X)
        listener.events.clear()
        gc.collect()
        gc.disable()  # or what other tests have left may go meanwhile, with all that it held
        try:
            before = sys.getrefcount(None)
            for _ in range(1000):
                module(X)
            after = sys.getrefcount(None)
        finally:
            gc.enable()
    assert len(listener.events) == 2000
    assert abs(after - before) < 100


def twice(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return output * 2


def hooked() -> Net:
    net = Net()
    net.body.register_forward_hook(twice)
    return net


def fails(module: nn.Module, args: tuple[Any, ...]) -> None:
    raise ValueError("of the user's")


def test_calls_are_entered_and_left_in_order() -> None:
    net = Net()
    with listening() as listener:
        net(X, scale=2.0)
    body, head = net.body, net.head
    whole = [("entered", net), ("entered", body), ("left", body), ("entered", head)]
    parts = [(what, part) for part in head for what in ("entered", "left")]
    assert listener.events == [*whole, *parts, ("left", head), ("left", net)]


def test_the_function_is_the_same_and_its_code_comes_back() -> None:
    function, code = nn.Module.__call__, nn.Module.__call__.__code__
    with listening(), listening():
        assert nn.Module.__call__ is nn.Module._wrapped_call_impl is function
        assert function.__code__ is not code
    assert function.__code__ is code


def test_a_call_that_raises_is_never_left_and_raises_the_same() -> None:
    net = Net()
    net.head.register_forward_pre_hook(fails)
    with listening() as listener, pytest.raises(ValueError, match="of the user's"):
        net(X)
    assert [m for what, m in listener.events if what == "left"] == [net.body]


def test_a_call_that_raised_is_not_taken_for_a_later_one() -> None:
    net, errors = Net(), []
    calls = Calls([("net", net), ("body", net.body), ("head", net.head)], errors.append)
    broken = net.head.register_forward_pre_hook(fails)
    calls.attach()
    with pytest.raises(ValueError, match="of the user's"):
        net(X)
    broken.remove()
    out = net(X)
    calls.detach()
    assert [call.path for call in calls.all] == ["body", "body", "head", "net"]
    assert [call.path for call in calls.around(out.grad_fn, threading.get_ident())] == ["net"]
    assert errors == []


def test_a_replica_as_data_parallel_makes_it_is_told_as_what_it_is_of() -> None:
    net = Net()
    calls = Calls([("net", net), ("body", net.body)], pytest.fail)
    replica, copied = net.body._replicate_for_data_parallel(), copy.deepcopy(net.body)
    replica.weight, replica.bias = net.body.weight * 1, net.body.bias * 1
    calls.attach()
    replica(X)
    copied(X)
    calls.detach()
    assert [(call.path, call.module) for call in calls.all] == [("body", net.body)]


@pytest.mark.parametrize("begun", ["before", "inside"])
@pytest.mark.parametrize("ended", ["inside", "after"])
def test_armed_and_disarmed_in_the_middle_of_a_forward(begun: str, ended: str) -> None:
    net, errors = Net(), []
    calls = Calls([("net", net), ("body", net.body), ("head", net.head)], errors.append)
    code = nn.Module.__call__.__code__
    if begun == "inside":
        net.body.register_forward_pre_hook(lambda *_: calls.attach())
    else:
        calls.attach()
    if ended == "inside":
        net.head.register_forward_hook(lambda *_: calls.detach())
    net(X)
    calls.detach()
    seen = {("before", "after"): ["body", "head", "net"], ("inside", "after"): ["head"]}
    seen |= {("before", "inside"): ["body"], ("inside", "inside"): []}
    assert [call.path for call in calls.all] == seen[begun, ended]
    assert nn.Module.__call__.__code__ is code
    assert errors == []


def test_each_look_notes_what_it_was_given_in_whatever_thread_it_runs() -> None:
    nets = [Net() for _ in range(4)]
    looks = [Diagnosis({f"net{i}": net}) for i, net in enumerate(nets)]
    for look in looks:
        look.start()
    threads = [threading.Thread(target=lambda net=net: net(X).sum().backward()) for net in nets for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for look, i in zip(looks, range(4), strict=True):
        assert {call.path.partition(".")[0] for call in look._calls.all} == {f"net{i}"}
        assert len(look._calls.of(nets[i])) == 3
        look.finish()
        assert look.errors == []
    assert not module_calls.listeners


def scripted(net: Net) -> Any:
    return torch.jit.script(net)


def traced(net: Net) -> Any:
    return torch.jit.trace(net, X)


def exported(net: Net) -> Any:
    return torch.export.export(net, (X,)).module()


def fx(net: Net) -> Any:
    return torch.fx.symbolic_trace(net)


def prepared(way: Any, net: Net) -> tuple[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own, that these ways are old
        made = way(net)
    text = "\n".join(part.code for part in made.modules() if isinstance(getattr(part, "code", None), str))
    return text, made(X).detach().numpy().tobytes()


@pytest.mark.parametrize("net", [Net, hooked])
@pytest.mark.parametrize("way", [scripted, traced, exported, fx])
def test_made_into_another_program_as_without_a_look(way: Any, net: Any) -> None:
    if net is hooked and way is scripted:
        pytest.skip("torch scripts no hook that is not annotated")
    bare = prepared(way, net())
    model = net()
    with Diagnosis(model) as look:
        model(X).sum().backward()
        looked_at = prepared(way, model)
    assert looked_at == bare
    assert look.errors == []
    assert "gradwatch" not in looked_at[0]


def test_an_exported_program_names_no_line_of_ours() -> None:
    net = Net()
    with Diagnosis(net):
        program = torch.export.export(net, (X,))
    assert "gradwatch/" not in "".join(str(node.meta) for node in program.graph.nodes)


def test_saved_pickled_and_copied_as_without_a_look() -> None:
    bare, looked_at = Net(), Net()
    bare(X).sum().backward()
    with Diagnosis(looked_at):
        looked_at(X).sum().backward()
        assert saved(looked_at) == saved(bare)
        twin = copy.deepcopy(looked_at)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in twin.modules())


def test_a_fast_path_that_torch_takes_where_there_is_no_hook_is_taken() -> None:
    """In eval mode torch's own encoder layer runs as one kernel, which rounds otherwise, unless it has hooks."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    net, x = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval(), torch.randn(3, 5, 8)
    with torch.inference_mode():
        bare = net(x)
        with Diagnosis(net) as look:
            looked_at = net(x)
    assert torch.equal(looked_at, bare)
    # The kernel calls none of the layer's parts.
    assert {call.path for call in look._calls.all} == {"(root)", "layers.0"}


def test_the_loop_that_saves_its_model_after_each_step(tmp_path: Any) -> None:
    net = Net()
    dead = nn.Linear(4, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *dead.parameters()])
    with gradwatch.track(optimizer, {"net": net, "dead": dead}) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            net(X).square().mean().backward()
            optimizer.step()
            torch.save(net, tmp_path / "net.pt")
            torch.save(optimizer, tmp_path / "optimizer.pt")
    assert any(alert.state == "firing" for alert in watch.alerts)
    loaded = torch.load(tmp_path / "net.pt", weights_only=False)
    assert saved(loaded) == saved(net)


def test_after_a_look_nothing_keeps_what_ran_and_after_the_watch_nothing_the_model() -> None:
    net, dead, ran = Net(), nn.Linear(4, 4), []
    net.body.register_forward_hook(lambda _module, _args, output: ran.append(weakref.ref(output)))
    optimizer = torch.optim.SGD([*net.parameters(), *dead.parameters()], lr=0.1)
    watch = gradwatch.track(optimizer, {"net": net, "dead": dead}).start()
    for _ in range(3):
        optimizer.zero_grad()
        net(X).square().mean().backward()
        optimizer.step()
    assert module_calls.listeners, "a look is armed now"
    net(X).square().mean().backward()
    watch.close()
    gc.collect()
    assert [output() for output in ran] == [None] * 4
    held = [weakref.ref(net), weakref.ref(dead), weakref.ref(optimizer), weakref.ref(net.body.weight)]
    del net, dead, optimizer, watch
    gc.collect()
    assert [one() for one in held] == [None] * len(held)
