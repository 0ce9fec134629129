import pytest

from examples.carla_td3.questions import Questions, infinite_meter
from gradwatch import Alert, Cause, GroupNorms, StepRecord

TANH = Cause("saturated-tanh", "actor_mlp", {}, "")
SHORTCUT = Cause("shortcut", "actor_cnn", {}, "")


def record(side, step, cnn, mlp, before=9e6, missing=()):
    after = (cnn**2 + mlp**2) ** 0.5
    modules = {f"{side}_cnn": GroupNorms(cnn, cnn), f"{side}_mlp": GroupNorms(mlp, mlp)}
    return StepRecord(side, step, 0.0, before, after, after / before, modules=modules, missing=missing)


def alert(rule, module, cause, step=12):
    return Alert(rule, "critical", "explained", "actor", module, step, 0.0, 0.0, "", cause=cause)


def legacy(cnn=1.0):
    questions = Questions()
    questions.write([record("critic", n, 3.0, 4.0) for n in range(1, 21)], [])
    questions.write([record("actor", n, cnn, 0.2 if n < 4 else 0.0) for n in range(1, 11)], [])
    questions.write([], [alert("zero", "actor_mlp", TANH), alert("growth", None, SHORTCUT)])
    for n in range(10):
        questions.take("debug/actor_cnn_grad_norm_AFTER_clip_SUM_OF_NORMS", 1.93 * cnn)
        questions.take("train/actor_loss", -(2.0 ** (n / 2)))
    return dict(questions.answers())


def test_every_question_of_the_report_is_answered_by_what_was_measured():
    answers = legacy(cnn=0.9)
    assert answers["Is clipping broken?"].startswith("No. actor: at most 1 after clipping in 10 of 10 updates")
    assert "1.93 times too high" in answers["Is the metric wrong?"]
    silent = answers["Why is the actor's MLP 0.0?"]
    assert "saturated-tanh at actor_mlp, told at update 12: exactly 0 in 7 of 10" in silent
    assert "reaches actor_cnn around it" in silent
    assert "above 0 in 10 of 10" in answers["Was it measured after the step?"]
    assert "10 of 20" in answers["Was it not updated every time?"]
    assert (
        answers["Was it frozen or detached?"] == "No. Every parameter got a gradient in all 10 updates: it was 0."
    )
    assert "doubles every 2 actor updates" in answers["Why does the loss run away?"]
    assert "shortcut at actor_cnn" in answers["Why does the loss run away?"]


def test_the_answers_follow_the_measurements():
    questions = Questions()
    questions.write([record("actor", 1, 0.5, 0.1)], [])
    assert dict(questions.answers())["Was it frozen or detached?"].endswith("in all 1 updates.")
    assert "in 0 of 10" in legacy(cnn=1.1)["Is clipping broken?"]
    questions = Questions()
    questions.write([record("actor", 1, 0.5, 0.1, missing=("x",))], [alert("clip-broken", None, None)])
    answers = dict(questions.answers())
    assert answers["Is clipping broken?"].startswith("Yes")
    assert answers["Was it frozen or detached?"].startswith("Yes")
    assert answers["Why is the actor's MLP 0.0?"] == "It is not, in this run."
    assert answers["Why does the loss run away?"] == "No update was made."


def test_a_meter_with_an_infinite_limit_erases_what_it_measures():
    assert "left nan and nan" in infinite_meter()


@pytest.mark.parametrize("losses", [[0.5, 0.5], [-1.0, 0.3]])
def test_a_loss_that_does_not_run_away_is_not_said_to(losses):
    questions = Questions()
    for loss in losses * 3:
        questions.take("train/actor_loss", loss)
    assert dict(questions.answers())["Why does the loss run away?"].startswith("It does not")
