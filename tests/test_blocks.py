"""From norms by column to a record: what adds up, and what is missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradwatch.blocks import AFTER, BEFORE, BY_VALUE, Block, Facts, FloatArray, Layout, NotedClip, StepRow
from gradwatch.measure.lines import Lines
from gradwatch.measure.parameters import OptimizerParameters
from gradwatch.measure.sharding.shards import Shards
from gradwatch.records import StepRecord, clip_ratio


def layout_of(modules: dict[str, nn.Module], parameters: list[nn.Parameter] | None = None) -> Layout:
    held = parameters or [p for module in modules.values() for p in module.parameters()]
    return OptimizerParameters("optimizer", torch.optim.SGD(held, lr=0.1), Lines(modules), Shards()).layout


def three() -> Layout:
    return layout_of({name: nn.Linear(2, 2) for name in ("a", "b", "c")})


def facts(columns: int, missing: tuple[int, ...] = (), **flags: tuple[int, ...]) -> Facts:
    """What is usual, but for the columns that are named."""
    usual = Facts.usual(columns)
    there = np.isin(np.arange(columns), missing, invert=True)
    named = {name: np.isin(np.arange(columns), places) for name, places in flags.items()}
    return replace(usual, had_before=there, has_after=there, **named)


def clip(
    function: str,
    limit: float,
    norm_type: float | None,
    norm: float | None,
    columns: tuple[int, ...],
    *repeated: int,
) -> NotedClip:
    return NotedClip(function, limit, norm_type, norm, np.array(columns, dtype=np.intp), repeated)


def among_others(layout: Layout, row: StepRow, before: FloatArray, after: FloatArray) -> Block:
    """Between a step whose norms are out of range and one that has no gradient at all, and is skipped."""
    columns = len(layout.names)
    huge, nothing = np.full(columns, 1e200), np.full(columns, np.nan)
    first = StepRow(0, 0.0, Facts.usual(columns), clips=(clip("clip_grad_norm_", 1e-9, 2.0, None, (0,)),))
    last = StepRow(2, 2.0, facts(columns, missing=tuple(range(columns))), skipped=True)
    return Block(layout, [first, row, last], np.array([huge, before, nothing]), np.array([huge, after, nothing]))


def record(
    layout: Layout,
    before: list[float],
    after: list[float] | None = None,
    missing: tuple[int, ...] = (),
    clips: tuple[NotedClip, ...] = (),
    skipped: bool = False,
    **flags: tuple[int, ...],
) -> StepRecord:
    """The record of one step, which is the same whatever steps are beside it."""
    norms = np.array(before), np.array(before if after is None else after)
    row = StepRow(1, 1_700_000_000.0, facts(len(before), missing, **flags), 1, clips, skipped)
    alone = Block(layout, [row], *(side[None] for side in norms))[0]
    assert repr(among_others(layout, row, *norms)[1]) == repr(alone)
    return alone


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
    made = record(layout_of({"one": one, "other": other}, [one.weight]), [5.0])
    assert made.modules["one"] == made.modules["other"] == (5.0, 5.0)
    assert made.norm_before == 5.0


def test_modules_may_overlap() -> None:
    inner = nn.Linear(2, 2)
    outer = nn.Sequential(inner, nn.Linear(2, 2))
    made = record(layout_of({"outer": outer, "inner": inner}, list(outer.parameters())), [3.0, 4.0, 12.0, 0.0])
    assert dict(made.modules) == {"outer": (13.0, 13.0), "inner": (5.0, 5.0)}


def test_clip_calls_are_held_to_the_gradients_they_were_given() -> None:
    clips = (
        clip("clip_grad_norm_", 2.0, 2.0, 5.0, (0, 1)),
        clip("clip_grad_norm_", math.inf, 2.0, 17.0, (4, 5)),
        clip(BY_VALUE, 0.5, None, None, (0,)),
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
    clips = tuple(clip("clip_grad_norm_", limit, 2.0, 5.0, (0, 1)) for limit in (7.0, 6.0))
    made = record(three(), [3.0, 4.0, 0.0, 0.0, 0.0, 0.0], clips=clips)
    assert (made.max_norm, made.clipped) == (6.0, False)


def test_without_clipping_there_is_no_limit() -> None:
    made = record(three(), [1.0] * 6)
    assert (made.max_norm, made.clipped, made.clips) == (None, False, ())
    only_value = record(three(), [1.0] * 6, clips=(clip(BY_VALUE, 0.1, None, None, (0,)),))
    assert (only_value.max_norm, only_value.clipped) == (None, False)


def test_who_wrote_a_gradient_is_told_by_name() -> None:
    made = record(three(), [1.0] * 6, unwritten=(0, 1), stale=(0,), leaked=(2,), frozen=(5,))
    assert (made.unwritten, made.stale, made.leaked, made.frozen) == (
        ("a.weight", "a.bias"),
        ("a.weight",),
        ("b.weight",),
        ("c.bias",),
    )
    made = record(three(), [1.0] * 6, missed_by_clip=(3,), clipped_between=(4,))
    assert (made.missed_by_clip, made.clipped_between) == (("b.bias",), ("c.weight",))


def test_a_gradient_of_zero_or_none_is_nobodys() -> None:
    """It was not written, and that is all: what it holds is neither old nor somebody else's."""
    flags = dict.fromkeys(("unwritten", "stale", "leaked", "missed_by_clip", "clipped_between"), (0, 1))
    made = record(three(), [3.0] * 6, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0], missing=(1,), **flags)
    assert (made.stale, made.leaked, made.missed_by_clip, made.clipped_between) == ((), (), (), ())
    assert made.unwritten == ("a.weight", "a.bias")


def test_what_a_skipped_step_did_not_consume_is_not_named() -> None:
    assert record(three(), [1.0] * 6, [math.nan] * 6, skipped=True).nonfinite == ()
    made = record(three(), [1.0, math.inf, 1.0, 1.0, 1.0, 1.0], [math.nan] * 6, skipped=True)
    assert (made.nonfinite, made.skipped) == (("a.bias",), True)


def test_a_clip_call_that_was_given_nothing_has_no_norms_and_sets_no_limit() -> None:
    made = record(three(), [3.0] * 6, clips=(clip("clip_grad_norm_", 1.0, 2.0, 0.0, ()),))
    assert [(c.scope_before, c.scope_after, c.rounding) for c in made.clips] == [(None, None, 0.0)]
    assert (made.max_norm, made.clipped) == (None, False)


def test_a_limit_is_held_against_the_norm_that_torch_computed() -> None:
    given = record(
        three(), [3.0, 4.0, 0.0, 0.0, 0.0, 0.0], clips=(clip("clip_grad_norm_", 4.0, 1.0, 3.0, (0, 1)),)
    )
    assert (given.max_norm, given.clipped) == (4.0, False)
    none = record(
        three(), [3.0, 4.0, 0.0, 0.0, 0.0, 0.0], clips=(clip("clip_grad_norm_", 4.0, 2.0, None, (0, 1)),)
    )
    assert none.clipped


def test_what_a_clip_call_was_given_twice_and_how_coarse_it_is() -> None:
    half = nn.Linear(2, 2).to(torch.bfloat16)
    layout = layout_of({"a": nn.Linear(2, 2), "half": half})
    calls = (clip("clip_grad_norm_", 1.0, 2.0, 2.0, (0, 2), 2), clip("clip_grad_norm_", 1.0, 2.0, 2.0, (0, 1)))
    both, one = record(layout, [1.0] * 4, clips=calls).clips
    assert (both.repeated, both.rounding) == (("half.weight",), torch.finfo(torch.bfloat16).eps)
    assert (one.repeated, one.rounding) == ((), torch.finfo(torch.float32).eps)


def test_a_gradient_that_was_there_before_and_is_not_at_the_step() -> None:
    layout = three()
    there = np.ones(6, dtype=bool)
    gone = np.array([False, False, True, True, True, True])
    row = StepRow(1, 0.0, replace(Facts.usual(6), had_before=there, has_after=gone))
    made = Block(layout, [row], np.full((1, 6), 2.0), np.full((1, 6), 2.0))[0]
    assert made.modules["a"].norm_before == pytest.approx(math.sqrt(8))
    assert math.isnan(made.modules["a"].norm_after)
    assert (made.missing, made.missing_modules) == (("a.weight", "a.bias"), ("a",))


def test_the_arrays_of_a_block_say_what_its_records_say() -> None:
    layout = three()
    row = StepRow(1, 0.0, facts(6, missing=(2, 3)))
    block = among_others(layout, row, np.arange(6.0), np.arange(6.0) / 2)
    for side in (BEFORE, AFTER):
        for index, made in enumerate(block):
            whole = (made.norm_before, made.norm_after)[side]
            assert block.norms(side)[index] == pytest.approx(whole, nan_ok=True, abs=0.0)
            for norms, table in (
                (block.line_norms(side), made.modules),
                (block.owner_norms(side), made.owners),
                (block.parameter_norms(side), made.parameters),
            ):
                assert norms[index].tolist() == pytest.approx([n[side] for n in table.values()], nan_ok=True)
    assert block.silent.tolist() == [[False] * 3, [False, True, False], [True] * 3]
    assert block.silent_whole.tolist() == [False, False, True]
    assert block.nonfinite.tolist() == [False, False, False]


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_beyond_the_end_of_a_block_is_refused(index: int) -> None:
    block = among_others(three(), StepRow(1, 0.0, Facts.usual(6)), np.ones(6), np.ones(6))
    assert [made.step for made in block[1:]] == [1, 2]
    assert block[-1].step == 2
    with pytest.raises(IndexError, match="3 steps"):
        block[index]


def test_what_is_as_usual_is_known_by_its_flags() -> None:
    assert facts(2).as_usual
    assert not facts(2, missing=(1,)).as_usual
    for name in ("unwritten", "stale", "leaked", "missed_by_clip", "clipped_between", "frozen"):
        odd = facts(2, **{name: (0,)})
        assert odd.complete
        assert odd.marks == {name}
        assert not odd.as_usual
