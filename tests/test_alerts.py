"""The words of alerts, causes and incidents."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gradwatch.records import Alert, Cause, Incident
from tests.made_up import alert

TANH = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, "Lower the learning rate.")
WAY = Cause("shortcut", "cnn", {"share": 1.0, "norm": 7771.0, "silent": "mlp", "silent_norm": 0.0}, "Cut it.")


def incident(*alerts: Alert, root: Cause | None = TANH, began: float = 1000.0) -> Incident:
    return Incident("saturated-tanh at mlp.2", alerts, root, alerts[0].step, None, began)


@pytest.mark.parametrize(
    ("state", "start"),
    [
        ("firing", "! CRITICAL zero at mlp, step 1 of actor: the gradient"),
        ("explained", "? zero at mlp, step 1 of actor: the gradient"),
        ("resolved", "+ zero at mlp, step 1 of actor: the gradient"),
    ],
)
def test_state_severity_rule_place_and_whose_step_come_first(state: str, start: str) -> None:
    assert str(alert(state)).startswith(start)


def test_an_alert_on_the_optimizer_names_no_module() -> None:
    assert str(alert(module=None)).startswith("! CRITICAL zero, step 1 of actor: ")


def test_a_part_of_a_sequential_is_not_taken_for_a_number() -> None:
    dead = Cause("dead-relu", "1", {"behind": "0"}, "Lower it.")
    told = str(alert(module="0", cause=dead))
    assert told.startswith("! CRITICAL zero at module 0, step 1 ")
    assert told.endswith(" Cause: dead-relu at module 1 (fed by module 0). Lower it.")
    assert alert(module="0.2 and 3 more").title == "zero at module 0.2 and 3 more"
    assert alert(module="2nd.1").title == "zero at 2nd.1"


def test_of_two_modules_both_are_named_and_more_are_counted() -> None:
    two = [alert(module=name) for name in ("fc1", "fc2")]
    assert "  zero at fc1 and fc2, step 1 of actor" in str(incident(*two, root=None))
    assert "  zero at fc1 and 2 more, step 1 of" in str(incident(*two, alert(module="fc3"), root=None))


def test_an_alert_whose_cause_is_known_ends_in_it_and_in_its_remedy() -> None:
    end = (
        ": the gradient of mlp is exactly 0. Cause: saturated-tanh at mlp.2 (share 99 %). Lower the learning rate."
    )
    assert str(alert(cause=TANH)).endswith(end)


def test_an_explanation_does_not_say_again_what_its_alert_said() -> None:
    assert str(alert("explained", cause=TANH)) == (
        "? zero at mlp, step 1 of actor: Cause: saturated-tanh at mlp.2 (share 99 %). Lower the learning rate."
    )


def test_what_is_over_needs_no_remedy() -> None:
    assert "Cause" not in str(alert("resolved", cause=TANH))


def test_a_cause_without_numbers_has_no_brackets() -> None:
    assert str(Cause("no-backward", "mlp", {}, "Call backward().")) == "no-backward at mlp"


def test_of_the_numbers_the_first_two_are_told_of_the_words_all_and_the_reason_at_the_end() -> None:
    evidence = {"first_number": 0.5, "share": 0.99, "another": 12, "by": "mlp", "reason": "it is flat"}
    told = str(Cause("shortcut", "cnn", evidence, "Cut it."))
    assert told == "shortcut at cnn (first number 0.5, share 99 %, by mlp): it is flat"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (34.0, "34 s"),
        (81.0, "1 min 21 s"),
        (3723.0, "1 h 2 min"),
        (90000.0, "25 h 0 min"),
    ],
)
def test_the_runs_own_time_stands_beside_the_step(seconds: float, words: str) -> None:
    fired = alert(time=1000.0 + seconds)
    assert f"step 1 of actor ({words}): " in fired.line(incident(fired))


def test_what_follows_from_something_says_so() -> None:
    root, later = alert(cause=TANH), alert(step=25, rule="growth", module=None, message="it grows", cause=WAY)
    assert later.line(incident(root, later)).endswith(
        "it grows. Cause: shortcut at cnn (100 % of the squared norm, while mlp is silent, norm 7.77e+03). Cut it. "
        "It follows from saturated-tanh at mlp.2."
    )
    assert "follows" not in root.line(incident(root, later))


def test_the_cause_of_a_second_module_is_not_told_again() -> None:
    root, other = alert(cause=TANH), alert(module="cnn", message="cnn is 0", cause=TANH)
    assert other.line(incident(root, other)).endswith(": cnn is 0. Cause: saturated-tanh at mlp.2, as before.")


def test_the_words_that_an_alert_was_given_are_its_words() -> None:
    assert str(replace(alert(), words="as told")) == "as told"


def test_the_story_tells_the_root_first_and_what_to_do_last() -> None:
    alerts = [
        alert(step=12, time=1034.0),
        alert("explained", 13, cause=TANH, time=1036.0),
        alert(step=25, rule="growth", severity="warning", module=None, message="it grows", cause=WAY, time=1081.0),
        alert(step=60, rule="clip-saturated", severity="warning", module=None, message="all is cut", cause=WAY),
    ]
    assert str(incident(*alerts)).splitlines() == [
        "CRITICAL since step 12 of actor (34 s): saturated-tanh at mlp.2",
        "  zero at mlp, step 12 of actor (34 s): the gradient of mlp is exactly 0. "
        "Cause: saturated-tanh at mlp.2 (share 99 %).",
        "  growth, step 25 of actor (1 min 21 s): it grows. Cause: shortcut at cnn (100 % of the squared norm, while mlp is silent, norm 7.77e+03).",
        "  clip-saturated, step 60 of actor: all is cut.",
        "  To do: Lower the learning rate.",
        "  Then: Cut it.",
    ]


def test_modules_that_are_ill_for_one_reason_are_one_line() -> None:
    ill = [alert(module=f"h.{i}", message=f"h.{i} is 0", cause=TANH) for i in range(12)]
    told = str(incident(*ill)).splitlines()
    assert told[1].startswith("  zero at h.0 and 11 more, step 1 of actor: h.0 is 0. Cause: ")
    assert len(told) == 3


def test_what_is_over_says_since_when() -> None:
    over = replace(incident(alert(cause=TANH), alert("resolved", 40)), over=40)
    assert str(over).splitlines()[0] == (
        "CRITICAL since step 1 of actor, over at step 40 of actor: saturated-tanh at mlp.2"
    )


def test_no_sentence_about_a_cause_has_more_than_two_numbers() -> None:
    evidence = {f"number_{'abcdefgh'[i]}": i * 1.5 for i in range(8)} | {"operation": "TanhBackward"}
    assert len(re.findall(r"\d+", str(Cause("unknown", "mlp", evidence, "Look.")).replace(".", ""))) == 2


def test_what_became_worse_is_told_as_it_is_now() -> None:
    first = alert(severity="warning", message="it was skipped")
    worse = replace(first, severity="critical", step=10, message="training stands still")
    again = replace(worse, severity="warning", step=20, message="less of it")
    story = str(incident(first, worse, again, root=None))
    assert story.startswith("CRITICAL since step 1 of actor")
    assert "step 10 of actor" in story
    assert "training stands still" in story
    assert "less of it" not in story


def test_what_has_no_cause_says_what_to_do_by_its_rule() -> None:
    loud = alert(rule="explosion", module=None, message="norm 1e9")
    clipped = alert(rule="clip-saturated", module=None, message="always in force", step=9)
    story = str(incident(loud, clipped, root=None)).splitlines()
    assert story[-2].startswith("  To do: Lower the learning rate")
    assert story[-1].startswith("  Then: Look at the norm before clipping")
    known = str(incident(loud, replace(clipped, cause=TANH)))
    assert "Lower the learning rate, look at" not in known
    assert TANH.remedy in known
