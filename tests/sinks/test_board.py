import pytest

from gradwatch.judge.judge import Judge
from gradwatch.records import Cause, RunInfo
from gradwatch.rules import Zero, default_rules
from gradwatch.sinks.board import AlertBoard, Place
from tests.made_up import alert, run_info

DEAD = Cause("saturated-tanh", "mlp", {"share": 0.99}, "Scale it down.")
AROUND = Cause("shortcut", "cnn", {"silent": "mlp"}, "Cut it.")


@pytest.fixture
def board():
    return AlertBoard(run_info(), {"actor": ("mlp",)})


def told(board, now=0.0):
    return {place.rule: (told.incident, told.role) for place, told in board.told(now)}


def test_an_explanation_neither_fires_nor_counts(board):
    for state in ("firing", "resolved", "explained"):
        board.take(alert(state), 0.0)
    assert dict(board.active())[Place("actor", "zero", "critical", "mlp")] == 0.0
    assert board.fired["actor", "zero", "critical"] == 1


def test_every_alert_that_a_rule_can_raise_is_shown_at_zero_before_it_fires():
    class Mine(Zero):
        id, severities = "mine", ("warning",)

    class Plain:
        id, severity, fires_after, clears_after = "plain", "critical", 1, 1

        def look(self, record):
            return []

    judge = Judge([*default_rules(), Mine(), Plain()])
    board = AlertBoard(RunInfo("r", 0, 0.0, "", "", "", ("a",), {}, judge.severities), {})
    shown = {kind for kind, count in board.fired.items() if count == 0}
    assert shown == {("a", rule, severity) for rule, several in judge.severities.items() for severity in several}
    assert shown >= {("a", "zero", "warning"), ("a", "clip-broken", "warning"), ("a", "mine", "warning")}
    assert ("a", "plain", "critical") in shown
    assert dict(board.active()) == {Place(*kind, ""): 0.0 for kind in shown}


def test_an_alert_alone_is_the_root_of_its_incident(board):
    board.take(alert(), 0.0)
    assert told(board) == {"zero": ("zero at mlp (actor)", "root")}


def test_what_follows_bears_the_name_of_its_root_as_soon_as_that_is_known(board):
    board.take(alert(step=1, rule="explosion", module=None), 0.0)
    board.take(alert(step=3, cause=DEAD), 0.0)
    assert told(board)["explosion"] == ("explosion (actor)", "root")
    board.take(alert("explained", step=4, rule="explosion", module=None, cause=AROUND), 0.0)
    assert told(board) == {
        "zero": ("zero at mlp (actor)", "root"),
        "explosion": ("zero at mlp (actor)", "follows"),
    }


def test_a_cause_that_is_found_later_leaves_the_incident_its_name(board):
    board.take(alert(), 0.0)
    before = told(board)
    board.take(alert("explained", step=2, cause=DEAD), 0.0)
    assert told(board) == before


def test_what_is_over_is_told_for_five_minutes_with_its_place_in_the_incident(board):
    board.take(alert(step=1, cause=DEAD), 0.0)
    board.take(alert(step=2, rule="explosion", module=None, cause=AROUND), 0.0)
    board.take(alert("resolved", step=9, rule="explosion", module=None), 10.0)
    assert told(board, 309.0)["explosion"] == ("zero at mlp (actor)", "follows")
    assert "explosion" not in told(board, 310.0)


def test_what_was_forgotten_over_all_that_came_since_stands_for_itself(board):
    board.take(alert(step=1, cause=DEAD), 0.0)
    board.take(alert(step=2, rule="explosion", module=None, cause=AROUND), 0.0)
    for rule, module in (("explosion", None), ("zero", "mlp")):
        board.take(alert("resolved", step=3, rule=rule, module=module), 0.0)
    for step in range(10, 90, 2):
        board.take(alert(step=step, rule="stale", module=None), 1.0)
        board.take(alert("resolved", step=step + 1, rule="stale", module=None), 1.0)
    assert told(board)["explosion"] == ("explosion (actor)", "root")


def test_the_words_of_an_alert_that_is_over_still_say_how_it_began_and_why(board):
    episode = [alert(step=1), alert("explained", 2, cause=AROUND), alert("explained", 3, cause=DEAD)]
    for one in (*episode, alert("resolved", 9)):
        board.take(one, 0.0)
    ((_, said),) = board.told(100.0)
    assert said.words.split("\n") == [str(one) for one in (episode[0], episode[2], alert("resolved", 9))]


def test_an_alert_that_comes_again_is_told_anew(board):
    for one in (alert(step=1), alert("resolved", 2), alert(step=5, cause=DEAD)):
        board.take(one, 0.0)
    ((_, said),) = board.told(100.0)
    assert said.words == str(alert(step=5, cause=DEAD))


def test_the_end_of_what_an_earlier_state_of_the_run_began_is_told(board):
    board.take(alert("resolved", 9), 0.0)
    ((_, said),) = board.told(100.0)
    assert said.words == str(alert("resolved", 9))
