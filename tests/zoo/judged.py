"""What gradwatch said of a loop, held against what the loop itself knows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from gradwatch import Alert, Cause, StepRecord
from tests.blocks import blocks_of, judged_alike
from tests.loops.frozen import differences, not_restored, torch_itself
from tests.zoo.registry import ANYWHERE, Fault, Healthy, Verdict
from tests.zoo.run import Run, carried_out

__all__ = ["MOST_DELAY", "Found", "Outcome", "judged_fault", "judged_healthy"]

# Steps between the fault being visible and the alert.
MOST_DELAY = 5


@dataclass
class Found:
    """What became of one verdict.

    Attributes:
        verdict: the one that must be found.
        delay: steps from the fault being visible to the alert; None where none came.
        symptom: what is wrong with the symptom that was found, in words.
        cause: the cause that was given.
        wrong: what is wrong with the cause, in words.
    """

    verdict: Verdict
    delay: int | None = None
    symptom: list[str] = field(default_factory=list)
    cause: Cause | None = None
    wrong: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What became of one loop.

    Attributes:
        name: of the loop.
        found: of a fault, what became of each verdict.
        alerts: of a healthy loop, every alert that fired.
        alarms: alerts that nothing in the loop explains, in words.
        missed: lines that are ill and of which no alert tells, in words.
        broken: what is wrong with the loop or with tracking itself, in words.
    """

    name: str
    found: list[Found] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """All that is wrong."""
        of_verdicts = [each for found in self.found for each in (*found.symptom, *found.wrong)]
        return [*self.broken, *of_verdicts, *self.missed, *self.alarms]


def judged_fault(fault: Fault) -> Outcome:
    """Carry the loop out bare and tracked, and compare."""
    run, broken = _both(fault.loop)
    outcome = Outcome(fault.name, broken=broken)
    absent = [rule for rule in {verdict.rule for verdict in fault.verdicts} if not run.seen_by(rule)]
    if absent:
        outcome.broken.append(
            f"the fault is not there: the loop saw nothing of {', '.join(absent)} by its own means"
        )
        return outcome
    alerts = _alerts(run)
    outcome.broken += _of_diagnoses(run)
    outcome.found = [
        _asked(verdict, run) if verdict.asked else _found(verdict, alerts, run) for verdict in fault.verdicts
    ]
    outcome.missed = list(_untold(alerts, run))
    outcome.alarms = list(_beside(fault, alerts, run))
    return outcome


def judged_healthy(healthy: Healthy) -> Outcome:
    """Carry the loop out bare and tracked, and look at what was said."""
    run, broken = _both(healthy.loop)
    broken += [f"it is not hard to tell: never {name}" for name, so in run.traits.items() if not so]
    broken += _of_diagnoses(run)
    broken += ["the fault is there all the same"] if any(run.seen.values()) else []
    fired = [alert for alert in _alerts(run) if alert.state == "firing"]
    alarms = [
        f"a cause of nothing: {_in_short(cause)}" for each in run.diagnosed for cause in each.causes.values()
    ]
    alarms += [
        _told(alert) for alert in fired if alert.severity == "critical" or alert.rule not in healthy.warnings
    ]
    return Outcome(healthy.name, alerts=fired, alarms=alarms, broken=broken)


def _both(loop: object) -> tuple[Run, list[str]]:
    _, bare = carried_out(loop, tracked=False)  # type: ignore[arg-type]
    before = torch_itself()
    run, tracked = carried_out(loop, tracked=True)  # type: ignore[arg-type]
    broken = [f"torch was not restored: {name}" for name in not_restored(before, torch_itself())]
    broken += [f"tracking changed training: {path}" for path in differences(bare, tracked)[:3]]
    assert run.watch is not None, "the loop tracked nothing"
    errors = run.watch.health().internal_errors
    broken += [f"{errors} internal errors"] if errors else []
    return run, broken + (
        [] if _alike_in_blocks(run.watch.history) else ["blocks are judged otherwise than steps"]
    )


def _of_diagnoses(run: Run) -> list[str]:
    """What went wrong inside a diagnosis that the loop has asked for."""
    wrong = [f"an error in a diagnosis: {error!r}" for each in run.diagnosed for error in each.errors]
    return wrong + ["a diagnosis that saw no backward pass" for each in run.diagnosed if not each.passes]


def _untold(alerts: list[Alert], run: Run) -> Iterator[str]:
    """Lines of the report that the loop itself sees ill, and of which no alert tells."""
    assert run.watch is not None
    lines = {line for record in run.watch.history for line in record.modules}
    told = {(alert.rule, alert.module) for alert in alerts}
    for rule, ill in run.ill.items():
        yield from (
            f"no {rule} alert on {line}" for line in lines & ill if not told & {(rule, line), (rule, None)}
        )


def _alike_in_blocks(history: list[StepRecord]) -> bool:
    # Optimizers take turns; each for itself, so that there are blocks.
    by_optimizer = sorted(history, key=lambda record: record.optimizer)
    try:
        judged_alike(blocks_of(by_optimizer, itertools.cycle((16, 1, 7))))
    except AssertionError:
        return False
    return True


def _alerts(run: Run) -> list[Alert]:
    assert run.watch is not None
    return list(run.watch.alerts)


def _asked(verdict: Verdict, run: Run) -> Found:
    """What the first diagnosis that the loop asked for says of the module or parameter."""
    found = Found(verdict, delay=0)
    assert verdict.module is not None
    found.cause = run.diagnosed[0].causes.get(verdict.module)
    if found.cause is None:
        found.wrong.append(f"a diagnosis has no cause for {verdict.module}, should be {verdict.cause}")
    else:
        found.wrong += _wrong_in(found.cause, verdict, min(run.seen_by(verdict.rule)), run)
    return found


def _found(verdict: Verdict, alerts: list[Alert], run: Run) -> Found:
    found, visible = Found(verdict), min(run.seen_by(verdict.rule))
    mine = [alert for alert in alerts if _matches(verdict, alert)]
    fired = [alert for alert in mine if alert.state == "firing" and alert.step >= visible]
    if not fired:
        found.symptom.append(f"no {verdict.rule} alert on {_name(verdict.optimizer, verdict.module)}")
        return found
    found.delay = fired[0].step - visible
    if found.delay > MOST_DELAY:
        found.symptom.append(f"{verdict.rule} came {found.delay} steps after the fault was visible")
    if verdict.worst not in {alert.severity for alert in fired}:
        found.symptom.append(f"{verdict.rule} is {fired[-1].severity}, not {verdict.worst}")
    if verdict.cause is not None:
        _judge_cause(found, [alert for alert in mine if alert.state != "resolved"], run)
    return found


def _judge_cause(found: Found, told: list[Alert], run: Run) -> None:
    verdict = found.verdict
    explained = [alert for alert in told if alert.cause is not None]
    if not explained:
        found.wrong.append(f"{verdict.rule} has no cause, should be {verdict.cause}")
        return
    alert = explained[-1 if verdict.recurs else 0]
    found.cause = alert.cause
    assert found.cause is not None
    found.wrong += _wrong_in(found.cause, verdict, alert.step, run)
    seen = run.seen_by(verdict.rule)
    delay = alert.step - (max(step for step in seen if step <= alert.step) if verdict.recurs else min(seen))
    if delay > MOST_DELAY + 1:
        found.wrong.append(f"the cause came {delay} steps after the fault was visible")


def _wrong_in(cause: Cause, verdict: Verdict, step: int, run: Run) -> Iterator[str]:
    """Kind, place, remedy and evidence of a cause, held against the verdict."""
    if cause.kind not in verdict.kinds:
        yield f"the cause is {_in_short(cause)}, should be {verdict.cause}"
        return
    if verdict.where and cause.where not in verdict.where:
        yield f"the cause is at {cause.where!r}, should be at {' or '.join(verdict.where)}"
    if not cause.remedy.strip():
        yield "the cause has no remedy"
    for words in verdict.remedy:
        if not any(word in cause.remedy.lower() for word in words.lower().split("|")):
            yield f"the remedy does not speak of {words!r}: {cause.remedy}"
    yield from _contradictions(cause, verdict, step, run)


def _contradictions(cause: Cause, verdict: Verdict, step: int, run: Run) -> Iterator[str]:
    measured = [numbers for at, numbers in run.seen_by(verdict.rule).items() if at <= step + 1]
    for name in verdict.evidence:
        told = cause.evidence.get(name)
        true = [numbers[name] for numbers in measured]
        if not isinstance(told, (int, float)) or not any(_agree(told, each) for each in true):
            yield f"the evidence says {name}={told!r}, measured were {true[-3:]}"
    for name, wanted in verdict.exact.items():
        if cause.evidence.get(name) != wanted:
            yield f"the evidence says {name}={cause.evidence.get(name)!r}, should be {wanted!r}"
    for name, value in cause.evidence.items():
        if not isinstance(value, (int, float, str)) or (name.startswith("share") and value != value):
            yield f"the evidence is no plain value: {name}={value!r}"


def _agree(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-5)


def _beside(fault: Fault, alerts: list[Alert], run: Run) -> Iterator[str]:
    """Alerts that no verdict asks for, and those that came before there was anything to see."""
    for alert in alerts:
        if alert.state != "firing":
            continue
        visible = min(run.seen_by(alert.rule) or {1: {}})
        if alert.step < visible and alert.rule not in fault.also:
            yield f"before the fault was visible at step {visible}: {_told(alert)}"
        elif (alert.module or "") in run.ill.get(alert.rule, ()):
            continue
        elif alert.rule not in fault.also and not any(_matches(verdict, alert) for verdict in fault.verdicts):
            yield _told(alert)


def _matches(verdict: Verdict, alert: Alert) -> bool:
    """Whether the alert is the one that is asked for; a verdict of a diagnosis asks for none."""
    if verdict.asked or (alert.rule, alert.optimizer) != (verdict.rule, verdict.optimizer):
        return False
    return verdict.module in (alert.module, ANYWHERE)


def _name(optimizer: str, module: str | None) -> str:
    return optimizer if module is None else f"{optimizer}/{module}"


def _told(alert: Alert) -> str:
    return (
        f"{alert.severity} {alert.rule} on {_name(alert.optimizer, alert.module)} at step {alert.step}: "
        f"{alert.message}" + ("" if alert.cause is None else f" [{_in_short(alert.cause)}]")
    )


def _in_short(cause: Cause) -> str:
    evidence = ", ".join(f"{name}={value}" for name, value in cause.evidence.items())
    return f"{cause.kind} at {cause.where!r} ({evidence})"
