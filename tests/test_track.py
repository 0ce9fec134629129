import copy
import logging
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import gradwatch
from gradwatch.errors import ArgumentError, TrackerStateError
from gradwatch.taps import clips
from tests.reference import gradient_norm


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def loss_of(net, scale=1.0):
    return scale * (net(torch.randn(8, 6)) ** 2).mean()


# Each loop makes one step a call and returns the two true norms, or runs silently where that is asked for.


def clipped_adam(net):
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)

    def step():
        optimizer.zero_grad()
        loss_of(net, 50.0).backward()
        before = gradient_norm(net.parameters())
        clip_grad_norm_(net.parameters(), 1.0)
        after = gradient_norm(net.parameters())
        optimizer.step()
        return before, after

    return optimizer, step


def accumulation(net):
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9)

    def step():
        optimizer.zero_grad(set_to_none=False)
        for _ in range(4):
            (loss_of(net) / 4).backward()
        before = gradient_norm(net.parameters())
        clip_grad_norm_(list(net.parameters()), 0.1)
        after = gradient_norm(net.parameters())
        optimizer.step()
        return before, after

    return optimizer, step


def own_clipping(net):
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)

    def step():
        optimizer.zero_grad()
        loss_of(net).backward()
        before = gradient_norm(net.parameters())
        for parameter in net.parameters():
            parameter.grad.data.mul_(0.25)
        after = gradient_norm(net.parameters())
        optimizer.step()
        return before, after

    return optimizer, step


def by_value(net):
    optimizer = torch.optim.RMSprop(net.parameters(), 1e-3)

    def step():
        optimizer.zero_grad()
        loss_of(net, 10.0).backward()
        before = gradient_norm(net.parameters())
        clip_grad_value_(net.parameters(), 0.05)
        after = gradient_norm(net.parameters())
        optimizer.step()
        return before, after

    return optimizer, step


def by_hand(net):
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)

    def step():
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        before = gradient_norm(net.parameters())
        clip_grad_norm_(net.parameters(), 0.5)
        after = gradient_norm(net.parameters())
        optimizer.step()
        return before, after

    return optimizer, step


def lbfgs(net):
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=4)

    def step():
        norms = []
        data = torch.randn(8, 6)

        def closure():
            optimizer.zero_grad()
            loss = (net(data) ** 2).mean()
            loss.backward()
            before = gradient_norm(net.parameters())
            clip_grad_norm_(net.parameters(), 0.05)
            norms.append((before, gradient_norm(net.parameters())))
            return loss

        optimizer.step(closure)
        return norms[0]

    return optimizer, step


LOOPS = [clipped_adam, accumulation, own_clipping, by_value, by_hand, lbfgs]


@pytest.mark.parametrize("loop", LOOPS)
def test_both_norms_are_those_of_a_second_computation(loop):
    net = make_net()
    optimizer, step = loop(net)
    with gradwatch.track(optimizer, net) as watch:
        for number in range(1, 7):
            before, after = step()
            record = watch["optimizer"]
            assert record.step == number
            assert record.norm_before == pytest.approx(before, rel=1e-9)
            assert record.norm_after == pytest.approx(after, rel=1e-9)
            modules = record.modules.values()
            assert sum(m.norm_after**2 for m in modules) == pytest.approx(record.norm_after**2, rel=1e-12)
            assert sum(m.norm_before**2 for m in modules) == pytest.approx(record.norm_before**2, rel=1e-12)
    assert watch.health().internal_errors == 0


def everything(net, optimizer):
    state = optimizer.state_dict()["state"]
    gradients = [p.grad for p in net.parameters()]
    return [*net.state_dict().values(), *gradients, torch.get_rng_state(), *flat(state)]


def flat(state):
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [leaf for value in state.values() for leaf in flat(value)]
    if isinstance(state, (list, tuple)):
        return [leaf for value in state for leaf in flat(value)]
    return [torch.tensor(float(state))] if isinstance(state, (int, float)) else []


@pytest.mark.parametrize("loop", LOOPS)
def test_training_is_bit_equal_with_and_without(loop):
    ends = []
    for tracked in (False, True):
        net = make_net()
        optimizer, step = loop(net)
        if tracked:
            with gradwatch.track(optimizer, net):
                for _ in range(10):
                    step()
        else:
            for _ in range(10):
                step()
        ends.append(everything(net, optimizer))
    assert len(ends[0]) == len(ends[1])
    assert all(torch.equal(bare, tracked) for bare, tracked in zip(*ends, strict=True))


def test_clip_calls_are_told_with_their_limit():
    net = make_net()
    optimizer, step = clipped_adam(net)
    with gradwatch.track(optimizer, net) as watch:
        before, _ = step()
    record = watch["optimizer"]
    (call,) = record.clips
    assert (call.function, call.limit, call.norm_type) == ("clip_grad_norm_", 1.0, 2.0)
    assert call.norm_returned == pytest.approx(before, rel=1e-5)
    assert (record.max_norm, record.clipped) == (1.0, True)
    assert record.clip_ratio == pytest.approx(1.0 / before, rel=1e-4)


def test_two_optimizers_and_an_actor_loss_that_runs_through_the_critic():
    actor, critic = make_net(0), nn.Linear(3, 1)
    optimizers = {
        "a": torch.optim.SGD(actor.parameters(), 0.01),
        "c": torch.optim.SGD(critic.parameters(), 0.01),
    }
    with gradwatch.track(optimizers, {"actor": actor, "critic": critic}) as watch:
        for number in range(4):
            optimizers["c"].zero_grad()
            critic(torch.randn(5, 3)).pow(2).mean().backward()
            truth = gradient_norm(critic.parameters())
            optimizers["c"].step()
            assert watch["c"].norm_before == pytest.approx(truth, rel=1e-9)
            assert watch["c"].backward_passes == (1 if number == 0 else 2)
            optimizers["a"].zero_grad()
            (-critic(actor(torch.randn(5, 6)))).mean().backward()
            optimizers["a"].step()
            assert watch["a"].norm_after == pytest.approx(gradient_norm(actor.parameters()), rel=1e-9)
    assert set(watch["a"].modules) == {"actor"}
    assert [record.optimizer for record in watch.history] == ["c", "a"] * 4


def test_a_missing_gradient_is_missing_and_never_zero():
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            net["used"](torch.ones(1, 2)).sum().backward()
            optimizer.step()
    record = watch["optimizer"]
    assert record.missing == ("idle.weight", "idle.bias")
    assert record.missing_modules == ("idle",)
    assert math.isnan(record.modules["idle"].norm_after)
    assert math.isnan(record.parameters["idle.weight"].norm_before)
    assert record.norm_after == pytest.approx(math.sqrt(3.0))
    assert record.nonfinite == ()
    assert [(a.rule, a.module) for a in watch.alerts] == [("zero", "idle")]


def test_names_without_modules_and_with_a_root():
    class Rooted(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))
            self.body = nn.Linear(2, 2)

        def forward(self, x):
            return self.body(x) * self.scale

    net = Rooted()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for modules, groups, names in (
        (net, {"(root)", "body"}, {"scale", "body.weight", "body.bias"}),
        (None, set(), {"group0.param0", "group0.param1", "group0.param2"}),
        ({"all": net, "inner": net.body}, {"all", "inner"}, {"all.scale", "all.body.weight", "all.body.bias"}),
    ):
        with gradwatch.track(optimizer, modules) as watch:
            optimizer.zero_grad()
            net(torch.randn(3, 2)).sum().backward()
            optimizer.step()
        assert set(watch["optimizer"].modules) == groups
        assert set(watch["optimizer"].parameters) == names


def test_nan_is_named_parameter_by_parameter():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    with gradwatch.track(optimizer, net) as watch:
        loss_of(net).backward()
        net[2].bias.grad[1] = math.nan
        optimizer.step()
    assert watch["optimizer"].nonfinite == ("2.bias",)
    assert [(a.rule, a.severity, a.state) for a in watch.alerts] == [("nonfinite", "critical", "firing")]


def test_every_third_step_and_a_bounded_history():
    net = make_net()
    optimizer, step = clipped_adam(net)
    with gradwatch.track(optimizer, net, every=3, history=2) as watch:
        for _ in range(10):
            step()
    assert [record.step for record in watch.history] == [6, 9]


def test_a_param_group_added_on_the_way_is_measured():
    net, more = make_net(), nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gradwatch.track(optimizer, net) as watch:
        for number in range(3):
            if number == 1:
                optimizer.add_param_group({"params": more.parameters()})
            optimizer.zero_grad()
            more(net(torch.randn(4, 6))).pow(2).mean().backward()
            optimizer.step()
        held = [*net.parameters(), *more.parameters()]
        assert watch["optimizer"].norm_after == pytest.approx(gradient_norm(held), rel=1e-9)
    assert "group1.param0" in watch["optimizer"].parameters


def hooks_left(net, optimizer):
    on_parameters = sum(len(p._post_accumulate_grad_hooks or ()) for p in net.parameters())
    return on_parameters + len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def cells():
    wrappers = (getattr(torch.nn.utils.clip_grad, name) for name in clips._FUNCTIONS)
    return [clips._cell_of(wrapper).cell_contents for wrapper in wrappers]


def test_everything_is_restored_also_after_an_exception_and_out_of_order():
    net = make_net()
    optimizer, step = clipped_adam(net)
    originals = cells()
    with pytest.raises(ZeroDivisionError), gradwatch.track(optimizer, net):
        step()
        raise ZeroDivisionError
    assert (hooks_left(net, optimizer), cells()) == (0, originals)
    first, second = gradwatch.track(optimizer, net), gradwatch.track(optimizer, net)
    first.__enter__()
    second.__enter__()
    step()
    first.close()
    step()
    second.close()
    assert (len(first.history), len(second.history)) == (1, 2)
    assert (hooks_left(net, optimizer), cells()) == (0, originals)


def test_a_step_that_raises_does_not_stop_the_next_from_being_seen():
    class Touchy(torch.optim.SGD):
        angry = False

        def step(self, closure=None):
            if self.angry:
                raise RuntimeError("no")
            return super().step(closure)

    net = make_net()
    optimizer = Touchy(net.parameters(), 0.1)
    with gradwatch.track(optimizer, net) as watch:
        loss_of(net).backward()
        optimizer.angry = True
        with pytest.raises(RuntimeError, match="no"):
            optimizer.step()
        optimizer.angry = False
        optimizer.step()
        optimizer.step()
    # super().step() fires torch's hooks a second time: still one record a step.
    assert [record.step for record in watch.history] == [1, 2]


def test_a_hook_that_clips_and_was_added_later_is_measured_as_consumed():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradwatch.track(optimizer, net) as watch:
        optimizer.register_step_pre_hook(lambda *_: [p.grad.mul_(0.5) for p in net.parameters()] and None)
        loss_of(net).backward()
        before = gradient_norm(net.parameters())
        optimizer.step()
    assert watch["optimizer"].norm_before == pytest.approx(before, rel=1e-9)
    assert watch["optimizer"].norm_after == pytest.approx(before / 2, rel=1e-6)


def test_schedulers_and_copies_work_beside_it():
    net = make_net()
    optimizer, step = clipped_adam(net)
    with gradwatch.track(optimizer, net) as watch:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        step()
        scheduler.step()
        twin = copy.deepcopy(net)
        other = copy.deepcopy(optimizer)
        step()
    assert hooks_left(twin, other) == 0
    assert len(watch.history) == 2


def test_no_error_of_ours_or_of_a_callback_reaches_the_loop(caplog):
    class Faulty:
        id, severity, fires_after, clears_after = "faulty", "warning", 1, 1

        def look(self, record):
            raise KeyError("rule")

    def on_alert(alert):
        raise KeyError("callback")

    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    rules = [Faulty(), *gradwatch.default_rules()]
    with (
        caplog.at_level(logging.ERROR, "gradwatch"),
        gradwatch.track(optimizer, net, rules=rules, on_alert=on_alert) as watch,
    ):
        for _ in range(4):
            (loss_of(net) * math.nan).backward()
            optimizer.step()
    assert len(watch.history) == 4
    assert [a.rule for a in watch.alerts] == ["nonfinite"]
    assert watch.health().internal_errors == 1


def test_alerts_reach_the_log_where_there_is_no_sink(caplog):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    with caplog.at_level(logging.WARNING, "gradwatch"), gradwatch.track(optimizer, net):
        for _ in range(5):
            optimizer.zero_grad()
            loss_of(net, 0.0).backward()
            optimizer.step()
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR"]
    assert "zero at optimizer/0, step 3: the gradient of 0 is exactly 0" in caplog.text


NET = make_net()
OPTIMIZER = torch.optim.SGD(NET.parameters(), 0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (({},), {}, "got no optimizer"),
        ((None,), {}, "of type NoneType"),
        (({"a": NET},), {}, "'a' is of type Sequential"),
        (({"a": OPTIMIZER, "b": OPTIMIZER},), {}, "given as 'a' and as 'b'"),
        (({1: OPTIMIZER},), {}, "non-empty string"),
        ((OPTIMIZER, {"other": nn.Linear(1, 1)}), {}, "module 'other'"),
        ((OPTIMIZER, nn.Linear(1, 1)), {}, "No tracked optimizer"),
        ((OPTIMIZER, {"x": 3}), {}, "'x' is of type int"),
        ((OPTIMIZER, [NET]), {}, "of type list"),
        (({"net": OPTIMIZER}, {"net": NET}), {}, "used twice"),
        ((OPTIMIZER,), {"every": 0}, "every is 0"),
        ((OPTIMIZER,), {"every": 1.5}, "every is 1.5"),
        ((OPTIMIZER,), {"history": -1}, "history is -1"),
        ((OPTIMIZER,), {"sinks": [print]}, "no write"),
        ((OPTIMIZER,), {"on_alert": 3}, "on_alert is 3"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, options, said):
    with pytest.raises(ArgumentError, match=said) as refusal:
        gradwatch.track(*arguments, **options)
    message = str(refusal.value)
    assert message.endswith(".")
    assert "\n" not in message


def test_a_tracker_is_entered_once():
    watch = gradwatch.track(OPTIMIZER)
    with watch, pytest.raises(TrackerStateError, match="entered already"):
        watch.__enter__()
    with pytest.raises(TrackerStateError, match="closed already"):
        watch.__enter__()


def test_reading_what_is_not_there_says_what_is():
    with gradwatch.track({"a": OPTIMIZER}) as watch:
        with pytest.raises(KeyError, match="there are 'a'"):
            watch["b"]
        with pytest.raises(KeyError, match="no measured step yet"):
            watch["a"]
