"""From norms by slot to a record: what adds up, and what is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradwatch.measure.rows import BY_VALUE, Clip, Row, record_of
from gradwatch.measure.slots import Holding, ModuleNames, Slots
from gradwatch.records import StepRecord, clip_ratio


def holding(modules: dict[str, nn.Module], parameters: list[nn.Parameter] | None = None) -> Holding:
    held = parameters or [p for module in modules.values() for p in module.parameters()]
    return Holding(torch.optim.SGD(held, lr=0.1), Slots(), ModuleNames(modules))


def three() -> Holding:
    return holding({name: nn.Linear(2, 2) for name in ("a", "b", "c")})


def record(
    held: Holding,
    before: list[float],
    after: list[float] | None = None,
    missing: tuple[int, ...] = (),
    clips: tuple[Clip, ...] = (),
) -> StepRecord:
    there = np.array([place not in missing for place in range(len(before))])
    norms = np.where(there, before, 0.0)
    final = norms if after is None else np.where(there, after, 0.0)
    return record_of("optimizer", 1, held, Row(norms, there, final, there, 1_700_000_000.0, 1, list(clips)))


@settings(max_examples=100)
@given(
    st.lists(st.floats(0.0, 1e6), min_size=6, max_size=6),
    st.sampled_from([1.0, 1e-150, 1e-300, 1e150, 1e300]),
)
def test_squares_of_the_modules_sum_to_the_square_of_the_whole(norms: list[float], unit: float) -> None:
    made = record(three(), [norm * unit for norm in norms], [norm * unit / 3 for norm in norms])
    for side in ("norm_before", "norm_after"):
        whole = getattr(made, side)
        assert math.isfinite(whole)
        assert math.hypot(*(getattr(m, side) for m in made.modules.values())) == pytest.approx(whole, rel=1e-12)
        assert math.hypot(*(getattr(p, side) for p in made.parameters.values())) == pytest.approx(whole, rel=1e-12)


def test_modules_and_parameters_carry_their_own_norms() -> None:
    made = record(three(), [3.0, 4.0, 5.0, 12.0, 8.0, 15.0], [1.0, 0.0, 2.0, 0.0, 0.0, 3.0])
    assert dict(made.modules) == {"a": (5.0, 1.0), "b": (13.0, 2.0), "c": (17.0, 3.0)}
    assert made.parameters["b.bias"] == (12.0, 0.0)
    assert list(made.parameters) == ["a.weight", "a.bias", "b.weight", "b.bias", "c.weight", "c.bias"]
    assert made.norm_before == pytest.approx(math.sqrt(25 + 169 + 289))


def test_what_is_missing_is_nan_and_never_zero() -> None:
    made = record(three(), [3.0, 4.0, 0.0, 0.0, 8.0, 15.0], missing=(1, 2, 3))
    assert made.missing == ("a.bias", "b.weight", "b.bias")
    assert made.missing_modules == ("b",)
    assert made.modules["a"] == (3.0, 3.0)
    assert made.modules["c"] == (17.0, 17.0)
    for norms in (made.modules["b"], made.parameters["a.bias"], made.parameters["b.weight"]):
        assert math.isnan(norms.norm_before)
        assert math.isnan(norms.norm_after)
    assert made.norm_before == pytest.approx(math.sqrt(9 + 289))


def test_a_gradient_of_zero_is_zero_and_not_missing() -> None:
    made = record(three(), [0.0] * 6)
    assert (made.missing, made.missing_modules, made.nonfinite) == ((), (), ())
    assert made.modules["b"] == (0.0, 0.0)
    assert (made.norm_before, made.norm_after, made.clip_ratio) == (0.0, 0.0, 1.0)


def test_an_optimizer_without_any_gradient() -> None:
    made = record(three(), [0.0] * 6, missing=tuple(range(6)))
    assert math.isnan(made.norm_before)
    assert math.isnan(made.norm_after)
    assert math.isnan(made.clip_ratio)
    assert len(made.missing) == 6
    assert made.missing_modules == ("a", "b", "c")


@pytest.mark.parametrize(
    ("before", "after", "ratio"),
    [(0.0, 0.0, 1.0), (4.0, 1.0, 0.25), (0.0, 2.0, math.inf), (2.0, 0.0, 0.0), (2.0, 2.0, 1.0)],
)
def test_clip_ratio(before: float, after: float, ratio: float) -> None:
    assert clip_ratio(before, after) == ratio


@pytest.mark.parametrize(
    ("before", "after"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, math.inf), (0.0, math.nan)]
)
def test_clip_ratio_without_an_answer(before: float, after: float) -> None:
    assert math.isnan(clip_ratio(before, after))


def test_what_is_not_finite_is_named() -> None:
    made = record(three(), [1.0, math.nan, 1.0, math.inf, 1.0, 1.0])
    assert made.nonfinite == ("a.bias", "b.bias")
    assert math.isnan(made.modules["a"].norm_before)
    assert made.modules["b"].norm_before == math.inf
    assert made.modules["c"].norm_before == pytest.approx(math.sqrt(2))


def test_a_gradient_that_became_nan_after_the_backward_is_named() -> None:
    assert record(three(), [1.0] * 6, [1.0, 1.0, math.nan, 1.0, 1.0, 1.0]).nonfinite == ("b.weight",)


def test_a_tensor_shared_by_two_modules_counts_in_each_and_once_in_the_whole() -> None:
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    other.weight = one.weight
    made = record(holding({"one": one, "other": other}, [one.weight]), [5.0])
    assert made.modules["one"] == made.modules["other"] == (5.0, 5.0)
    assert made.norm_before == 5.0


def test_modules_may_overlap() -> None:
    inner = nn.Linear(2, 2)
    outer = nn.Sequential(inner, nn.Linear(2, 2))
    made = record(holding({"outer": outer, "inner": inner}, list(outer.parameters())), [3.0, 4.0, 12.0, 0.0])
    assert dict(made.modules) == {"outer": (13.0, 13.0), "inner": (5.0, 5.0)}


def test_clip_calls_are_held_to_the_gradients_they_were_given() -> None:
    clips = (
        Clip("clip_grad_norm_", 2.0, 2.0, 5.0, (0, 1)),
        Clip("clip_grad_norm_", math.inf, 2.0, 17.0, (4, 5)),
        Clip(BY_VALUE, 0.5, None, None, (0,)),
    )
    made = record(three(), [3.0, 4.0, 5.0, 12.0, 8.0, 15.0], [1.2, 1.6, 5.0, 12.0, 8.0, 15.0], clips=clips)
    assert [(c.scope_before, pytest.approx(c.scope_after)) for c in made.clips] == [
        (5.0, 2.0),
        (17.0, 17.0),
        (3.0, 1.2),
    ]
    # The infinite limit and the one by value set no max_norm.
    assert (made.max_norm, made.clipped) == (2.0, True)


def test_the_tightest_limit_is_reported_and_clipped_is_decided_call_by_call() -> None:
    clips = tuple(Clip("clip_grad_norm_", limit, 2.0, 5.0, (0, 1)) for limit in (7.0, 6.0))
    made = record(three(), [3.0, 4.0, 0.0, 0.0, 0.0, 0.0], clips=clips)
    assert (made.max_norm, made.clipped) == (6.0, False)


def test_without_clipping_there_is_no_limit() -> None:
    made = record(three(), [1.0] * 6)
    assert (made.max_norm, made.clipped, made.clips) == (None, False, ())
    only_value = record(three(), [1.0] * 6, clips=(Clip(BY_VALUE, 0.1, None, None, (0,)),))
    assert (only_value.max_norm, only_value.clipped) == (None, False)
