"""Episodes: an alert fires once, is resolved once, and a rule that fails takes nobody with it."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Finding
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.rules import default_rules
from tests.made_up import record


class Above:
    """Finds every norm above 10."""

    id = "above"
    severity: Severity = "warning"

    def __init__(self, fires_after: int = 1, clears_after: int = 1, **finding: object) -> None:
        self.fires_after, self.clears_after, self._finding = fires_after, clears_after, finding

    def look(self, record: StepRecord) -> Iterator[Finding]:
        if record.norm_before > 10:
            yield Finding(None, record.norm_before, 10.0, "too much", **self._finding)  # type: ignore[arg-type]


def states(judge: Judge, norms: Iterable[float], **other: object) -> list[str | None]:
    said = []
    for step, norm in enumerate(norms, 1):
        alerts = judge.judge(record(step, norm, **other))  # type: ignore[arg-type]
        assert len(alerts) <= 1
        said.append(alerts[0].state if alerts else None)
    return said


ILL, WELL = 20.0, 5.0


def test_it_fires_after_so_many_findings_in_a_row() -> None:
    judge = Judge([Above(fires_after=3)])
    assert states(judge, [ILL, ILL, WELL, ILL, ILL, ILL]) == [None] * 5 + ["firing"]


def test_one_alert_an_episode_and_one_resolution() -> None:
    judge = Judge([Above(fires_after=2, clears_after=3)])
    norms = [ILL] * 5 + [WELL] * 5 + [ILL] * 2
    assert states(judge, norms) == [None, "firing", *[None] * 5, "resolved", None, None, None, "firing"]


def test_a_relapse_before_the_end_is_the_same_episode() -> None:
    judge = Judge([Above(clears_after=3)])
    assert states(judge, [ILL, WELL, WELL, ILL, WELL, WELL, ILL]) == ["firing", *[None] * 6]
    assert len(judge.active) == 1


def test_at_once_does_not_wait() -> None:
    assert states(Judge([Above(fires_after=5, at_once=True)]), [ILL, ILL]) == ["firing", None]


def test_what_an_alert_says() -> None:
    judge = Judge([Above(fires_after=2)])
    judge.judge(record(1, 20.0))
    (alert,) = judge.judge(record(2, 30.0))
    assert (alert.rule, alert.severity, alert.state) == ("above", "warning", "firing")
    assert (alert.optimizer, alert.module, alert.step) == ("actor", None, 2)
    assert (alert.value, alert.threshold, alert.message, alert.cause) == (30.0, 10.0, "too much", None)


def test_a_finding_may_differ_in_severity_and_carry_its_cause() -> None:
    cause = Cause("frozen", "mlp", {}, "Set requires_grad.")
    (alert,) = Judge([Above(severity="critical", cause=cause)]).judge(record(1, ILL))
    assert (alert.severity, alert.cause) == ("critical", cause)


def test_what_a_resolution_says() -> None:
    judge = Judge([Above(clears_after=2)])
    for step, norm in enumerate([ILL, ILL, ILL, WELL], 1):
        judge.judge(record(step, norm))
    (alert,) = judge.judge(record(5, WELL))
    assert (alert.state, alert.step, alert.rule, alert.severity) == ("resolved", 5, "above", "warning")
    assert math.isnan(alert.value)
    assert "4 steps" in alert.message
    assert "too much" not in alert.message
    assert judge.active == []


def test_active_holds_what_fires_now() -> None:
    judge = Judge([Above(fires_after=2)])
    assert judge.active == []
    judge.judge(record(1, ILL))
    assert judge.active == []
    alerts = judge.judge(record(2, ILL))
    assert judge.active == alerts
    judge.judge(record(3, WELL))
    assert judge.active == []


def test_optimizers_have_episodes_of_their_own() -> None:
    judge = Judge([Above(fires_after=2)])
    assert judge.judge(record(1, ILL, optimizer="a")) == []
    assert judge.judge(record(1, ILL, optimizer="b")) == []
    assert judge.judge(record(2, WELL, optimizer="b")) == []
    (alert,) = judge.judge(record(2, ILL, optimizer="a"))
    assert alert.optimizer == "a"
    assert judge.judge(record(3, WELL, optimizer="b")) == []
    assert len(judge.active) == 1


class PerModule(Above):
    def look(self, record: StepRecord) -> Iterator[Finding]:
        for name, norms in record.modules.items():
            if norms.norm_before > 10:
                yield Finding(name, norms.norm_before, 10.0, "too much")


def test_modules_have_episodes_of_their_own() -> None:
    judge = Judge([PerModule()])
    both = judge.judge(record(1, modules={"x": _pair(ILL), "y": _pair(ILL)}))
    assert [a.module for a in both] == ["x", "y"]
    (over,) = judge.judge(record(2, modules={"x": _pair(WELL), "y": _pair(ILL)}))
    assert (over.module, over.state) == ("x", "resolved")
    assert [a.module for a in judge.active] == ["y"]


def _pair(norm: float) -> tuple[float, float]:
    from gradwatch.records import GroupNorms

    return GroupNorms(norm, norm)


class Broken(Above):
    id = "broken"

    def look(self, record: StepRecord) -> Iterator[Finding]:
        if record.step == 2:
            raise ZeroDivisionError
        yield Finding(None, 1.0, 0.0, "always")


def test_a_rule_that_fails_is_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    judge = Judge([Broken(), Above()])
    with caplog.at_level(logging.ERROR, "gradwatch"):
        said = [[(a.rule, a.state) for a in judge.judge(record(step, ILL))] for step in (1, 2, 3)]
    # Nothing else would ever end what it has begun.
    assert said == [[("broken", "firing"), ("above", "firing")], [("broken", "resolved")], []]
    assert [alert.rule for alert in judge.active] == ["above"]
    assert judge.errors == len(caplog.records) == 1
    assert "'broken'" in caplog.records[0].getMessage()


def test_other_rules_still_judge_the_record_on_which_one_failed() -> None:
    judge = Judge([Broken(), Above()])
    assert [a.rule for a in judge.judge(record(2, ILL))] == ["above"]


def test_no_rules_no_alerts() -> None:
    assert Judge([]).judge(record(1, math.nan)) == []


# None, severity and causes


class Blind(Above):
    """Cannot tell from a skipped step."""

    def look(self, record: StepRecord) -> list[Finding] | None:
        return None if record.skipped else list(super().look(record))


def test_a_record_that_cannot_tell_is_neither_ill_nor_healthy() -> None:
    judge = Judge([Blind(fires_after=2, clears_after=2)])
    story = [(ILL, False), (ILL, True), (ILL, False), (WELL, False), (WELL, True), (WELL, True), (WELL, False)]
    said = [judge.judge(record(step, norm, skipped=skipped)) for step, (norm, skipped) in enumerate(story, 1)]
    assert [[a.state for a in alerts] for alerts in said] == [[], [], ["firing"], [], [], [], ["resolved"]]


class Rising(Above):
    """A warning above 10, critical above 100."""

    def look(self, record: StepRecord) -> Iterator[Finding]:
        for finding in super().look(record):
            yield replace(finding, severity="critical" if record.norm_before > 100 else "warning")


def test_a_warning_that_turns_critical_is_over_and_fires_again() -> None:
    judge = Judge([Rising()])
    told = [
        (a.state, a.severity, a.step)
        for s, n in enumerate([20, 20, 200, 20], 1)
        for a in judge.judge(record(s, n))
    ]
    assert told == [("firing", "warning", 1), ("resolved", "warning", 3), ("firing", "critical", 3)]
    assert [a.severity for a in judge.active] == ["critical"]


def test_a_warning_that_turns_critical_keeps_its_cause() -> None:
    judge = Judge([Rising()])
    judge.judge(record(1, 20.0))
    judge.explained("above", "actor", None, CAUSE, step=1)
    _, critical = judge.judge(record(2, 200.0))
    assert (critical.state, critical.cause) == ("firing", CAUSE)
    assert judge.explained("above", "actor", None, CAUSE, step=2) is None


CAUSE = Cause("dead-relu", "mlp.2", {"share": 1.0}, "Lower the rate.")


def test_a_cause_that_is_found_later_is_told_once() -> None:
    judge = Judge([Zeroed(clears_after=2)])
    (firing,) = judge.judge(record(1, ILL))
    assert judge.unexplained() == [firing]
    told = judge.explained("zero", "actor", None, CAUSE, step=3)
    assert told == replace(firing, state="explained", cause=CAUSE, step=3)
    assert judge.active == [replace(firing, cause=CAUSE)]
    assert judge.unexplained() == []
    assert judge.explained("zero", "actor", None, CAUSE, step=4) is None
    judge.judge(record(4, WELL))
    (over,) = judge.judge(record(5, WELL))
    assert (over.state, over.cause) == ("resolved", CAUSE)


def test_nothing_is_explained_that_does_not_fire() -> None:
    judge = Judge([Zeroed(fires_after=2)])
    judge.judge(record(1, ILL))
    assert judge.explained("zero", "actor", None, CAUSE, step=1) is None
    judge.judge(record(2, ILL))
    for where in (("zero", "critic", None), ("zero", "actor", "mlp"), ("stale", "actor", None)):
        assert judge.explained(*where, CAUSE, step=2) is None


def test_a_cause_at_hand_may_be_confirmed_and_not_replaced() -> None:
    at_hand = replace(CAUSE, kind="shortcut")
    judge = Judge([Zeroed(cause=at_hand)])
    judge.judge(record(1, ILL))
    assert judge.unexplained() == []
    assert judge.explained("zero", "actor", None, CAUSE, step=2) is None
    later = replace(at_hand, evidence=dict.fromkeys(at_hand.evidence, 0.5))
    assert judge.explained("zero", "actor", None, later, step=2) is None
    more = replace(at_hand, evidence={"share": 1.0, "path": "cnn -> q"})
    told = judge.explained("zero", "actor", None, more, step=2)
    assert told is not None
    assert told.cause == more


def test_a_finding_that_comes_to_know_its_cause_explains() -> None:
    rule = Zeroed()
    judge = Judge([rule])
    judge.judge(record(1, ILL))
    rule._finding["cause"] = CAUSE
    assert [(a.state, a.cause) for a in judge.judge(record(2, ILL))] == [("explained", CAUSE)]
    assert judge.judge(record(3, ILL)) == []


def test_only_some_rules_ask_for_an_explanation() -> None:
    judge = Judge([Above()])
    judge.judge(record(1, ILL))
    assert judge.unexplained() == []


def test_a_resumed_judge_knows_what_was_explained() -> None:
    first, second = Judge([Zeroed()]), Judge([Zeroed()])
    first.judge(record(1, ILL))
    first.explained("zero", "actor", None, CAUSE, step=1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.active == first.active
    assert second.explained("zero", "actor", None, CAUSE, step=2) is None


class Zeroed(Above):
    id = "zero"
    wants_cause = True


def test_something_is_in_suspense_from_its_first_finding_until_it_fires() -> None:
    judge = Judge([Zeroed(fires_after=2, clears_after=2)])
    seen = []
    for step, norm in enumerate([WELL, ILL, WELL, ILL, ILL, ILL], 1):
        judge.judge(record(step, norm))
        seen.append(judge.in_suspense)
    assert seen == [False, True, False, True, False, False]


def test_what_wants_no_cause_is_in_suspense_until_it_fires() -> None:
    judge = Judge([Above(fires_after=2)])
    judge.judge(record(1, ILL))
    assert judge.in_suspense
    judge.judge(record(2, ILL))
    assert not judge.in_suspense


def test_a_resumed_judge_is_in_suspense_as_the_first_was() -> None:
    first, second = Judge([Above(fires_after=2)]), Judge([Above(fires_after=2)])
    first.judge(record(1, ILL))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.in_suspense


def test_what_fires_may_be_read_while_another_thread_judges() -> None:
    judge, done, failed = Judge([PerModule(clears_after=1)]), threading.Event(), []

    def read() -> None:
        while not done.is_set():
            try:
                assert all(alert.state == "firing" for alert in judge.active)
                judge.unexplained()
            except Exception as error:
                failed.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 2000):
        judge.judge(record(step, modules={f"m{step * i % 97}": _pair(ILL) for i in range(20)}))
    done.set()
    reader.join()
    assert failed == []


def test_which_rules_a_shortcut_may_explain() -> None:
    judge = Judge([rule for rule in default_rules() if rule.id in ("explosion", "zero")])
    told = [a for s in range(1, 4) for a in judge.judge(record(s, 1e9, modules={"mlp": _pair(0.0)}))]
    assert [a.rule for a in told if a.state == "firing"] == ["explosion", "zero"]
    assert [a.rule for a in judge.perhaps_shortcuts()] == ["explosion"]
    assert [a.rule for a in judge.unexplained()] == ["zero"]
