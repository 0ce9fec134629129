"""Which steps are told of at once, by what the steps before them were like."""

import math

import pytest

from gradwatch.blocks import Facts
from gradwatch.measure.of_late import OfLate

USUAL = Facts.usual(2)


def used_to(square: float = 1.0) -> OfLate:
    """A norm of this square is usual."""
    of_late = OfLate()
    of_late.is_broken_by(USUAL, 0, square, square)
    of_late.settled()
    return of_late


def told(of_late: OfLate, *faint: int, facts: Facts = USUAL) -> list[bool]:
    """Of steps of norm 1 with so many faint gradients each."""
    return [of_late.is_broken_by(facts, n, 1.0, 1.0) for n in faint]


def test_what_begins_is_told_of_some_times_and_then_is_usual() -> None:
    of_late = used_to()
    assert told(of_late, 0, 0) == [False, False]
    assert told(of_late, *[1] * 8) == [True] * OfLate.ALIKE + [False] * (8 - OfLate.ALIKE)
    # Another gradient less is another thing.
    assert told(of_late, 2) == [True]


def test_a_norm_that_moves_around_the_limit_is_usual_after_a_while() -> None:
    """As in the first layers of a deep net of sigmoids."""
    of_late = used_to()
    told(of_late, *[2, 3] * OfLate.ALIKE)
    assert not any(told(of_late, *[2, 3] * 50))
    of_late.settled()
    assert not any(told(of_late, 2, 3))


def test_what_lasts_is_told_of_though_as_many_come_and_go_now_and_then() -> None:
    """One layer is drawn, and another one falls silent."""
    of_late = used_to()
    told(of_late, *[0, 0, 0, 1] * 8)
    assert told(of_late, 0, 1, 1, 1) == [False, False, True, True]


def test_what_begins_anew_when_all_was_well_is_told_of_anew() -> None:
    of_late = used_to()
    for _ in range(2 * OfLate.ALIKE):
        assert told(of_late, *[1] * 8)[0]
        of_late.settled()
        # No step came between these two, so that nothing was well.
        of_late.settled()
        assert told(of_late, 1) == [False]
        of_late.settled()
        told(of_late, 0)
        of_late.settled()


def test_where_no_step_is_like_another_one_in_so_many_is_told_of() -> None:
    of_late = used_to()
    several = [told(of_late, 1, facts=Facts.usual(2))[0] for _ in range(400)]
    assert all(several[: OfLate.AT_ONCE])
    assert sum(several[200:]) == pytest.approx(200 / (OfLate.ONE_IN + 1), abs=2)
    assert len(of_late._kinds) <= OfLate.MOST
    # After as many steps in which all is well it is as at first.
    told(of_late, *[0] * OfLate.ONE_IN * OfLate.AT_ONCE)
    assert all(told(of_late, 1, facts=Facts.usual(2))[0] for _ in range(OfLate.AT_ONCE))


@pytest.mark.parametrize("faint", [0, 1])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(("square", "is_news"), [(99.0, False), (101.0, True), (math.nan, True), (math.inf, True)])
def test_a_norm_far_above_those_that_were_told_of_is_told_of_at_once(
    side: str, square: float, is_news: bool, faint: int
) -> None:
    of_late = used_to()
    # One that is 0 for long is usual.
    told(of_late, *[faint] * 8)
    of_late.settled()
    assert of_late.is_broken_by(USUAL, faint, **{"before": 1.0, "after": 1.0, side: square}) == is_news


@pytest.mark.parametrize("square", [1e-20, 1.0, 1e300, math.inf, math.nan])
@pytest.mark.parametrize("others", [False, True])
def test_the_first_step_is_told_of_at_once_where_it_is_not_finite_or_others_were(
    square: float, others: bool
) -> None:
    of_late = OfLate()
    if others:
        of_late.settled()
    assert of_late.is_broken_by(USUAL, 0, square, square) == (others or not math.isfinite(square))


def test_a_norm_stays_usual_for_some_while() -> None:
    of_late = used_to()
    for _ in range(10):
        assert not of_late.is_broken_by(USUAL, 0, 1e-4, 1e-4)
        of_late.settled()
    assert not of_late.is_broken_by(USUAL, 0, 1.0, 1.0)
