"""An alert finds its cause by itself, one look later, and training does not notice."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.errors import TrackerStateError
from gradwatch.explaining import Explainer
from gradwatch.fitting import Fitting
from gradwatch.records import Alert
from gradwatch.reporting import Reporting
from gradwatch.verdicts import Verdicts


class Policy(nn.Module):
    """Features, and a head behind a tanh that ``scale`` drives into its flat part."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.head(torch.tanh(self.body(x))) * self.scale)


def trained(
    scale: float, steps: int = 8, look: Callable[[int], None] = lambda _: None
) -> tuple[Policy, list[Alert]]:
    model = Policy(scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(steps):
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
            look(step)
    assert watch.health().internal_errors == 0
    return model, watch.alerts


def test_a_zero_is_explained_in_the_step_after_it_fired() -> None:
    model, alerts = trained(1e6)
    with torch.no_grad():
        assert (model.head(torch.tanh(model.body(torch.randn(99, 4)))).abs() * model.scale).min() > 9
    fired = [(a.module, a.step) for a in alerts if a.state == "firing"]
    assert fired == [("body", 3), ("head", 3)]
    explained = [a for a in alerts if a.state == "explained"]
    assert [(a.rule, a.module, a.cause.kind) for a in explained if a.cause] == [
        ("zero", "body", "saturated-tanh"),
        ("zero", "head", "saturated-tanh"),
    ]
    assert all(a.cause is not None and a.cause.evidence["share_beyond_9"] == 1.0 for a in explained)


def test_a_healthy_network_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Explainer, "diagnosis", lambda *_: pytest.fail("armed without an alert"))
    assert trained(1.0)[1] == []


def test_training_is_equal_bit_for_bit_with_the_diagnosis() -> None:
    tracked, alerts = trained(1e6)
    assert any(a.state == "explained" for a in alerts)
    torch_state = torch.get_rng_state()
    bare = Policy(1e6)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.01)
    for _ in range(8):
        optimizer.zero_grad()
        bare(torch.randn(6, 4)).square().mean().backward()
        optimizer.step()
    assert torch.equal(torch.get_rng_state(), torch_state)
    for one, other in zip(tracked.parameters(), bare.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_nothing_stays_armed_or_hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = torch.autograd._engine_run_backward
    model, _ = trained(1e6, steps=3)  # ends while a diagnosis is armed
    assert torch.autograd._engine_run_backward is engine
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_callback_that_ends_the_tracking_leaves_nothing_armed_or_hooked() -> None:
    engine = torch.autograd._engine_run_backward
    model = Policy(1e6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = gradwatch.track(optimizer, model, on_alert=lambda _: watch.close())
    with watch:
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
    assert len(watch.history) == 3
    assert torch.autograd._engine_run_backward is engine
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_explained_is_looked_for_three_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[int] = []
    look = Explainer.diagnosis
    monkeypatch.setattr(Explainer, "diagnosis", lambda self, names: armed.append(1) or look(self, names))
    monkeypatch.setattr(Fitting, "to", lambda *_: None)
    trained(1e6, steps=20)
    assert len(armed) == Explainer.MOST_LOOKS


def test_where_no_look_hears_of_a_pass_each_suspicion_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reporting, "SECONDS", math.inf)  # or blocks would end by the clock, at other steps
    model = nn.ModuleDict({name: nn.Linear(4, 1) for name in "abc"})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    looking = []
    with gradwatch.track(optimizer, model) as watch:
        for step in range(60):
            optimizer.zero_grad()
            weights = {"a": 1.0, "b": 1.0 if step < 10 else 1e-5, "c": 1.0 if step < 30 else 1e-5}
            loss = sum(weight * model[name](torch.ones(8, 4)).sum() for name, weight in weights.items())
            backward = threading.Thread(target=loss.backward)
            backward.start()
            backward.join()
            optimizer.step()
            looking.append(bool(watch._explainer._armed))
    assert any(looking[10:30])
    assert any(looking[30:])
    assert not any(looking[20:30])
    assert not any(looking[40:])


def test_a_look_behind_an_optimizers_last_step_costs_another_no_block_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks: list[int] = []
    take = Verdicts.take
    monkeypatch.setattr(Verdicts, "take", lambda self, steps: blocks.append(len(steps)) or take(self, steps))
    monkeypatch.setattr(Reporting, "SECONDS", math.inf)
    models = {"early": Policy(1e6), "late": Policy(1.0)}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.0) for name, model in models.items()}
    with gradwatch.track(optimizers, models) as watch:
        for name in ["early"] * 3 + ["late"] * 80:
            optimizers[name].zero_grad()
            models[name](torch.randn(6, 4)).square().mean().backward()
            optimizers[name].step()
        assert watch._explainer._armed
    assert blocks[-4:-1] == [16, 16, 16]


def test_a_new_episode_is_looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[int] = []
    look = Explainer.diagnosis
    monkeypatch.setattr(Explainer, "diagnosis", lambda self, names: armed.append(1) or look(self, names))
    monkeypatch.setattr(Fitting, "to", lambda *_: None)
    model = Policy(1e6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(60):
            model.scale = 1.0 if 20 <= step < 40 else 1e6
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
    begun = {a.step for a in watch.alerts if a.state == "firing"}
    assert len(begun) == 2
    assert len(armed) == 2 * Explainer.MOST_LOOKS


def test_the_first_operation_that_made_a_nan_is_named() -> None:
    model = Policy(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    # Kept out of the parameters, where it would make the next loss NaN and be the cause.
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        for _ in range(4):
            optimizer.zero_grad()
            (model(torch.zeros(6, 4)) * 0.0).sqrt().sum().backward()
            optimizer.step()
    explained = [a for a in watch.alerts if a.state == "explained"]
    assert [(a.rule, a.cause.kind) for a in explained if a.cause] == [("nonfinite", "nonfinite-op")]
    assert "Sqrt" in str(explained[0].cause)


def test_what_was_not_found_at_first_is_found_when_it_happens_again() -> None:
    """A hook spoils the third step, and nothing tells; a root at 0 spoils the tenth, and is seen."""
    model = Policy(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        for step in range(12):
            optimizer.zero_grad()
            out = model(torch.randn(6, 4))
            if step == 2:
                out.register_hook(lambda gradient: gradient * math.nan)
            (out * (0.0 if step == 9 else 1.0)).square().sum().sqrt().backward()
            optimizer.step()
    told = [(a.step, a.cause.kind) for a in watch.alerts if a.state == "explained" and a.cause is not None]
    assert told[-1] == (10, "nonfinite-op")


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.mlp = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.cnn(x)
        return features, torch.tanh(self.mlp(features) * 1e6)


def test_the_seeds_question_is_answered() -> None:
    """The policy's MLP sits behind a saturated tanh, and the CNN's features reach the value around it."""
    model, value = ActorCritic(), nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track({"actor": optimizer}, {"actor_cnn": model.cnn, "actor_mlp": model.mlp}) as watch:
        for step in range(60):
            optimizer.zero_grad()
            features, action = model(torch.randn(16, 4))
            (-value(torch.cat([features, action], 1)).mean() * 2.0 ** (step / 2)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    causes = {(a.rule, a.module): a.cause for a in watch.alerts if a.cause is not None}
    zero = causes["zero", "actor_mlp"]
    assert zero is not None
    assert zero.kind == "saturated-tanh"
    shortcuts = [cause for (rule, _), cause in causes.items() if rule in ("growth", "explosion")]
    assert shortcuts
    assert all((cause.kind, cause.where) == ("shortcut", "actor_cnn") for cause in shortcuts if cause)


@pytest.mark.parametrize("overlapping", [True, False])
def test_a_module_whose_parameters_are_not_called_after_it_is_explained(overlapping: bool) -> None:
    """One that lies in another, whose names its parameters have; or a model's own parameters."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.layer, self.head = (nn.Linear(4, 8) if overlapping else nn.Identity()), nn.Linear(8, 1)
            self.weight = nn.Parameter(torch.randn(4, 8)) if not overlapping else None

        def forward(self, x: Tensor) -> Tensor:
            lower = self.layer(x) if self.weight is None else x @ self.weight
            return self.head(torch.sigmoid(lower - 30))

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    modules = {"net": net, "layer": net.layer, "head": net.head} if overlapping else net
    with gradwatch.track(optimizer, modules) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            net(torch.randn(6, 4)).mean().backward()
            optimizer.step()
    told = [(a.rule, a.module, a.cause.kind) for a in watch.alerts if a.cause is not None]
    # Where two entries hold the layer, it is told of by both of its names.
    modules = ["net.layer", "layer"] if overlapping else ["(root)"]
    assert told == [("vanishing", module, "saturated-sigmoid") for module in modules]


def test_diagnose_around_one_backward() -> None:
    model = Policy(1e6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        loss = model(torch.randn(6, 4)).square().mean()
        with watch.diagnose() as diagnosis:
            loss.backward()
        assert diagnosis.causes["head"].kind == "saturated-tanh"
    with pytest.raises(TrackerStateError, match="closed"), watch.diagnose():
        pass


def test_what_is_left_out_of_the_optimizer_is_told() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Linear(8, 1)})
    optimizer = torch.optim.SGD(model["body"].parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            model["head"](model["body"](torch.randn(6, 4))).square().mean().backward()
            optimizer.step()
    (alert,) = watch.alerts
    assert (alert.rule, alert.module, alert.step) == ("zero", "head", 3)
    assert alert.cause is not None
    assert (alert.cause.kind, alert.cause.evidence["parameters"]) == ("not-in-optimizer", 2)
    assert watch["optimizer"].left_out == {"head": ("head.weight", "head.bias")}


def test_a_backbone_that_is_left_out_is_told_once_though_each_of_its_blocks_is_a_line() -> None:
    blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])
    model = nn.ModuleDict({"backbone": blocks, "head": nn.Linear(4, 1)})
    optimizer = torch.optim.SGD(model["head"].parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(24):
            optimizer.zero_grad()
            x = torch.randn(6, 4)
            for block in blocks:
                x = torch.tanh(block(x))
            model["head"](x).square().mean().backward()
            optimizer.step()
            if step == 12:
                optimizer.add_param_group({"params": list(blocks.parameters())})
    told, over = watch.alerts
    assert (told.rule, told.module, told.step, told.state) == ("zero", "backbone.0", 3, "firing")
    assert told.cause is not None
    assert (told.cause.where, told.cause.evidence["parameters"]) == ("backbone", 12)
    assert "backbone.0.weight, backbone.0.bias, backbone.1.weight and 9 more get a gradient" in told.message
    assert (over.module, over.state) == ("backbone.0", "resolved")


def net_of_sigmoids() -> nn.Sequential:
    """Ten hidden layers, of which the first get next to nothing from the first step on."""
    torch.manual_seed(0)
    sizes = [8, *[16] * 10, 1]
    layers = [layer for size in pairwise(sizes) for layer in (nn.Linear(*size), nn.Sigmoid())]
    return nn.Sequential(*layers[:-1])


def test_what_becomes_critical_is_explained_though_the_warning_was() -> None:
    """The warning's cause was not known for sure: it is looked for anew, and what is found is told."""
    model = net_of_sigmoids()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with gradwatch.track(optimizer, model, rules=[gradwatch.rules.Vanishing(critical_after=20)]) as watch:
        for _ in range(30):
            optimizer.zero_grad()
            x = torch.randn(16, 8)
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
    first = [alert for alert in watch.alerts if alert.module == "0"]
    assert [(alert.severity, alert.state, alert.cause and alert.cause.kind) for alert in first] == [
        ("warning", "firing", None),
        ("warning", "explained", "unknown"),
        ("warning", "resolved", "unknown"),
        ("critical", "firing", None),
        ("critical", "explained", "unknown"),
    ]


def test_when_all_is_asked_steps_are_not_gone_into_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net_of_sigmoids()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    asked = []
    stepped = Explainer.stepped
    monkeypatch.setattr(Explainer, "stepped", lambda self, name: [asked.append(name), stepped(self, name)][1])
    with gradwatch.track(optimizer, model) as watch:
        for step in range(240):
            if step == 160:
                assert any(alert.severity == "critical" for alert in watch.alerts)
                asked.clear()
            optimizer.zero_grad()
            x = torch.randn(16, 8)
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
    assert len(asked) <= 80 / 16


class ListOfLayers(nn.Module):
    """Hidden layers in a Python list, which no optimizer finds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.hidden = [nn.Linear(8, 8) for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.hidden:
            x = torch.tanh(layer(x))
        return self.last(x)


@pytest.mark.parametrize("held", [False, True])
def test_layers_that_are_held_by_a_list_alone_are_told(held: bool) -> None:
    model = ListOfLayers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    other = torch.optim.SGD([p for layer in model.hidden for p in layer.parameters()], lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
            if held:  # by an optimizer that is not tracked
                other.step()
    if held:
        assert watch.alerts == []
        return
    (alert,) = watch.alerts
    assert (alert.rule, alert.severity, alert.module) == ("zero", "warning", "(outside every module)")
    assert alert.cause is not None
    assert (alert.cause.kind, alert.cause.evidence["parameters"]) == ("not-in-optimizer", 4)
    assert "nn.ModuleList" in alert.cause.remedy
    assert "a parameter of 8 x 8 behind first" in watch["optimizer"].left_out["(outside every module)"]


def test_what_comes_after_all_that_is_tracked_may_be_anybodys() -> None:
    model, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            critic(model(torch.randn(6, 4))).square().mean().backward()
            optimizer.step()
    assert watch.alerts == []


def test_a_frozen_part_left_out_is_none_of_that() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Linear(8, 1)})
    model["body"].requires_grad_(False)
    optimizer = torch.optim.SGD(model["head"].parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            model["head"](model["body"](torch.randn(6, 4))).square().mean().backward()
            optimizer.step()
    assert watch.alerts == []
    assert math.isfinite(watch["optimizer"].norm_after)


@pytest.mark.parametrize("depth", [None, 1, 2])
def test_a_wrapped_model_is_explained_by_its_own_names(depth: int | None) -> None:
    inner = Policy(1e6)
    model = nn.DataParallel(nn.Sequential(inner, nn.Identity()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, {"policy": model, "head": inner.head}, depth=depth) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
    assert watch.health().internal_errors == 0
    told = {a.module: a.cause for a in watch.alerts if a.rule == "zero" and a.cause is not None}
    assert set(told) <= {"policy" if depth != 2 else "policy.0", "head", None}
    assert {(cause.kind, cause.where) for cause in told.values()} == {("saturated-tanh", "policy.0")}


def test_what_a_module_owns_itself_is_explained_beside_its_parts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.body, self.head = nn.Module(), nn.Linear(8, 1)
            self.body.weight, self.body.layer = nn.Parameter(torch.randn(4, 8)), nn.GRU(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(x @ self.body.weight - 1e6))

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            net(torch.randn(6, 4)).mean().backward()
            optimizer.step()
    assert list(watch["optimizer"].modules) == ["body", "body.layer", "head"]
    told = [(a.rule, a.module, a.cause.kind) for a in watch.alerts if a.cause is not None]
    assert sorted(told) == [("zero", "body", "dead-relu"), ("zero", "body.layer", "unused")]


# A step that is not finite, and the look before the next one


def not_finite(first: float, second: str, asked: bool = False) -> list[Alert]:
    """Of two steps the first is made not finite by a hook, the second by a root of 0; a guard leaves both out."""
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        for step in range(3):
            optimizer.zero_grad()
            y = model(torch.ones(8, 4))
            if step == 0:
                y.register_hook(lambda g: g * first)
            loss = (y * 0).sqrt().sum() if second == "root" and step == 1 else y.square().mean()
            if asked and step == 1:
                with watch.diagnose():
                    loss.backward()
            else:
                loss.backward()
            optimizer.step()
    assert watch.health().internal_errors == 0
    return watch.alerts


def test_a_cause_that_is_seen_a_step_later_says_so() -> None:
    (explained,) = [alert for alert in not_finite(math.nan, "root") if alert.state == "explained"]
    assert explained.cause is not None
    assert (explained.cause.kind, explained.cause.evidence["seen_at_step"]) == ("nonfinite-op", 2)
    assert "Cause, as seen when it came again in step 2 of optimizer: nonfinite-op" in str(explained)


def test_what_a_person_has_asked_for_claims_no_step() -> None:
    causes = [alert.cause for alert in not_finite(math.nan, "root", asked=True) if alert.cause is not None]
    assert causes
    assert all("seen_at_step" not in found.evidence for found in causes)


def scaled(init_scale: float, growth_interval: int, bad: range) -> list[Alert]:
    """A net in float16 under a GradScaler; the data of some steps is beyond the range of the type."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=growth_interval)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(60):
            optimizer.zero_grad()
            x = torch.randn(64, 20) * (1e6 if step in bad else 1.0)
            with torch.autocast("cpu", dtype=torch.float16):
                loss = model(x).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return watch.alerts


def test_a_loss_scale_that_is_too_large_is_to_be_lowered() -> None:
    alerts = scaled(2.0**40, 2000, range(0))
    assert {alert.severity for alert in alerts if alert.rule == "nonfinite"} >= {"warning"}
    causes = [alert.cause for alert in alerts if alert.cause is not None and alert.rule == "nonfinite"]
    assert causes
    assert all("init_scale" in found.remedy for found in causes)


def test_behind_skips_now_and_then_data_that_breaks_every_step_is_told_with_its_cause() -> None:
    alerts = scaled(2.0**22, 5, range(40, 60))
    (critical,) = [alert for alert in alerts if (alert.rule, alert.severity) == ("nonfinite", "critical")]
    assert (critical.state, critical.step) == ("firing", 50)
    assert critical.cause is not None
    assert critical.cause.kind == "nonfinite-loss"


def test_what_a_hook_made_in_two_steps_is_told_as_what_no_operation_made() -> None:
    torch.manual_seed(1)
    net, spoiled = nn.Linear(4, 2), [step in (20, 26) for step in range(1, 36)]
    net.weight.register_hook(lambda gradient: gradient * (math.nan if spoiled.pop(0) else 1.0))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradwatch.track(optimizer, net, guard="skip") as watch:
        while spoiled:
            optimizer.zero_grad()
            net(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    fired, told = watch.alerts
    assert (fired.state, told.state) == ("firing", "explained")
    assert told.step <= 26
    assert told.cause is not None
    assert told.cause.kind == "unknown"
    assert "hook" in str(told.cause.evidence["suspects"])


def test_rounding_in_a_module_that_comes_later_is_told() -> None:
    """An optimizer that held a temperature alone is given what a normaliser over one element makes constant."""
    torch.manual_seed(49)
    net = nn.ModuleDict({"skip": nn.Linear(9, 8), "proj": nn.Linear(9, 8), "head": nn.Linear(8, 3)})
    norm, temperature = nn.GroupNorm(8, 8), nn.Parameter(torch.ones(()))
    late = list(net["proj"].requires_grad_(False).parameters())
    body = torch.optim.Adam([temperature], lr=3e-3)
    head = torch.optim.Adam([*net["skip"].parameters(), *net["head"].parameters()], lr=3e-3)
    with gradwatch.track({"body": body, "head": head}, net) as watch:
        for step in range(40):
            if step == 5:
                net["proj"].requires_grad_(True)
                body.add_param_group({"params": late})
            x = torch.randn(32, 9)
            hidden = norm(net["proj"](x)) + net["skip"](x)
            loss = nn.functional.cross_entropy(temperature * net["head"](hidden.relu()), x[:, :3].argmax(1))
            body.zero_grad()
            head.zero_grad()
            loss.backward()
            body.step()
            head.step()
    assert [(a.rule, a.module) for a in watch.alerts if a.state == "firing"][:1] == [("zero", "proj")]
