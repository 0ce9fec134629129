import io
import math

import numpy as np
import pytest
from rich.console import Console

from examples.carla_td3.checklist import Checklist, Worst
from examples.carla_td3.evaluation import Episode, Evaluation
from gradwatch import Alert, ClipCall, GroupNorms, StepRecord

NAN = math.nan


def record(side, after, before=None, mlp=0.5, clips=()):
    before = after if before is None else before
    return StepRecord(
        optimizer=side,
        step=1,
        time=0.0,
        norm_before=before,
        norm_after=after,
        clip_ratio=after / before,
        modules={f"{side}_mlp": GroupNorms(mlp, mlp), f"{side}_cnn": GroupNorms(9.0, 9.0)},
        clips=clips,
    )


def alert(severity="critical", state="firing", module="actor_mlp"):
    return Alert("zero", severity, state, "actor", module, 3, 0.0, 0.0, "zero")


def judged(route, actions=((0.2, 0.5), (-0.2, 0.1))):
    return Evaluation([Episode(1.0, 5, route, "finished")], np.array(actions, dtype=np.float32))


def healthy():
    checklist = Checklist(1.0, 10.0)
    checklist.take_evaluation("untrained", judged(0.02))
    checklist.take_evaluation("straight on", judged(0.2))
    checklist.take_evaluation("trained", judged(0.9))
    checklist.write([record("actor", 0.9), record("critic", 9.0, before=18.0)], [])
    checklist.take_actor_loss(-3.0)
    return checklist


def verdicts(checklist):
    return {line.what: line.verdict for line in checklist.lines()}


def measured(checklist):
    return {line.what: line.measured for line in checklist.lines()}


ACTOR = "actor norm AFTER clipping <= 1"
CRITIC = "critic norm AFTER clipping <= 10"
ACTOR_MLP = "actor MLP norm AFTER clipping > 0"
CRITIC_MLP = "critic MLP norm AFTER clipping > 0"
ALERTS = "critical alerts = 0"
LOSS = "actor loss > -1000"
SPREAD = "actions spread over states >= 0.01"
SATURATED = "saturated actions <= 50%"
ROUTE = "route after training > untrained and straight on"


def test_a_healthy_run_passes_every_line():
    found = verdicts(healthy())
    assert list(found) == [
        ACTOR,
        CRITIC,
        ACTOR_MLP,
        CRITIC_MLP,
        "actor clip ratio",
        "critic clip ratio",
        ALERTS,
        LOSS,
        SPREAD,
        SATURATED,
        ROUTE,
    ]
    assert list(found.values()) == ["pass"] * 4 + ["seen"] * 2 + ["pass"] * 5
    assert healthy().holds


@pytest.mark.parametrize(
    ("spoil", "line", "shown"),
    [
        (lambda c: c.write([record("actor", 1.1)], []), ACTOR, "highest 1.1"),
        (lambda c: c.write([record("actor", 1.00002)], []), ACTOR, "highest 1.00002"),
        (lambda c: c.write([record("actor", NAN)], []), ACTOR, "highest nan"),
        (lambda c: c.write([record("critic", 10.1)], []), CRITIC, "highest 10.1"),
        (lambda c: c.write([record("actor", 1.0, mlp=0.0)], []), ACTOR_MLP, "lowest 0"),
        (lambda c: c.write([record("critic", 1.0, mlp=0.0)], []), CRITIC_MLP, "lowest 0"),
        (lambda c: c.write([record("critic", 1.0, mlp=NAN)], []), CRITIC_MLP, "lowest nan"),
        (lambda c: c.write([], [alert(), alert()]), ALERTS, "2 (zero at actor_mlp)"),
        (lambda c: c.take_actor_loss(-1000.0), LOSS, "lowest -1000"),
        (lambda c: c.take_actor_loss(-7.5e12), LOSS, "lowest -7.5e+12"),
        (lambda c: c.take_actor_loss(NAN), LOSS, "lowest nan"),
    ],
)
def test_one_bad_step_fails_its_line_and_no_other_and_later_good_ones_do_not_mend_it(spoil, line, shown):
    checklist = healthy()
    spoil(checklist)
    checklist.write([record("actor", 0.9), record("critic", 9.0)], [])
    checklist.take_actor_loss(-3.0)
    assert not checklist.holds
    assert [what for what, verdict in verdicts(checklist).items() if verdict == "FAIL"] == [line]
    assert measured(checklist)[line] == shown


def test_the_limit_itself_passes_with_a_hundred_thousandth_of_room():
    checklist = healthy()
    checklist.write([record("actor", 1.000009), record("critic", 10.00009)], [])
    assert "FAIL" not in verdicts(checklist).values()


def test_torchs_own_rounding_of_the_norm_is_no_failure_and_more_than_that_is():
    def clipped(returned):
        return (ClipCall("clip_grad_norm_", 10.0, 2.0, returned, scope_before=20.0, scope_after=10.0005),)

    checklist = healthy()
    checklist.write([record("critic", 10.0005, before=20.0, clips=clipped(19.999))], [])
    assert verdicts(checklist)[CRITIC] == "pass"
    checklist.write([record("critic", 10.0015, before=20.0, clips=clipped(19.999))], [])
    assert verdicts(checklist)[CRITIC] == "FAIL"


def test_torchs_rounding_excuses_a_thousandth_at_most():
    broken = (ClipCall("clip_grad_norm_", 1.0, 2.0, 1.0, scope_before=5.0, scope_after=5.0),)
    checklist = healthy()
    checklist.write([record("actor", 5.0, clips=broken)], [])
    assert verdicts(checklist)[ACTOR] == "FAIL"


@pytest.mark.parametrize("quiet", [alert(severity="warning"), alert(state="resolved"), alert(state="explained")])
def test_only_critical_alerts_count_and_each_once(quiet):
    checklist = healthy()
    checklist.write([], [quiet])
    assert measured(checklist)[ALERTS] == "0"


def test_an_alert_on_the_whole_optimizer_names_it():
    checklist = healthy()
    checklist.write([], [alert(module=None)])
    assert measured(checklist)[ALERTS] == "1 (zero at actor)"


def test_the_range_of_the_clip_ratio_is_shown():
    checklist = healthy()
    checklist.write([record("critic", 1.0, before=100.0), record("critic", 1.0)], [])
    assert measured(checklist)["critic clip ratio"] == "0.01 to 1"


def test_a_run_without_updates_fails_what_it_cannot_show():
    found = verdicts(Checklist(1.0, 10.0))
    failed = [what for what, verdict in found.items() if verdict == "FAIL"]
    assert failed == [
        ACTOR,
        CRITIC,
        ACTOR_MLP,
        CRITIC_MLP,
        LOSS,
        SPREAD,
        SATURATED,
        "route after training > before",
    ]
    assert "no update" in measured(Checklist(1.0, 10.0))[ACTOR]


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (judged(0.9, [(0.37, 0.35)] * 9), [SPREAD]),
        (judged(0.9, [(0.37, 0.1), (0.37, 0.9)]), [SPREAD]),
        (judged(0.9, [(1.0, -1.0), (-1.0, 0.97)]), [SATURATED]),
        (judged(0.9, [(0.955, 0.955), (0.9551, 0.9552)]), [SPREAD, SATURATED]),
        (judged(0.2), [ROUTE]),
        (judged(0.15), [ROUTE]),
        (judged(math.nan), [ROUTE]),
    ],
    ids=["constant", "one of two", "at both ends", "the one that died", "straight on", "worse", "nan"],
)
def test_a_policy_that_does_not_drive_fails(found, lines):
    checklist = healthy()
    checklist.take_evaluation("trained", found)
    assert [what for what, verdict in verdicts(checklist).items() if verdict == "FAIL"] == lines


def test_a_side_that_is_not_clipped_has_no_limit_to_keep():
    assert ACTOR not in verdicts(Checklist(0.0, 10.0))


def test_a_run_that_goes_on_keeps_what_was_worst():
    checklist, other = healthy(), Checklist(1.0, 10.0)
    checklist.write([record("actor", 1.1)], [alert()])
    other.load_state_dict(checklist.state_dict())
    assert other.lines() == checklist.lines()


def test_the_table_says_in_words_what_its_colours_say():
    checklist = healthy()
    checklist.take_actor_loss(-5000.0)
    screen = io.StringIO()
    Console(file=screen, width=100, color_system=None).print(checklist.table())
    lines = screen.getvalue().splitlines()
    assert any("actor loss" in line and "-5000" in line and "FAIL" in line for line in lines)
    assert any("critic MLP" in line and "pass" in line for line in lines)


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [2.0, 3.0, 1.0]])
def test_the_worst_is_kept_whatever_the_order(values):
    most, least = Worst(), Worst()
    for value in values:
        most.most(value)
        least.least(value)
    assert (most.value, least.value) == (3.0, 1.0)


def test_nan_stays_the_worst():
    worst = Worst()
    for value in (1.0, NAN, 5.0):
        worst.most(value)
    assert str(worst) == "nan"
