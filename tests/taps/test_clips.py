import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_ as bound_before
from torch.nn.utils import clip_grad_value_ as value_bound_before

import gradwatch


@pytest.fixture
def net():
    torch.manual_seed(3)
    return nn.Linear(4, 3)


@pytest.fixture
def tracked(net):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradwatch.track(optimizer, {"net": net}) as watch:

        def step(clip):
            optimizer.zero_grad()
            (net(torch.ones(2, 4)) * 10).sum().backward()
            returned = clip(net)
            optimizer.step()
            return watch["optimizer"], returned

        yield step
    assert watch.health().internal_errors == 0


def with_norm(net):
    norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters()])
    torch.nn.utils.clip_grads_with_norm_(net.parameters(), 1.0, norm)


def deprecated(net):
    with pytest.warns(FutureWarning):
        torch.nn.utils.clip_grad_norm(net.parameters(), 1.0)


NORM_CALLS = {
    "bound before": lambda net: bound_before(net.parameters(), 1.0),
    "attribute": lambda net: torch.nn.utils.clip_grad_norm_(list(net.parameters()), 1.0),
    "module": lambda net: torch.nn.utils.clip_grad.clip_grad_norm_(parameters=net.parameters(), max_norm=1.0),
    "iterator": lambda net: bound_before(iter(list(net.parameters())), 1.0, 2.0),
    "deprecated": deprecated,
    "with norm": with_norm,
}


@pytest.mark.parametrize("name", NORM_CALLS)
def test_every_way_to_call_is_seen_once_and_clips_fully(tracked, name):
    record, _ = tracked(NORM_CALLS[name])
    assert len(record.clips) == 1
    assert record.max_norm == 1.0
    assert record.clipped
    assert record.norm_after == pytest.approx(1.0, rel=1e-5)


def test_a_single_tensor_is_its_own_scope(tracked):
    record, _ = tracked(lambda net: bound_before(net.weight, 1.0))
    (call,) = record.clips
    assert call.scope_after == pytest.approx(1.0, rel=1e-5)
    assert record.norm_after > 1.0
    assert record.parameters["net.bias"].norm_after == record.parameters["net.bias"].norm_before


def test_clipping_by_value_sets_no_max_norm(tracked):
    record, _ = tracked(lambda net: value_bound_before(net.parameters(), clip_value=0.5))
    assert (record.max_norm, record.clipped) == (None, False)
    assert [(c.function, c.limit, c.norm_type) for c in record.clips] == [("clip_grad_value_", 0.5, None)]
    assert record.norm_after == pytest.approx(0.5 * 15**0.5, rel=1e-6)


def test_an_infinite_limit_is_none(tracked):
    record, returned = tracked(lambda net: bound_before(net.parameters(), float("inf")))
    assert record.max_norm is None
    assert record.norm_before == record.norm_after
    assert float(returned) == pytest.approx(record.norm_before, rel=1e-5)


def test_several_calls_before_one_step(tracked):
    def clip(net):
        for limit in (5.0, 2.0, 3.0):
            bound_before(net.parameters(), limit)

    record, _ = tracked(clip)
    assert [call.limit for call in record.clips] == [5.0, 2.0, 3.0]
    assert record.max_norm == 2.0
    assert record.norm_before > 5.0


def test_errors_of_torch_stay_its_own(tracked, net):
    with pytest.raises(RuntimeError, match="non-finite"):
        net.weight.grad = torch.full_like(net.weight, float("nan"))
        bound_before(net.parameters(), 1.0, error_if_nonfinite=True)
    with pytest.raises(TypeError):
        bound_before(net.parameters())


def test_calls_on_other_parameters_are_not_ours(tracked):
    other = nn.Linear(2, 2)
    other.weight.grad = torch.ones(2, 2)
    record, _ = tracked(lambda net: bound_before(other.parameters(), 0.1))
    assert record.clips == ()
    assert float(other.weight.grad.norm()) == pytest.approx(0.1, rel=1e-4)


def test_threads_see_their_own_calls():
    failures = []

    def train(seed, limit):
        generator = torch.Generator().manual_seed(seed)
        net = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        with gradwatch.track(optimizer, net) as watch:
            for _ in range(30):
                optimizer.zero_grad()
                (net(torch.randn(2, 4, generator=generator)) * 10).sum().backward()
                bound_before(net.parameters(), limit)
                optimizer.step()
        limits = {call.limit for record in watch.history for call in record.clips}
        if limits != {limit} or len(watch.history) != 30:
            failures.append((limit, limits, len(watch.history)))

    threads = [threading.Thread(target=train, args=(i, float(i + 1))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
