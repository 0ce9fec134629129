"""Causes that a record shows by itself: proved by its numbers, or not given."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradwatch.causes import REMEDIES, cause
from gradwatch.judge.at_hand import members, silence, where_of
from gradwatch.records import Cause, ClipCall, GroupNorms
from tests.made_up import record

NAN = math.nan
NAMES = {name: GroupNorms(1.0, 1.0) for name in ("cnn.w", "cnn.b", "mlp.w", "mlp.b")}


def why(before: float, after: float, **other: Any) -> Cause | None:
    made = record(1, parameters=NAMES, **{"max_norm": None, **other})
    return silence(made, "mlp", members(made, "mlp"), GroupNorms(before, after))


def kind(before: float, after: float, **other: Any) -> str | None:
    found = why(before, after, **other)
    return None if found is None else found.kind


def call(limit: float = 1.0, returned: float | None = 5.0, before: float = 5.0, after: float = 0.0) -> ClipCall:
    return ClipCall("clip_grad_norm_", limit, 2.0, returned, before, after)


def test_members_go_by_name() -> None:
    made = record(1, parameters={**NAMES, "temperature": GroupNorms(1.0, 1.0)})
    assert members(made, "mlp") == ["mlp.w", "mlp.b"]
    assert members(made, "(root)") == ["temperature"]
    assert members(made, "m") == []
    assert len(members(made, None)) == 5


def test_what_a_module_owns_itself_is_a_line_beside_those_of_its_parts() -> None:
    norms = GroupNorms(1.0, 1.0)
    made = record(
        1, parameters=dict.fromkeys(("b.scale", "b.0.w", "b.01.w"), norms), modules={"b": norms, "b.0": norms}
    )
    assert members(made, "b") == ["b.scale", "b.01.w"]
    assert members(made, "b.0") == ["b.0.w"]


def test_frozen_is_every_parameter_of_the_module() -> None:
    found = why(NAN, NAN, frozen=("mlp.w", "mlp.b"))
    assert found == cause("frozen", "mlp", parameters=2)
    assert kind(NAN, NAN, frozen=("mlp.w",)) is None
    assert kind(NAN, NAN, frozen=("cnn.w", "cnn.b")) is None


def test_no_backward_is_no_pass_for_the_whole_optimizer() -> None:
    found = why(NAN, NAN, backward_passes=0, missing=("mlp.w", "mlp.b"))
    assert found == cause("no-backward", "mlp", backward_passes=0, missing=2)
    assert kind(0.0, 0.0, backward_passes=0) == "no-backward"
    assert kind(NAN, NAN, backward_passes=1) is None


@pytest.mark.parametrize("after", [0.0, NAN])
def test_zeroed_is_erased_without_a_clip_call(after: float) -> None:
    found = why(5.0, after)
    assert found is not None
    assert (found.kind, found.where, found.evidence["norm_before"]) == ("zeroed", "mlp", 5.0)
    assert found.evidence["norm_after"] == ("missing" if math.isnan(after) else 0.0)


def test_a_clip_call_that_leaves_something_has_not_erased_it() -> None:
    assert kind(5.0, 0.0, clips=(call(after=1.0),)) == "zeroed"
    # It should have left a norm of 1, and something else left nothing.
    assert kind(5.0, 0.0, clips=(call(after=0.0),)) == "zeroed"


def test_clipped_to_zero() -> None:
    assert kind(5.0, 0.0, clips=(call(limit=0.0),)) == "clipped-to-zero"
    assert kind(5.0, 0.0, clips=(call(limit=1e-46),)) == "clipped-to-zero"
    assert kind(5.0, 0.0, clips=(call(limit=0.0, returned=None),)) == "clipped-to-zero"
    # One Inf elsewhere: torch multiplies all the others by 0.
    found = why(5.0, 0.0, clips=(call(returned=math.inf, before=math.inf, after=NAN),))
    assert found is not None
    assert (found.kind, found.evidence["norm_returned"]) == ("clipped-to-zero", math.inf)


def test_clip_overflow() -> None:
    assert kind(5.0, 0.0, clips=(call(returned=math.inf, before=2e19),)) == "clip-overflow"


def test_what_the_record_does_not_show_has_no_cause() -> None:
    assert kind(0.0, 0.0) is None
    assert kind(NAN, NAN, unwritten=("mlp.w", "mlp.b")) is None


def test_where_is_the_module_that_holds_them_all() -> None:
    modules = {"cnn": GroupNorms(1.0, 1.0), "mlp": GroupNorms(1.0, 1.0)}
    made = record(1, modules=modules, parameters=NAMES)
    assert where_of(made, ["mlp.w", "mlp.b"]) == "mlp"
    assert where_of(made, ["mlp.w", "cnn.w"]) == "actor"


def test_every_remedy_is_one_sentence_that_tells_what_to_do() -> None:
    for remedy in REMEDIES.values():
        assert remedy[0].isupper()
        assert remedy.endswith(".")
        assert ". " not in remedy
