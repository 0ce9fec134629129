"""How long a silence is too long: never on a guess, never for good."""

from __future__ import annotations

import json

from gradwatch.judge.presence import Presences


def presences(*steps: str, all_of: str = "abc") -> Presences:
    """Each step names the modules with a gradient by letters."""
    known = Presences(3)
    for step in steps:
        known.take(tuple(all_of), [m for m in all_of if m not in step])
    return known


def test_where_nothing_comes_and_goes_three_steps_are_enough() -> None:
    assert presences("abc", "abc", "bc").patience("a") == 3


def test_a_module_that_was_never_heard_is_not_waited_for() -> None:
    assert presences("bc", "bc", "bc").patience("a") == 3


def test_a_silence_in_the_first_steps_alone_is_forgotten() -> None:
    assert presences("bc", "abc", "abc", "bc").patience("a") == 3
    assert presences("bc", "abc", "abc", "ab").patience("c") == 3


def test_a_net_that_opens_one_layer_after_another_is_waited_for() -> None:
    """The rate is 0 in the first step; then c has its first gradient, then b, and a behind it."""
    steps, silent = ["d", "d", "cd", "cd", "bcd", "bcd"], []
    for count in range(1, 7):
        silent.append(presences(*steps[:count], all_of="abcd").silence("a"))
    assert silent == [1, 2, 1, 2, 1, 2]


def test_what_has_been_silent_for_too_long_is_put_off_no_more() -> None:
    assert presences("c", "c", "c", "bc").silence("a") == 4


def test_a_first_gradient_puts_off_nobody_who_was_heard_before() -> None:
    assert presences("a", "", "b", all_of="abc").silence("a") == 2


def test_modules_that_take_turns_are_waited_for() -> None:
    known = presences("a", "b", all_of="abc")
    assert known.patience("a") > 30
    # Never heard, and others are drawn: it may come.
    assert known.patience("c") > 30


def test_a_module_heard_in_each_of_many_steps_is_not_drawn() -> None:
    assert presences(*["ab", "ac"] * 16, "b").patience("a") == 3


def test_a_silence_among_modules_that_pause_too_may_be_meant() -> None:
    assert presences("bc", "bc", "b").pauses_like_others("a")
    assert presences("abc", "ab", "abc", "bc").pauses_like_others("a")


def test_modules_that_fall_silent_together_do_not_excuse_each_other() -> None:
    known = presences("abc", "abc", "c", "c")
    assert not known.pauses_like_others("a")
    assert not known.pauses_like_others("b")


def test_a_late_start_of_others_excuses_nothing() -> None:
    assert not presences("b", "b", "bc", "bc").pauses_like_others("a")


def test_a_module_heard_in_each_of_many_steps_has_no_excuse() -> None:
    assert not presences(*["ab", "a"] * 16, "b", "").pauses_like_others("a")


def test_patience_follows_the_frequency() -> None:
    often, seldom = presences(*["a", "a", ""] * 50), presences(*["a", "", "", "", ""] * 50)
    assert 3 < often.patience("a") < seldom.patience("a") < 150


def test_gaps_that_grow_longer_are_waited_for() -> None:
    steps = [step for gap in (1, 2, 4, 8, 16, 32) for step in ["a", *[""] * gap]]
    assert presences(*steps, "a").patience("a") == 6 * 32


def test_a_single_silence_is_forgotten_in_time() -> None:
    assert presences("a", "", *["a"] * 10).patience("a") > 3
    assert presences("a", "", *["a"] * 1200).patience("a") == 3


def test_its_state_goes_on() -> None:
    known = presences("a", "b", "a", "", "")
    again = Presences(3)
    again.load_state_dict(json.loads(json.dumps(known.state_dict())))
    for _ in range(3):
        for module in "abc":
            assert again.patience(module) == known.patience(module)
            assert again.silence(module) == known.silence(module)
        again.take(tuple("abc"), ["a", "c"])
        known.take(tuple("abc"), ["a", "c"])
