"""Clip calls are seen under every name, do what they did, and torch is itself again afterwards."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad, clip_grad_norm_, clip_grad_value_

import gradwatch
from gradwatch.taps import clips as tap
from gradwatch.taps.backwards import activity
from gradwatch.taps.clips import ClipEvent, clips

WRAPPERS = ("clip_grad_norm_", "clip_grad_value_", "_clip_grads_with_norm_")


def cells() -> dict[str, Any]:
    found = {}
    for name in WRAPPERS:
        wrapper = getattr(clip_grad, name)
        found[name] = wrapper.__closure__[wrapper.__code__.co_freevars.index("func")].cell_contents
    return found


UNTOUCHED = cells()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    assert all(function is UNTOUCHED[name] for name, function in cells().items())
    assert clips.listeners == ()


class Ear:
    """A tracker that trains in this thread: it hears of what is nobody's, too."""

    compares = False

    def __init__(self) -> None:
        self.before: list[ClipEvent] = []
        self.after: list[tuple[ClipEvent, float | None]] = []

    def clipping(self, event: ClipEvent) -> None:
        self.before.append(event)

    def clipped(self, event: ClipEvent, norm_returned: Tensor | None) -> None:
        self.after.append((event, None if norm_returned is None else float(norm_returned)))

    def __enter__(self) -> Ear:
        clips.listen(self)
        activity.keep(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        activity.forget(self)  # type: ignore[arg-type]
        clips.stop_listening(self)

    @property
    def group(self) -> Ear:
        return self


def parameters() -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    made[0].grad, made[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    return made


def norm(of: list[nn.Parameter]) -> float:
    return float(gradwatch.global_norm(of))


CALLS: dict[str, Callable[[list[nn.Parameter]], Any]] = {
    "imported before": lambda p: clip_grad_norm_(p, 1.0),
    "from nn.utils": lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0),
    "from clip_grad": lambda p: clip_grad.clip_grad_norm_(p, 1.0),
    "by keyword": lambda p: clip_grad_norm_(parameters=p, max_norm=1.0, norm_type=2.0, error_if_nonfinite=True),
    "positional norm type": lambda p: clip_grad_norm_(p, 1.0, 2),
    "not foreach": lambda p: clip_grad_norm_(p, 1.0, foreach=False),
    "a generator": lambda p: clip_grad_norm_((q for q in p), 1.0),
    "a generator by keyword": lambda p: clip_grad_norm_(max_norm=1.0, parameters=(q for q in p)),
    "an iterator": lambda p: clip_grad_norm_(iter(p), 1.0),
    "limit as a tensor": lambda p: clip_grad_norm_(p, torch.tensor(1.0)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_every_way_to_clip_by_norm_is_seen_once_and_clips_all(name: str) -> None:
    mine, plain = parameters(), parameters()
    expected = CALLS[name](plain)
    with Ear() as ear:
        returned = CALLS[name](mine)
    assert torch.equal(returned, expected)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(mine, plain, strict=True))
    assert norm(mine) == pytest.approx(1.0, rel=1e-5)
    assert len(ear.before) == len(ear.after) == 1
    event, norm_returned = ear.after[0]
    assert (event.function, event.limit, event.norm_type, norm_returned) == ("clip_grad_norm_", 1.0, 2.0, 13.0)
    assert list(array("q", event.ids)) == list(map(id, mine))


def test_one_tensor_alone() -> None:
    one = parameters()[0]
    with Ear() as ear:
        clip_grad_norm_(one, 1.0)
    assert norm([one]) == pytest.approx(1.0, rel=1e-5)
    assert list(array("q", ear.before[0].ids)) == [id(one)]


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_other_norms_are_told(p: float) -> None:
    with Ear() as ear:
        clip_grad_norm_(parameters(), 1.0, norm_type=p)
    assert (ear.after[0][0].norm_type, ear.after[0][1]) == (p, 19.0 if p == 1.0 else 12.0)


@pytest.mark.parametrize(
    "function", [clip_grad_value_, torch.nn.utils.clip_grad_value_, clip_grad.clip_grad_value_]
)
@pytest.mark.parametrize("keyword", [False, True])
def test_clipping_by_value(function: Callable[..., None], keyword: bool) -> None:
    mine = parameters()
    with Ear() as ear:
        function(parameters=iter(mine), clip_value=5.0) if keyword else function((p for p in mine), 5.0)
    assert [p.grad.tolist() for p in mine] == [[3.0, 4.0], [5.0]]
    assert ear.after == [(ClipEvent("clip_grad_value_", 5.0, None, array("q", map(id, mine)).tobytes()), None)]


@pytest.mark.parametrize("keyword", [False, True])
def test_clipping_with_a_norm_computed_before(keyword: bool) -> None:
    mine = parameters()
    total = torch.nn.utils.get_total_norm([p.grad for p in mine])
    call = torch.nn.utils.clip_grads_with_norm_
    with Ear() as ear:
        call(parameters=mine, max_norm=1.0, total_norm=total) if keyword else call((p for p in mine), 1.0, total)
    assert norm(mine) == pytest.approx(1.0, rel=1e-5)
    assert [(e.function, e.limit, n) for e, n in ear.after] == [("clip_grads_with_norm_", 1.0, 13.0)]


def test_the_deprecated_function() -> None:
    mine = parameters()
    with Ear() as ear, pytest.warns(FutureWarning):
        torch.nn.utils.clip_grad_norm(mine, 1.0)
    assert norm(mine) == pytest.approx(1.0, rel=1e-5)
    assert [(e.function, n) for e, n in ear.after] == [("clip_grad_norm_", 13.0)]


def test_the_listener_is_asked_before_the_gradients_change() -> None:
    seen: list[float] = []
    mine = parameters()
    ear = Ear()
    ear.clipping = lambda event: seen.append(norm(mine))  # type: ignore[method-assign]
    with ear:
        clip_grad_norm_(mine, 1.0)
    assert seen == [13.0]


REFUSED: list[Callable[[], Any]] = [
    lambda: clip_grad_norm_(),
    lambda: clip_grad_norm_(parameters()),
    lambda: clip_grad_norm_(parameters(), "much"),
    lambda: clip_grad_norm_(7, 1.0),
]


@pytest.mark.parametrize("call", REFUSED)
def test_a_call_that_torch_refuses_is_refused_alike(call: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as plain:
        call()
    with Ear() as ear, pytest.raises(type(plain.value)) as tapped:
        call()
    assert str(tapped.value) == str(plain.value)
    assert ear.before == []


def test_after_an_error_in_torch_the_next_call_is_seen() -> None:
    mine = parameters()
    mine[0].grad = torch.tensor([math.nan, 1.0])
    with Ear() as ear:
        with pytest.raises(RuntimeError, match="non-finite"):
            clip_grad_norm_(mine, 1.0, error_if_nonfinite=True)
        clip_grad_norm_(parameters(), 2.0)
    assert [e.limit for e in ear.before] == [1.0, 2.0]
    assert [e.limit for e, _ in ear.after] == [2.0]


def test_nothing_is_seen_before_and_after() -> None:
    ear = Ear()
    clip_grad_norm_(parameters(), 1.0)
    with ear:
        assert all(function is not UNTOUCHED[name] for name, function in cells().items())
    clip_grad_norm_(parameters(), 1.0)
    assert ear.before == ear.after == []


def test_leaving_in_any_order() -> None:
    first, second = Ear(), Ear()
    first.__enter__()
    second.__enter__()
    clip_grad_norm_(parameters(), 1.0)
    first.__exit__()
    clip_grad_norm_(parameters(), 2.0)
    second.__exit__()
    second.__exit__()
    assert [e.limit for e in first.before] == [1.0]
    assert [e.limit for e in second.before] == [1.0, 2.0]


def tracker() -> tuple[gradwatch.Watch, nn.Linear]:
    model = nn.Linear(2, 1)
    return gradwatch.track(torch.optim.SGD(model.parameters(), lr=0.1), model), model


def test_two_trackers_left_out_of_order() -> None:
    one, other = tracker()[0], tracker()[0]
    one.__enter__()
    other.__enter__()
    one.close()
    assert all(function is not UNTOUCHED[name] for name, function in cells().items())
    other.close()
    assert all(function is UNTOUCHED[name] for name, function in cells().items())


def test_torch_is_restored_after_an_exception_in_the_loop() -> None:
    watch, model = tracker()
    with pytest.raises(ZeroDivisionError), watch:
        model(torch.ones(2)).sum().backward()
        1 / 0
    assert all(function is UNTOUCHED[name] for name, function in cells().items())


def test_threads_clip_at_once() -> None:
    errors: list[BaseException] = []
    ears = [Ear() for _ in range(4)]

    def work(ear: Ear) -> None:
        try:
            for _ in range(50):
                mine = parameters()
                with ear:
                    clip_grad_norm_((p for p in mine), 1.0)
                assert norm(mine) == pytest.approx(1.0, rel=1e-5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(ear,)) for ear in ears]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(len(ear.before) >= 50 for ear in ears)


def test_two_trackers_in_two_threads_see_their_own_gradients() -> None:
    errors: list[BaseException] = []

    def work(limit: float) -> None:
        try:
            model = nn.Linear(4, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            with gradwatch.track(optimizer, model, rules=()) as watch:
                for _ in range(20):
                    optimizer.zero_grad()
                    model(torch.ones(4)).sum().backward()
                    clip_grad_norm_(model.parameters(), limit)
                    optimizer.step()
            assert watch.health().internal_errors == 0
            assert len(watch.history) == 20
            for record in watch.history:
                assert record.norm_before == pytest.approx(math.sqrt(5), rel=1e-6)
                assert record.norm_after == pytest.approx(limit, rel=1e-5)
                assert [c.limit for c in record.clips] == [limit]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (0.5, 1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Where torch builds its functions otherwise


def test_a_function_without_the_expected_cell_is_seen_by_its_names_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tap, "_cell_of", lambda _: None)
    early = torch.nn.utils.clip_grad_norm_
    before = {**vars(torch.nn.utils), **vars(torch.nn.utils.clip_grad)}
    mine = parameters()
    with caplog.at_level(logging.WARNING, "gradwatch"), Ear() as ear:
        torch.nn.utils.clip_grad_norm_(mine, 2.0)
        torch.nn.utils.clip_grad.clip_grad_value_(mine, 3.0)
        torch.nn.utils.clip_grads_with_norm_(mine, 1.0, torch.tensor(2.0))
    seen = [("clip_grad_norm_", 2.0), ("clip_grad_value_", 3.0), ("clip_grads_with_norm_", 1.0)]
    assert [(event.function, event.limit) for event, _ in ear.after] == seen
    assert torch.nn.utils.clip_grad_norm_ is early
    assert {**vars(torch.nn.utils), **vars(torch.nn.utils.clip_grad)} == before
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert all("by the names in torch.nn.utils only" in message for message in messages)


def test_norms_are_right_where_a_function_imported_before_goes_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "_cell_of", lambda _: None)
    early = torch.nn.utils.clip_grad_value_
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        model(torch.tensor([1.0, 2.0, 2.0])).sum().backward()
        early(model.parameters(), 1.0)
        optimizer.step()
    assert watch["optimizer"].norm_before == 3.0
    assert watch["optimizer"].norm_after == pytest.approx(3**0.5, rel=1e-6)
    assert watch["optimizer"].clips == ()


def test_of_an_empty_generator_torch_warns_as_without_tracking() -> None:
    def warned() -> list[str]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            clip_grad_norm_((p for p in ()), 1.0)
        return [str(warning.message) for warning in seen]

    bare = warned()  # nothing, before torch had this warning
    with Ear() as ear:
        assert warned() == bare
    assert ear.before[0].ids == b""
